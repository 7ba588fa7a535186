"""Confirmed pairs on disk: written once while they are found, read again as often as needed."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np

from bessemer.curate.dedup.verify import Pairs

_PAIR = np.dtype([("low", "<i8"), ("high", "<i8"), ("num_shared_bands", "<i4"), ("similarity", "<f8")])


def write_pairs(pairs: Pairs, file: BinaryIO) -> None:
    """Append pairs to a file."""
    records = np.empty(len(pairs.low), _PAIR)
    records["low"], records["high"] = pairs.low, pairs.high
    records["num_shared_bands"], records["similarity"] = pairs.num_shared_bands, pairs.similarity
    file.write(records.tobytes())


def read_pairs(path: Path) -> Pairs:
    """All pairs of a file."""
    records = np.fromfile(path, _PAIR)
    return Pairs(
        records["low"].copy(),
        records["high"].copy(),
        records["num_shared_bands"].astype(np.int64),
        records["similarity"].copy(),
    )


class ConfirmedPairs:
    """The confirmed pairs of rows, ascending by (low, high), out of files that hold some each.

    Files may hold planted rows (from `num_rows` on) as well; their pairs are passed over.
    """

    def __init__(self, paths: Sequence[Path], num_rows: int, num_pairs: int) -> None:
        self._paths = paths
        self._num_rows = num_rows
        self.num_pairs = num_pairs
        """Without those of planted rows."""

    def read(self) -> Iterator[Pairs]:
        """All pairs from the first, file by file."""
        for path in self._paths:
            pairs = read_pairs(path)
            yield pairs.select(pairs.high < self._num_rows)
