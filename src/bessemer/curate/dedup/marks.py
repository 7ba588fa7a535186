"""The verdicts of deduplication, written into the rows of the ledger."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from bessemer.curate.dedup.cutting import cut_lines, places_before_edits
from bessemer.curate.dedup.documents import DocumentShard, values_of
from bessemer.curate.dedup.fingerprints import LEAD
from bessemer.curate.dedup.resolve import NEAR, RULES, STAYS, Duplicates
from bessemer.formats.duplicate_pairs import DUPLICATE_PAIR_SCHEMA, DuplicatePairWriter

STAGE = "duplicates"
_DROPPED = "dropped"


class Marker:
    """Marks tables of the ledger, and writes the evidence. Holds the ids of all rows that have any."""

    def __init__(
        self, shards: Sequence[DocumentShard], duplicates: Duplicates, min_similarity: float
    ) -> None:
        self._shards = shards
        self._duplicates = duplicates
        self._min_similarity = min_similarity
        is_named = np.zeros(len(duplicates.rule), np.bool_)
        goes = duplicates.rule != STAYS
        is_named[duplicates.survivor[goes]] = True
        is_named[duplicates.partner[goes]] = True
        if duplicates.pairs is not None:
            for pairs in duplicates.pairs.read():
                is_named[pairs.low] = is_named[pairs.high] = True
        self._named = np.flatnonzero(is_named)
        self._ids = pa.array([], pa.string())
        if len(self._named):
            ids = values_of(shards, duplicates.first_rows, self._named, ["id"])["id"]
            self._ids = ids.combine_chunks()

    def mark(
        self, table: pa.Table, shard: int, rows: NDArray[np.int64], is_row: NDArray[np.bool_]
    ) -> pa.Table:
        """The table of a part of a shard with verdicts, evidence and cuts filled in.

        `is_row` [table's length] marks the documents that no rule dropped, `rows` are their numbers.
        """
        rule = self._duplicates.rule[rows]
        goes = rule != STAYS
        if goes.any():
            mask = np.zeros(table.num_rows, np.bool_)
            mask[np.flatnonzero(is_row)[goes]] = True
            for name, values in self.verdicts(rows[goes]).items():
                table = _replace(table, name, mask, values)
        return self._cut(table, shard, rows[~goes], np.flatnonzero(is_row)[~goes])

    def verdicts(self, rows: NDArray[np.int64]) -> dict[str, pa.Array]:
        """Columns of the ledger for rows that go."""
        duplicates = self._duplicates
        rule, similarity = duplicates.rule[rows], duplicates.similarity[rows]
        similarities = pa.array(similarity, mask=np.isnan(similarity))
        thresholds = pa.array(np.full(len(rows), self._min_similarity), mask=rule != NEAR)
        return {
            "verdict": pa.array([_DROPPED] * len(rows)),
            "dropped_stage": pa.array([STAGE] * len(rows)),
            "dropped_rule": pa.array([RULES[code] for code in rule]),
            "dropped_value": similarities,
            "dropped_threshold": thresholds,
            "duplicate_survivor": self._ids_of(duplicates.survivor[rows]),
            "duplicate_partner": self._ids_of(duplicates.partner[rows]),
            "duplicate_similarity": similarities,
        }

    def _ids_of(self, rows: NDArray[np.int64]) -> pa.Array:
        return self._ids.take(pa.array(np.searchsorted(self._named, rows)))

    def _cut(
        self, table: pa.Table, shard: int, rows: NDArray[np.int64], places: NDArray[np.int64]
    ) -> pa.Table:
        """The table without the lines that are cut; a document of which nothing is left is dropped."""
        cuts = self._duplicates.cuts
        is_cut = np.isin(rows, cuts.rows)
        if not is_cut.any():
            return table
        facts = self._shards[shard].fingerprints().array("facts")
        columns: dict[str, list[Any]] = {
            name: table[name].to_pylist()
            for name in ("text", "edits", "verdict", "dropped_stage", "dropped_rule", "detail")
        }
        for row, place in zip(rows[is_cut].tolist(), places[is_cut].tolist(), strict=True):
            lead = int(facts[row - self._duplicates.first_rows[shard], LEAD])
            lines = cuts.of_row(row)
            text, spans = cut_lines(columns["text"][place], lines)
            edits = columns["edits"][place] or []
            columns["edits"][place] = edits + places_before_edits(spans, edits, lead)
            columns["text"][place] = text
            if not text.strip():
                columns["verdict"][place] = _DROPPED
                columns["dropped_stage"][place] = STAGE
                columns["dropped_rule"][place] = lines[0][1]
                columns["detail"][place] = "nothing was left after its repeated lines were cut"
        for name, values in columns.items():
            field = table.schema.field(name)
            place = table.schema.get_field_index(name)
            table = table.set_column(place, field, pa.array(values, field.type))
        return table

    def write_pairs(self, output: Path, max_file_bytes: int) -> None:
        """Write `duplicate_pairs-*.parquet`, if near duplicates were looked for."""
        if self._duplicates.pairs is None:
            return
        with DuplicatePairWriter(output, max_file_bytes) as writer:
            for pairs in self._duplicates.pairs.read():
                columns = [
                    self._ids_of(pairs.low),
                    self._ids_of(pairs.high),
                    pa.array(pairs.similarity),
                    pa.array(pairs.num_shared_bands, pa.int32()),
                ]
                writer.write(pa.table(columns, schema=DUPLICATE_PAIR_SCHEMA))


def _replace(table: pa.Table, name: str, mask: NDArray[np.bool_], values: pa.Array) -> pa.Table:
    """The table with the masked rows of a column replaced, in order."""
    field = table.schema.field(name)
    values = iter(values.to_pylist())
    column = [
        next(values) if is_new else old for old, is_new in zip(table[name].to_pylist(), mask, strict=True)
    ]
    return table.set_column(table.schema.get_field_index(name), field, pa.array(column, field.type))
