"""The documents behind the rows, for what fingerprints do not hold: texts, names, dates, sources."""

from collections.abc import Sequence
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

    def kept(self, columns: list[str]) -> pa.Table:
        """Some columns of the ledger, and `text`, of the same rows."""
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
    parts = [
        shards[number].kept(columns).take(pa.array(rows[start:end] - first_rows[number]))
        for number, start, end in runs_by_shard(rows, first_rows)
    ]
    return pa.concat_tables(parts)
