"""All shards' fingerprints as one sequence of rows, read from disk in pieces."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bessemer.curate.dedup.fingerprints import SET_SIZE, FingerprintFiles

_ITEM_BYTES = 8


@dataclass(frozen=True)
class Corpus:
    """Rows over all shards. Held in memory: 8 bytes a row and little more."""

    files: Sequence[FingerprintFiles]
    first_rows: NDArray[np.int64]
    """[shards + 1]: the first row of each shard, and the number of rows."""
    set_sizes: NDArray[np.int64]
    """[rows]: shingles of each row."""

    @classmethod
    def of(cls, files: Sequence[FingerprintFiles]) -> "Corpus":
        sizes = [shard.array("facts")[:, SET_SIZE].astype(np.int64) for shard in files]
        first_rows = np.concatenate(([0], np.cumsum([len(part) for part in sizes]))).astype(np.int64)
        return cls(files, first_rows, np.concatenate([np.empty(0, np.int64), *sizes]))

    @property
    def num_rows(self) -> int:
        return int(self.first_rows[-1])

    def shards(self) -> Iterator[tuple[int, FingerprintFiles, slice]]:
        """Number, files and rows of each shard that has rows."""
        for number, files in enumerate(self.files):
            start, end = int(self.first_rows[number]), int(self.first_rows[number + 1])
            if end > start:
                yield number, files, slice(start, end)

    def gather_facts(self, rows: NDArray[np.int64], columns: slice) -> NDArray[np.uint64]:
        """Some columns of `facts` [rows asked for, columns]; `rows` ascend."""
        parts = [np.empty((0, columns.stop - columns.start), np.uint64)]
        for number, start, end in runs_by_shard(rows, self.first_rows):
            facts = self.files[number].array("facts")
            parts.append(facts[rows[start:end] - self.first_rows[number], columns])
        return np.concatenate(parts)

    def item_starts(self, sizes: NDArray[np.int64]) -> NDArray[np.int64]:
        """[rows]: where each row's items begin in its shard's file when it has `sizes` [rows] of them."""
        starts = np.cumsum(sizes) - sizes
        for _, _, rows in self.shards():
            starts[rows] -= starts[rows.start]
        return starts

    def read_items(
        self, name: str, rows: NDArray[np.int64], starts: NDArray[np.int64], sizes: NDArray[np.int64]
    ) -> NDArray[np.uint64]:
        """The items of some rows, end to end, of the uint64 array `name`; `rows` ascend.

        `starts`, `sizes` [rows asked for]. Reads into one buffer instead of mapping files: mapped pages
        count as resident memory for as long as the system likes.
        """
        items = np.empty(int(sizes.sum()), "<u8")
        view = memoryview(items.view(np.uint8))  # pyright: ignore[reportArgumentType]
        filled = 0
        for number, first, last in runs_by_shard(rows, self.first_rows):
            path = self.files[number].path(name)
            with path.open("rb", buffering=0) as file:
                assert np.lib.format.read_magic(file) == (1, 0), f"{path} is no .npy file of format 1.0"
                np.lib.format.read_array_header_1_0(file)
                data_offset = file.tell()
                for start, size in _joined(starts[first:last], sizes[first:last]):
                    part = view[filled : filled + size * _ITEM_BYTES]
                    num_read = os.preadv(file.fileno(), [part], data_offset + start * _ITEM_BYTES)
                    assert num_read == len(part), f"{path} is shorter than its rows say"
                    filled += num_read
        return items


def runs_by_shard(rows: NDArray[np.int64], first_rows: NDArray[np.int64]) -> Iterator[tuple[int, int, int]]:
    """Shard number, and the range of `rows` (ascending) that lies in it, for each shard that has any."""
    if len(rows) == 0:
        return
    shards = np.searchsorted(first_rows, rows, side="right") - 1
    edges = np.flatnonzero(np.diff(shards)) + 1
    for start, end in zip([0, *edges.tolist()], [*edges.tolist(), len(rows)], strict=True):
        yield int(shards[start]), start, end


def _joined(starts: NDArray[np.int64], sizes: NDArray[np.int64]) -> Iterator[tuple[int, int]]:
    """Neighbouring ranges as one: fewer reads."""
    at, length = -1, 0
    for start, size in zip(starts.tolist(), sizes.tolist(), strict=True):
        if at >= 0 and start == at + length:
            length += size
            continue
        if at >= 0 and length:
            yield at, length
        at, length = start, size
    if at >= 0 and length:
        yield at, length
