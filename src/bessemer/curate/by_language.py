"""What each language lost: pages in, kept, and lost to the language rules, to other rules, as duplicates."""

from collections import Counter
from typing import Any

import pyarrow as pa

from bessemer.runner.context import Metrics

MAX_LANGUAGES = 30
"""Languages with figures of their own in the metrics; the ledger and the review page have all."""
_MAX_TOLD = 5
_LOSSES = {"language": "language", "edit": "rules", "rules": "rules", "duplicates": "duplicates"}
"""Stage of the ledger → what the page was lost to."""
_TOLD = (("language", "to language"), ("rules", "to rules"), ("duplicates", "as duplicates"))
_PREFIX = "language."


class LanguageCounts:
    """Counts ledger rows by language. Pages that gave no text have none and are not counted."""

    def __init__(self) -> None:
        self._counts: dict[str, Counter[str]] = {}

    def add(self, table: pa.Table) -> None:
        """`table` has the ledger's columns `language` and `dropped_stage`."""
        pairs = zip(table["language"].to_pylist(), table["dropped_stage"].to_pylist(), strict=True)
        for (language, stage), count in Counter(pairs).items():
            if language is not None:
                outcome = "kept" if stage is None else _LOSSES[stage]
                self._counts.setdefault(language, Counter())[outcome] += count

    def metrics(self) -> Metrics:
        """`languages` (how many), and `language.CODE.pages`, `.kept`, `.lost.language`, `.lost.rules`,
        `.lost.duplicates` of the most frequent, where not 0; the rest together under the code `others`."""
        ranked = sorted(self._counts, key=lambda code: (-self._counts[code].total(), code))
        named = {code: self._counts[code] for code in ranked[:MAX_LANGUAGES]}
        others = sum((self._counts[code] for code in ranked[MAX_LANGUAGES:]), Counter())
        found: dict[str, Any] = {"languages": len(ranked)}
        for code, counts in (named | ({"others": others} if others else {})).items():
            figures = {"pages": counts.total(), "kept": counts["kept"]}
            figures |= {f"lost.{loss}": counts[loss] for loss, _ in _TOLD}
            found |= {f"{_PREFIX}{code}.{name}": figure for name, figure in figures.items() if figure}
        return found


def tell_languages(metrics: Metrics) -> str:
    """`LanguageCounts.metrics` in a line: the most frequent languages that were kept at all, and the rest."""
    codes = [
        name.removeprefix(_PREFIX).removesuffix(".pages")
        for name in metrics
        if name.startswith(_PREFIX) and name.endswith(".pages")
    ]
    named = [code for code in codes if f"{_PREFIX}{code}.kept" in metrics and code != "others"][:_MAX_TOLD]
    told = [_tell(code, metrics) for code in named]
    num_others = metrics["languages"] - len(named)
    if num_others:
        rest = [code for code in codes if code not in named]
        pages = sum(metrics[f"{_PREFIX}{code}.pages"] for code in rest)
        kept = sum(metrics.get(f"{_PREFIX}{code}.kept", 0) for code in rest)
        told.append(f"{kept:,} of {pages:,} in {num_others} other language{'s' * (num_others > 1)}")
    return f"by language: {'; '.join(told) or 'no page with text'}"


def _tell(code: str, metrics: Metrics) -> str:
    name = f"{_PREFIX}{code}"
    losses = [(metrics.get(f"{name}.lost.{loss}", 0), how) for loss, how in _TOLD]
    lost = ", ".join(f"{count:,} {how}" for count, how in losses if count)
    return f"{code} {metrics[f'{name}.kept']:,} of {metrics[f'{name}.pages']:,} kept" + (
        f" (lost {lost})" if lost else ""
    )
