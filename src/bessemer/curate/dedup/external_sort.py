"""Sorting more 64-bit integers than fit in memory: sorted runs on disk, merged in blocks."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

_ITEM_BYTES = 8
_LEAST_BLOCK = 4096
"""Items that a merge reads of a run at a time, at the least."""


class ExternalSorter:
    """Takes uint64 arrays in any order, gives them back sorted, with about `memory_bytes` of memory.

    Runs that do not fit are written to `folder` as `<name>-00000.run`, … and deleted when they are read;
    leftovers of the same name are overwritten. Use it once: `add` …, then `chunks`.
    """

    def __init__(self, folder: Path, name: str, memory_bytes: int) -> None:
        self._folder = folder
        self._name = name
        # Half for the waiting items, half for the copy that is sorted.
        self._max_waiting = max(_LEAST_BLOCK, memory_bytes // (2 * _ITEM_BYTES))
        self._memory_items = max(2 * _LEAST_BLOCK, memory_bytes // _ITEM_BYTES)
        self._waiting: list[NDArray[np.uint64]] = []
        self._num_waiting = 0
        self._runs: list[Path] = []
        self.num_items = 0
        """Items added so far."""

    def add(self, values: NDArray[np.uint64]) -> None:
        """Take a copy of some values."""
        for start in range(0, len(values), self._max_waiting):
            part = values[start : start + self._max_waiting]
            if self._num_waiting + len(part) > self._max_waiting:
                self._write_run()
            self._waiting.append(np.array(part, np.uint64))
            self._num_waiting += len(part)
            self.num_items += len(part)

    def chunks(self) -> Iterator[NDArray[np.uint64]]:
        """All values in ascending order, piece by piece. Equal values may fall into different pieces."""
        if not self._runs:
            if self._num_waiting:
                yield self._take_sorted()
            return
        if self._num_waiting:
            self._write_run()
        yield from merge_sorted(self._runs, self._memory_items * _ITEM_BYTES)
        for path in self._runs:
            path.unlink()
        self._runs = []

    def _take_sorted(self) -> NDArray[np.uint64]:
        values = self._waiting[0] if len(self._waiting) == 1 else np.concatenate(self._waiting)
        self._waiting, self._num_waiting = [], 0
        values.sort()
        return values

    def _write_run(self) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        path = self._folder / f"{self._name}-{len(self._runs):05}.run"
        self._take_sorted().tofile(path)
        self._runs.append(path)


def merge_sorted(paths: Sequence[Path], memory_bytes: int) -> Iterator[NDArray[np.uint64]]:
    """The values of some files, each sorted, in ascending order and pieces, with about `memory_bytes`."""
    if paths:
        block_items = max(_LEAST_BLOCK, memory_bytes // (3 * _ITEM_BYTES * len(paths)))
        yield from _merge([_Run(path, block_items) for path in paths])


class _Run:
    """A sorted file and the block of it that the merge holds."""

    def __init__(self, path: Path, block_items: int) -> None:
        self._path = path
        self._block_items = block_items
        self._num_read = 0
        self.block = np.empty(0, np.uint64)
        self.is_done = False
        """Whether nothing is left beyond the block."""
        self.refill()

    def refill(self) -> None:
        """Read the next block when the present one is used up."""
        if len(self.block) or self.is_done:
            return
        offset = self._num_read * _ITEM_BYTES
        self.block = np.fromfile(self._path, np.uint64, self._block_items, offset=offset)
        self._num_read += len(self.block)
        self.is_done = self._num_read * _ITEM_BYTES >= self._path.stat().st_size

    def take_up_to(self, bound: np.uint64) -> NDArray[np.uint64]:
        end = int(np.searchsorted(self.block, bound, side="right"))
        taken, self.block = self.block[:end], self.block[end:]
        return taken


def _merge(runs: list[_Run]) -> Iterator[NDArray[np.uint64]]:
    """Whatever is not above the least last item of all blocks is final: no unread item is smaller."""
    runs = [run for run in runs if len(run.block)]
    while runs:
        open_ends = [run.block[-1] for run in runs if not run.is_done]
        bound = min(open_ends) if open_ends else np.uint64(0xFFFFFFFFFFFFFFFF)
        merged = np.concatenate([run.take_up_to(bound) for run in runs])
        merged.sort()
        if len(merged):
            yield merged
        for run in runs:
            run.refill()
        runs = [run for run in runs if len(run.block) or not run.is_done]


def bits_for(num_values: int) -> int:
    """Bits that hold the numbers 0 … num_values - 1."""
    return max(1, (num_values - 1).bit_length())


def pack(keys: NDArray[np.uint64], numbers: NDArray[np.int64], number_bits: int) -> NDArray[np.uint64]:
    """The high bits of each key above the number: sorts by key, then number, in one word.

    Keys are cut to 64 - `number_bits` bits, so equal prefixes only nominate; something exact must decide.
    """
    low = np.uint64((1 << number_bits) - 1)
    return (keys & ~low) | numbers.astype(np.uint64)


def unpack_numbers(values: NDArray[np.uint64], number_bits: int) -> NDArray[np.int64]:
    """The numbers of packed values."""
    return (values & np.uint64((1 << number_bits) - 1)).astype(np.int64)
