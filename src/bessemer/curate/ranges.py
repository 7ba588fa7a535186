"""Ranges of bytes of WARC files: how input is cut for workers that do not wait for each other.

A range holds the records that begin in it. Where its first record begins is not known before the range
ahead of it has been read, so a worker guesses (the first place that looks like a record) and `prove`
checks the guesses afterwards. So no file is read twice, and the records are exactly those that reading
each file from its start gives.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby, pairwise
from pathlib import Path
from typing import Protocol, TypeVar

from bessemer.formats.warc import WarcDamage, WarcRecord, read_warc
from bessemer.formats.warc_bytes import find_record_start


@dataclass(frozen=True)
class ByteRange:
    """The records and damaged stretches of a file that begin in [start, end)."""

    name: str
    """What the ledger calls the file."""
    path: Path
    start: int
    end: int
    is_proven: bool = False
    """Whether `first` is known; otherwise it is looked for from `start` on."""
    first: int | None = None
    """Offset of the first record of the range; None when it holds none."""

    @property
    def num_bytes(self) -> int:
        return self.end - self.start

    def __str__(self) -> str:
        return f"{self.name}:{self.start}-{self.end}"


class Read(Protocol):
    """What was found when a range was read."""

    @property
    def first(self) -> int | None:
        """Offset where reading began; None when the range seemed to hold nothing."""
        ...

    @property
    def following(self) -> int | None:
        """Offset of the first record of a later range; None at the end of the file."""
        ...


ReadRange = TypeVar("ReadRange", bound=Read)


def cut(files: Mapping[str, Path], max_range_bytes: int) -> list[ByteRange]:
    """Equal ranges of each file (name in the ledger → path), in order. Looks at sizes only."""
    ranges = []
    for name, path in files.items():
        size = path.stat().st_size
        num_ranges = -(-size // max_range_bytes)
        bounds = [size * i // num_ranges for i in range(num_ranges + 1)] if size else []
        ranges += [ByteRange(name, path, start, end) for start, end in pairwise(bounds)]
    return ranges


class RangeReader:
    """The items of a range, in order. `following` and `num_items` hold once all have been taken."""

    def __init__(self, range_: ByteRange) -> None:
        self._range = range_
        self.first = _first_offset(range_)
        self.following: int | None = None
        self.num_items = 0

    def __iter__(self) -> Iterator[WarcRecord | WarcDamage]:
        if self.first is None:
            return
        greatest = -1
        for item in read_warc(self._range.path, self.first):
            opens_a_range = isinstance(item, WarcRecord) and item.can_start_here and item.offset > greatest
            if item.offset >= self._range.end and opens_a_range:
                self.following = item.offset
                return
            greatest = max(greatest, item.offset)
            self.num_items += 1
            yield item if item.file == self._range.name else replace(item, file=self._range.name)


def _first_offset(range_: ByteRange) -> int | None:
    if range_.is_proven:
        return range_.first
    return 0 if range_.start == 0 else find_record_start(range_.path, range_.start, range_.end)


def prove(
    ranges: Sequence[ByteRange],
    found: Sequence[ReadRange],
    read_again: Callable[[int, ByteRange], ReadRange],
) -> list[ReadRange]:
    """What was found in each range, with every range that began at a wrong place read again.

    `ranges` are in the order of the files' bytes, each file's together. The first of a file begins at 0;
    what one found to follow it is where the next begins; so by induction all begin where reading the file
    from its start would come by. `read_again` gets the position of a range and its proven start. A page
    that looks like the start of a record costs reading one range again, never a wrong row.
    """
    proven: list[ReadRange] = []
    for _, group in groupby(zip(ranges, found, strict=True), key=lambda pair: pair[0].name):
        begin: int | None = 0
        for range_, read in group:
            first = begin if begin is not None and begin < range_.end else None
            if read.first != first:
                read = read_again(len(proven), replace(range_, first=first, is_proven=True))
            begin = begin if first is None else read.following
            proven.append(read)
    return proven
