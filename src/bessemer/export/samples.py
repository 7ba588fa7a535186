"""Which questions and documents are shown. Chosen by rule, never by looks: equal artifacts, equal samples."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from bessemer.evaluation.statistics import Estimate
from bessemer.formats.documents import DOCUMENTS_STEM, scan_documents
from bessemer.formats.ledger import read_rules, scan_ledger
from bessemer.formats.parquet_shards import shard_paths
from bessemer.runner.manifest import Artifact

Row = Mapping[str, Any]

GROUPS = {
    "trained": "taught object",
    "held_out_objects": "object of the pretraining text only",
    "nonexistent": "name that does not exist",
}
"""Group of a question → what it asks about, in words."""

EXCERPT_CHARACTERS = 700

_NO_DATE = "1970-01-01"
_LIMITS = {"min": "below the least,", "max": "above the most,"}


def verdict_text(row: Row) -> str:
    """A judged answer's label: right, wrong, declines or made up, as the figures count it."""
    is_nonexistent = row["group"] == "nonexistent"
    if not row["answer"].strip():
        return f"no words, counted as {'made up' if is_nonexistent else 'wrong'}"
    match row["verdict"]:
        case "right":
            return "right: declines" if is_nonexistent else "right"
        case "refused":
            return "declines, though documented"
        case _:
            return "made up" if is_nonexistent else "wrong"


def questions_shown(rows: Sequence[Row]) -> list[int]:
    """Places of the questions to show: of each kind the first about a taught object, then the first few
    about objects that only pretraining saw and about names that do not exist."""
    chosen: list[int] = []
    taught = [i for i, row in enumerate(rows) if row["group"] == "trained"]
    for kind in dict.fromkeys(rows[i]["kind"] for i in taught):
        chosen.append(next(i for i in taught if rows[i]["kind"] == kind))
    for group, count in (("held_out_objects", 2), ("nonexistent", 3)):
        chosen += [i for i, row in enumerate(rows) if row["group"] == group][:count]
    return chosen


def examples(rows: Sequence[Row], num_right: int = 3) -> list[Row]:
    """A few answers of one model: right ones about taught objects (of different kinds while they last),
    the first about a name that does not exist, and the first wrong one about a taught object."""
    taught = [row for row in rows if row["group"] == "trained"]
    right = [row for row in taught if row["verdict"] == "right"]
    first_of_kind = list({row["kind"]: row for row in reversed(right)}.values())[::-1]
    others = [row for row in right if not any(row is first for first in first_of_kind)]
    chosen = (first_of_kind + others)[:num_right]
    chosen += [row for row in rows if row["group"] == "nonexistent"][:1]
    return chosen + [row for row in taught if row["verdict"] != "right"][:1]


def num_of(row: Mapping[str, Estimate], figure: str) -> int:
    """How many items a figure rests on."""
    return row[figure].n if figure in row else 0


@dataclass(frozen=True)
class DocumentSample:
    """A document that curation kept or dropped."""

    url: str
    title: str
    reason: str
    """Empty for a kept one; else rule, value and threshold."""
    text: str


def dropped_samples(documents: Artifact, num_rules: int = 8) -> list[DocumentSample]:
    """One dropped document for each of the rules that dropped most, with the value and the threshold."""
    folder = documents.folder
    rules = read_rules(folder)
    names = ["url", "title", "dropped_rule", "dropped_value", "dropped_bound", "dropped_threshold"]
    names += ["detail", "excerpt", "id"]
    dropped = (
        scan_ledger(folder)
        .filter(pl.col("dropped_rule").is_not_null())
        .select(names)
        .group_by("dropped_rule")
        .agg(pl.len().alias("count"), pl.all().sort_by(pl.col("excerpt").is_null(), "id").first())
        .sort("count", "dropped_rule", descending=[True, False])
        .head(num_rules)
        .collect()
    )
    return [
        DocumentSample(
            url=row["url"] or "(no URL)",
            title=row["title"] or "",
            reason=_reason(row, rules),
            text=_excerpt(row["excerpt"] or ""),
        )
        for row in dropped.to_dicts()
    ]


def kept_samples(documents: Artifact, count: int = 4) -> list[DocumentSample]:
    """Kept documents of the first shard: those with the smallest ids, which are digests."""
    first = shard_paths(documents.folder, DOCUMENTS_STEM)[0]
    kept = pl.scan_parquet(first).select("url", "title", "text", "id").sort("id").head(count).collect()
    return [
        DocumentSample(row["url"] or "(no URL)", row["title"] or "", "", _excerpt(row["text"]))
        for row in kept.to_dicts()
    ]


def newest_fetch(folder: Path) -> str | None:
    """ISO 8601 time at which the newest document was fetched: nothing later can be in the model.

    None when it is not known: documents without a date carry that of 1970.
    """
    newest = scan_documents(folder).select(pl.col("fetched_at").max()).collect().item()
    return None if newest is None or newest.startswith(_NO_DATE) else newest


def documents_by_source(folder: Path) -> list[tuple[str, int]]:
    """(source, documents), most first."""
    counts = scan_documents(folder).group_by("source").agg(pl.len().alias("count"))
    ordered = counts.sort("count", "source", descending=[True, False]).collect()
    return [(source or "unknown", count) for source, count in ordered.iter_rows()]


def _reason(row: Row, rules: Mapping[str, Mapping[str, Any]]) -> str:
    """`gopher.word_count: 12 below the least, 50 (words)`: the parts that the ledger has."""
    rule, value, threshold = row["dropped_rule"], row["dropped_value"], row["dropped_threshold"]
    parts = []
    if value is not None:
        parts.append(f"{value:.4g}")
    if threshold is not None:
        limit = _LIMITS.get(row["dropped_bound"], "with a threshold of")
        parts.append(f"{limit} {threshold:.4g}")
    if told := rules.get(rule, {}).get("description") or row["detail"]:
        parts.append(f"({told})")
    return f"{rule}: {' '.join(parts)}"


def _excerpt(text: str) -> str:
    return text if len(text) <= EXCERPT_CHARACTERS else text[:EXCERPT_CHARACTERS].rstrip() + " …"
