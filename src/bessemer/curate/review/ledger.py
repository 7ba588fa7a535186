"""What the review reads of a ledger: counts of everything, and the columns that samples are drawn from."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from bessemer.curate.replay import BEFORE_RULES, RecordedRule, recorded_rules
from bessemer.formats.ledger import scan_ledger

MAX_SAMPLED_RECORDS = 1_000_000
"""Histograms and samples of larger ledgers rest on about so many records, chosen by their ids."""
_COLUMNS = ("id", "verdict", "dropped_stage", "dropped_rule", "language_score")
_HEX_DIGITS = 4
FACTS = (
    "id",
    "url",
    "title",
    "language",
    "language_score",
    "num_characters",
    "verdict",
    "dropped_stage",
    "dropped_rule",
    "dropped_value",
    "dropped_bound",
    "dropped_threshold",
    "detail",
    "excerpt",
    "file",
    "offset",
    "edits",
    "duplicate_survivor",
    "duplicate_partner",
    "duplicate_similarity",
)
"""What a sample shows of a record."""


@dataclass(frozen=True)
class ReviewLedger:
    """A ledger, or the part of a large one that samples are drawn from; rows are numbered in its order."""

    folder: Path
    rules: Mapping[str, RecordedRule]
    """Those whose values were measured."""
    frame: pl.LazyFrame
    """The records of the part, with their number as `row`."""
    num_records: int
    """Of the whole ledger."""
    table: pl.DataFrame
    """`id, verdict, dropped_stage, dropped_rule, language_score` of the part."""
    order: NDArray[np.uint64]
    """A random key per row of the part, decided by seed and id."""

    @property
    def is_whole(self) -> bool:
        return self.table.height == self.num_records

    def is_judged(self) -> NDArray[np.bool_]:
        """Rows that came to the rules."""
        return ~self.table["dropped_stage"].fill_null("").is_in(BEFORE_RULES).to_numpy()

    def values(self, column: str) -> NDArray[np.float64]:
        """A column of numbers; NaN where there is none."""
        return self.frame.select(pl.col(column).fill_null(float("nan"))).collect()[column].to_numpy()

    def facts(self, rows: Sequence[int]) -> dict[int, dict[str, Any]]:
        """Row → what a sample shows."""
        wanted = pl.Series(sorted(set(rows)), dtype=pl.UInt32)
        found = self.frame.filter(pl.col("row").is_in(wanted.implode())).select("row", *FACTS).collect()
        return {row.pop("row"): row for row in found.to_dicts()}


def open_ledger(folder: Path, seed: int, max_records: int = MAX_SAMPLED_RECORDS) -> ReviewLedger:
    """Read what all parts of the page need. Raises BessemerError when there is no ledger."""
    whole = scan_ledger(folder)
    num_records = int(whole.select(pl.len()).collect().item())
    part = whole
    if num_records > max_records:
        # Ids are digests, so their last digits are a fair draw that depends on nothing else.
        bound = f"{int(16**_HEX_DIGITS * max_records / num_records):0{_HEX_DIGITS}x}"
        part = whole.filter(pl.col("id").str.tail(_HEX_DIGITS) < bound)
    frame = part.with_row_index("row")
    table = frame.select(_COLUMNS).collect()
    rules = _measured(recorded_rules(folder), frame)
    return ReviewLedger(folder, rules, frame, num_records, table, _order(table["id"], seed))


def _measured(rules: Mapping[str, RecordedRule], frame: pl.LazyFrame) -> dict[str, RecordedRule]:
    """The rules whose values the run measured: variants are measured on demand only."""
    columns = set(frame.collect_schema().names())
    there = [name for name in rules if name in columns]
    has_values = frame.select(pl.col(name).is_not_null().any() for name in there).collect()
    return {name: rules[name] for name in there if has_values[name].item() or rules[name].enabled}


def _order(ids: pl.Series, seed: int) -> NDArray[np.uint64]:
    """SplitMix64 (Steele et al. 2014, figure 16) of the ids' first digits and the seed."""
    digits = ids.str.head(15).str.to_integer(base=16, strict=False).fill_null(0).to_numpy()
    mixed = digits.astype(np.uint64) + np.uint64((seed * 0x9E3779B97F4A7C15 + 1) % 2**64)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        mixed = (mixed ^ (mixed >> np.uint64(shift))) * np.uint64(factor)
    return mixed ^ (mixed >> np.uint64(31))
