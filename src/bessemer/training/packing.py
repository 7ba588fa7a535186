"""Packing whole conversations into rows: best fit, nothing cut, nothing dropped."""

from bisect import bisect_left, insort
from collections.abc import Sequence

from bessemer.errors import BessemerError
from bessemer.training.batches import rng


def pack(lengths: Sequence[int], capacity: int) -> list[list[int]]:
    """Item numbers per row: best-fit decreasing (Johnson 1974, Fast algorithms for bin packing).

    Items of equal length keep their order. No item may be longer than `capacity`.
    """
    assert max(lengths, default=0) <= capacity, "PackedEpochs checks the lengths"
    rows: list[list[int]] = []
    open_rows: list[tuple[int, int]] = []  # (room left, row number), sorted
    for item in sorted(range(len(lengths)), key=lambda item: -lengths[item]):
        place = bisect_left(open_rows, (lengths[item], -1))
        if place == len(open_rows):
            room, row = capacity, len(rows)
            rows.append([])
        else:
            room, row = open_rows.pop(place)
        rows[row].append(item)
        if room > lengths[item]:
            insort(open_rows, (room - lengths[item], row))
    return rows


class PackedEpochs:
    """Rows of an endless, reshuffled sequence of epochs; a pure function of (seed, row number).

    An epoch shuffles the items, packs them window by window (so that neighbours differ from epoch
    to epoch), and shuffles the rows. Every item is in every epoch exactly once.
    """

    _WINDOW = 512

    def __init__(self, lengths: Sequence[int], capacity: int, seed: int) -> None:
        """`lengths` in tokens. Raises BessemerError when there are none, or one exceeds `capacity`."""
        if not lengths:
            raise BessemerError("there is nothing to train on: the data set is empty")
        longest = max(lengths)
        if longest > capacity:
            raise BessemerError(
                f"number {lengths.index(longest) + 1} (from 1) has {longest} tokens, a row holds {capacity}: "
                "raise sequence_length or shorten it"
            )
        self._lengths = lengths
        self._capacity = capacity
        self._seed = seed
        self._rows: list[list[int]] = []
        self._starts = [0]  # first row number of each epoch

    def row(self, number: int) -> list[int]:
        """Item numbers of one row."""
        while number >= len(self._rows):
            self._rows += self._pack_epoch(len(self._starts) - 1)
            self._starts.append(len(self._rows))
        return self._rows[number]

    def rows_per_epoch(self) -> int:
        """Rows of the first epoch."""
        self.row(0)
        return self._starts[1]

    def _pack_epoch(self, epoch: int) -> list[list[int]]:
        generator = rng(self._seed, epoch)
        order = generator.permutation(len(self._lengths))
        rows = []
        for start in range(0, len(order), self._WINDOW):
            window = order[start : start + self._WINDOW]
            packed = pack([self._lengths[item] for item in window], self._capacity)
            rows += [[int(window[item]) for item in row] for row in packed]
        return [rows[row] for row in generator.permutation(len(rows))]
