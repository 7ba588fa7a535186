"""Counts of the whole ledger: the funnel, and what each language and source lost."""

from collections.abc import Sequence

import polars as pl

from bessemer.curate.replay import BEFORE_RULES
from bessemer.curate.review.ledger import ReviewLedger
from bessemer.formats.ledger import scan_ledger

_STEPS = (
    ("unreadable", ("read", "extract")),
    ("language", ("language",)),
    ("rules", ("edit", "rules")),
    ("duplicates", ("duplicates",)),
)
"""Columns of the tables and the stages that they count."""
STEP_NAMES = tuple(name for name, _ in _STEPS)


def funnel(ledger: ReviewLedger) -> list[tuple[str, str, int]]:
    """(stage, reason, records dropped) in the order of judgement, the most frequent reason first."""
    counts = (
        scan_ledger(ledger.folder)
        .filter(pl.col("dropped_stage").is_not_null())
        .group_by("dropped_stage", "dropped_rule")
        .agg(pl.len())
        .collect()
        .rows()
    )
    order = {stage: number for number, stage in enumerate((*BEFORE_RULES, "rules"))}
    return sorted(counts, key=lambda row: (order.get(row[0], len(order)), -row[2], row[1]))


def by_column(ledger: ReviewLedger, column: str, limit: int) -> tuple[list[tuple[str, Sequence[int]]], int]:
    """Rows (value, [entered, dropped by each of STEP_NAMES, kept, characters kept]), the most frequent first.

    Second, how many values are left out.
    """
    stage = pl.col("dropped_stage").fill_null("")
    is_kept = pl.col("verdict") == "kept"
    counts = (
        scan_ledger(ledger.folder)
        .group_by(pl.col(column).fill_null("(none)").alias("value"))
        .agg(
            pl.len().alias("entered"),
            *(stage.is_in(stages).sum().alias(name) for name, stages in _STEPS),
            is_kept.sum().alias("kept"),
            pl.col("num_characters").filter(is_kept).sum().alias("characters"),
        )
        .sort("entered", "value", descending=[True, False])
        .collect()
    )
    rows: list[tuple[str, Sequence[int]]] = [(row[0], row[1:]) for row in counts.head(limit).rows()]
    return rows, max(counts.height - limit, 0)
