"""What each language lost, and pages in two languages."""

from collections.abc import Mapping
from typing import Any

import polars as pl
from markupsafe import Markup

from bessemer.curate.review import tables
from bessemer.curate.review.ledger import ReviewLedger
from bessemer.curate.whereabouts import curate_config
from bessemer.export.markup import section, tag
from bessemer.export.markup import table as html_table
from bessemer.formats.ledger import scan_ledger

_MAX_LANGUAGES, _MAX_PAIRS = 40, 15


def languages_section(ledger: ReviewLedger) -> Markup:
    """What became of the pages of each language, with its threshold, and pairs of languages on one page."""
    rows, num_more = tables.by_column(ledger, "language", _MAX_LANGUAGES)
    config = curate_config(ledger.folder)
    means = _mean_scores(ledger)
    told = [
        [
            name,
            *(f"{count:,}" if number == 0 or count else "" for number, count in enumerate(counts[:-2])),
            f"{counts[-2]:,}",
            f"{counts[-2] / counts[0]:.0%}",
            f"{counts[-1]:,}",
            _least_score(name, config) if means.get(name) is not None else "",
            f"{means[name]:.2f}" if means.get(name) is not None else "",
        ]
        for name, counts in rows
    ]
    figures = ["kept", "share", "characters kept", "least score", "mean score"]
    headings = ["language", "entered", *tables.STEP_NAMES, *figures]
    more = tag("p", f"{num_more:,} more are not shown.", class_="muted small") if num_more else None
    lead = (
        "How many pages each step dropped. Characters are those of the extracted text, before edits. Pages "
        "without text have no language."
    )
    table = html_table(headings, told, class_="figures")
    return section("languages", "Languages", table, more, *_pairs(ledger), lead=lead)


def _least_score(code: str, config: Mapping[str, Any]) -> str:
    """The threshold of a language that is kept; nothing where the manifest does not tell."""
    languages = config.get("languages")
    if languages is None or (languages and code not in languages):
        return ""
    general = config.get("min_language_score", 0.0) if languages else 0.0
    return f"{config.get('language_scores', {}).get(code, general):g}"


def _mean_scores(ledger: ReviewLedger) -> dict[str, float]:
    by_language = scan_ledger(ledger.folder).drop_nulls("language").group_by("language")
    return dict(by_language.agg(pl.col("language_score").mean()).collect().rows())


def _pairs(ledger: ReviewLedger) -> list[Markup]:
    """Pages with parts in a second language, by pair; none for ledgers that hold no second."""
    frame = scan_ledger(ledger.folder)
    if "second_language" not in frame.collect_schema().names():
        return []
    pairs = (
        frame.drop_nulls("second_language")
        .group_by("language", "second_language")
        .agg(pl.len().alias("pages"), (pl.col("verdict") == "kept").sum().alias("kept"))
        .sort("pages", "language", "second_language", descending=[True, False, False])
        .collect()
    )
    if pairs.is_empty():
        return []
    rows = [
        [first, second, f"{pages:,}", f"{kept:,}"]
        for first, second, pages, kept in pairs.head(_MAX_PAIRS).rows()
    ]
    note = (
        "Pages of which a quarter or more, by samples, is in another language than the whole, or in a "
        "relative of it that is hard to tell."
    )
    return [
        tag("p", note, class_="muted"),
        html_table(["language", "second", "pages", "kept"], rows, class_="figures"),
    ]
