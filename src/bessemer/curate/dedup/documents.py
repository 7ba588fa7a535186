"""The documents behind the rows, for what fingerprints do not hold: texts, names, dates, sources."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from bessemer.curate.dedup.corpus import runs_by_shard
from bessemer.curate.dedup.fingerprints import FingerprintFiles


class DocumentShard(Protocol):
    """A shard of judged documents."""

    def fingerprints(self) -> FingerprintFiles:
        """Of the documents that no rule dropped: its rows, in order."""
        ...

    def kept(self, columns: list[str]) -> Iterator[pa.Table]:
        """Some columns of the ledger, or `text`, of the same rows, in parts of bounded size."""
        ...


def values_of(
    shards: Sequence[DocumentShard],
    first_rows: NDArray[np.int64],
    rows: NDArray[np.int64],
    columns: list[str],
    num_threads: int = 1,
) -> pa.Table:
    """Some columns (of strings) of some rows, which ascend; shards are read in `num_threads` at once."""

    def of_shard(run: tuple[int, int, int]) -> list[pa.Table]:
        number, start, end = run
        wanted = rows[start:end] - first_rows[number]
        parts, at = [], 0
        for batch in shards[number].kept(columns):
            first, last = np.searchsorted(wanted, [at, at + batch.num_rows])
            if last > first:
                parts.append(batch.take(pa.array(wanted[first:last] - at)))
            at += batch.num_rows
        return parts

    if not len(rows):
        return pa.table({name: pa.array([], pa.string()) for name in columns})
    with ThreadPoolExecutor(num_threads) as pool:
        found = pool.map(of_shard, runs_by_shard(rows, first_rows))
        return pa.concat_tables([part for parts in found for part in parts])
