"""Confirmed pairs on disk: written once while they are found, read again as often as needed."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from bessemer.curate.dedup.verify import Pairs

_PAIR = np.dtype([("low", "<i8"), ("high", "<i8"), ("num_shared_bands", "<i4"), ("similarity", "<f8")])
_PAIRS_AT_ONCE = 1 << 18


class ConfirmedPairs:
    """Pairs of rows in a scratch file, ascending by (low, high)."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = path.open("wb")
        self.num_pairs = 0

    def write(self, pairs: Pairs) -> None:
        """Append pairs; all of them, in order."""
        records = np.empty(len(pairs.low), _PAIR)
        records["low"], records["high"] = pairs.low, pairs.high
        records["num_shared_bands"], records["similarity"] = pairs.num_shared_bands, pairs.similarity
        self._file.write(records.tobytes())
        self.num_pairs += len(records)

    def close(self) -> None:
        """Say that all pairs have been written; reading starts after it."""
        self._file.close()

    def read(self) -> Iterator[Pairs]:
        """All pairs from the first, in pieces."""
        for start in range(0, self.num_pairs, _PAIRS_AT_ONCE):
            some = np.fromfile(self._path, _PAIR, _PAIRS_AT_ONCE, offset=start * _PAIR.itemsize)
            yield Pairs(
                some["low"].copy(),
                some["high"].copy(),
                some["num_shared_bands"].astype(np.int64),
                some["similarity"].copy(),
            )
