"""The documents behind the rows, for what fingerprints do not hold: texts, names, dates, sources."""

from collections.abc import Iterator, Sequence
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
) -> pa.Table:
    """Some columns (of strings) of some rows, which ascend."""
    if not len(rows):
        return pa.table({name: pa.array([], pa.string()) for name in columns})
    parts = []
    for number, start, end in runs_by_shard(rows, first_rows):
        wanted = rows[start:end] - first_rows[number]
        at = 0
        for batch in shards[number].kept(columns):
            first, last = np.searchsorted(wanted, [at, at + batch.num_rows])
            if last > first:
                parts.append(batch.take(pa.array(wanted[first:last] - at)))
            at += batch.num_rows
    return pa.concat_tables(parts)
