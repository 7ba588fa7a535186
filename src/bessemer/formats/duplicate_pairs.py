"""Confirmed near-duplicate pairs as Parquet (zstd): the evidence behind `duplicates.near` in the ledger.

`duplicate_pairs-00000.parquet`, …: every nominated pair whose exact similarity reaches the threshold, in
input order. What a higher threshold would do can be read off it: the clusters are its connected parts.
"""

from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa

from bessemer.formats.documents import DEFAULT_SHARD_BYTES
from bessemer.formats.parquet_shards import ShardedParquetWriter, shard_paths

if TYPE_CHECKING:
    import polars as pl

DUPLICATE_PAIRS_STEM = "duplicate_pairs"

DUPLICATE_PAIR_SCHEMA = pa.schema(
    [
        pa.field("id_a", pa.string(), nullable=False),
        pa.field("id_b", pa.string(), nullable=False),
        pa.field("similarity", pa.float64(), nullable=False),
        pa.field("num_shared_bands", pa.int32(), nullable=False),
    ]
)
"""`id_a` comes before `id_b` in input order. `similarity`: exact, of the shingle sets.
`num_shared_bands`: bands of the MinHash index that nominated the pair."""


class DuplicatePairWriter(ShardedParquetWriter):
    """Writes pairs into shards of bounded size; see `ShardedParquetWriter`."""

    def __init__(self, folder: Path, max_shard_bytes: int = DEFAULT_SHARD_BYTES) -> None:
        super().__init__(folder, DUPLICATE_PAIRS_STEM, DUPLICATE_PAIR_SCHEMA, max_shard_bytes)


def scan_duplicate_pairs(folder: Path) -> "pl.LazyFrame":
    """The pairs as a lazy frame. Raises BessemerError when there are none."""
    import polars as pl  # takes longer to import than a writer takes to write

    return pl.scan_parquet(shard_paths(folder, DUPLICATE_PAIRS_STEM))
