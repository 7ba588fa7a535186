"""Lines that other documents have too: repeated paragraphs, and long runs of words (Lee et al. 2022).

Both only ever cut whole lines, and the first occurrence in input order always stays: what is cut at one
place stands at an earlier one, which is cut only for a still earlier one.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bessemer.curate.dedup.banding import WINDOW
from bessemer.curate.dedup.corpus import Corpus, runs_by_shard
from bessemer.curate.dedup.exact import repeats
from bessemer.curate.dedup.external_sort import ExternalSorter, bits_for, pack
from bessemer.curate.dedup.fingerprints import NUM_LINES, NUM_PARAGRAPHS, NUM_SEEDS, NUM_WORDS
from bessemer.curate.kernels.duplicates import bucket_pairs
from bessemer.curate.kernels.substrings import covered_lines, matches

PARAGRAPH_RULE, SUBSTRING_RULE = "duplicates.paragraph", "duplicates.substring"
_ITEM_BYTES = 8
_PIECE = 1 << 16
"""Nominated pairs of places that are compared at a time."""

Rows = NDArray[np.int64]


@dataclass(frozen=True)
class Cuts:
    """Lines to cut, ascending by row and line."""

    rows: Rows
    lines: NDArray[np.int64]
    """Number of the line within its document's text."""
    is_paragraph: NDArray[np.bool_]
    """Cut as a repeated paragraph (then that is named), else as part of a repeated run of words."""

    @classmethod
    def union(cls, paragraphs: NDArray[np.int64], substrings: NDArray[np.int64]) -> "Cuts":
        """All lines to cut, from the rows and lines [2, lines] that each way found."""
        rows = np.concatenate([paragraphs[0], substrings[0]])
        lines = np.concatenate([paragraphs[1], substrings[1]])
        is_paragraph = np.arange(len(rows)) < len(paragraphs[0])
        order = np.lexsort((~is_paragraph, lines, rows))
        rows, lines, is_paragraph = rows[order], lines[order], is_paragraph[order]
        is_first = np.ones(len(rows), np.bool_)
        is_first[1:] = (rows[1:] != rows[:-1]) | (lines[1:] != lines[:-1])
        return cls(rows[is_first], lines[is_first], is_paragraph[is_first])

    def of_row(self, row: int) -> list[tuple[int, str]]:
        """Lines of one row with the rule that cuts each."""
        start, end = np.searchsorted(self.rows, [row, row + 1])
        return [
            (int(line), PARAGRAPH_RULE if is_paragraph else SUBSTRING_RULE)
            for line, is_paragraph in zip(self.lines[start:end], self.is_paragraph[start:end], strict=True)
        ]


NOTHING = (np.empty(0, np.int64), np.empty(0, np.int64))


class _Items:
    """Things that rows have several of, numbered through all shards: paragraphs, seeds."""

    def __init__(self, corpus: Corpus, count_column: int) -> None:
        self.corpus = corpus
        self._column = count_column
        totals = np.zeros(len(corpus.files), np.int64)
        for number, files, _ in corpus.shards():
            totals[number] = files.array("facts")[:, count_column].sum()
        self._first = np.concatenate(([0], np.cumsum(totals)))

    @property
    def total(self) -> int:
        return int(self._first[-1])

    def rows_of_shard(self, number: int) -> Rows:
        """The row of each item of a shard."""
        counts = self.corpus.files[number].array("facts")[:, self._column].astype(np.int64)
        return np.repeat(np.arange(len(counts)) + self.corpus.first_rows[number], counts)

    def active(self, is_active: NDArray[np.bool_], name: str) -> Iterator[tuple[Rows, NDArray[np.uint64]]]:
        """Numbers and the values of array `name` of items whose rows are active, shard by shard."""
        for number, files, _ in self.corpus.shards():
            is_here = is_active[self.rows_of_shard(number)]
            yield np.flatnonzero(is_here) + self._first[number], files.array(name)[is_here]

    def gather(self, numbers: Rows, name: str) -> NDArray:
        """Values of array `name`, by ascending numbers."""
        parts = [
            self.corpus.files[shard].array(name)[numbers[start:end] - self._first[shard]]
            for shard, start, end in runs_by_shard(numbers, self._first)
        ]
        return np.concatenate([self.corpus.files[0].array(name)[:0], *parts])

    def rows(self, numbers: Rows) -> Rows:
        """Rows of ascending numbers."""
        parts = [
            self.rows_of_shard(shard)[numbers[start:end] - self._first[shard]]
            for shard, start, end in runs_by_shard(numbers, self._first)
        ]
        return np.concatenate([np.empty(0, np.int64), *parts])


def repeated_paragraphs(
    corpus: Corpus, is_active: NDArray[np.bool_], folder: Path, memory_bytes: int
) -> tuple[Rows, Rows]:
    """Rows and lines of the paragraphs that occurred before, in any order.

    Which lines are paragraphs was decided when they were fingerprinted.
    """
    items = _Items(corpus, NUM_PARAGRAPHS)
    bits = bits_for(items.total)
    sorter = ExternalSorter(folder, "paragraphs", memory_bytes)
    for numbers, keys in items.active(is_active, "paragraph_keys"):
        sorter.add(pack(keys[:, 0], numbers, bits))
    found = [np.empty(0, np.int64)]
    for later, _ in repeats(sorter, bits, lambda numbers: items.gather(numbers, "paragraph_keys")):
        found.append(later)
    numbers = np.sort(np.concatenate(found))
    if not len(numbers):
        return NOTHING
    return items.rows(numbers), items.gather(numbers, "paragraph_lines").astype(np.int64)


def repeated_substrings(
    corpus: Corpus, is_active: NDArray[np.bool_], min_words: int, folder: Path, memory_bytes: int
) -> tuple[Rows, Rows]:
    """Rows and lines whose every word lies in runs of `min_words` words that earlier rows have too.

    Winnowed n-grams nominate places, the words themselves decide.
    """
    words = _Words(corpus)
    rows, starts, ends = [np.empty(0, np.int64)], [np.empty(0, np.int64)], [np.empty(0, np.int64)]
    for place in _nominated_places(corpus, is_active, folder, memory_bytes):
        for batch in _word_batches(place, words.sizes, memory_bytes):
            later, start, end = _matches(batch, words, min_words)
            rows.append(later)
            starts.append(start)
            ends.append(end)
    return _covered(corpus, np.concatenate(rows), np.concatenate(starts), np.concatenate(ends))


@dataclass(frozen=True)
class _Places:
    """Pairs of places with the same n-gram, ascending by the later one."""

    earlier: Rows
    earlier_position: Rows
    later: Rows
    later_position: Rows

    def slice(self, start: int, end: int) -> "_Places":
        return _Places(
            self.earlier[start:end],
            self.earlier_position[start:end],
            self.later[start:end],
            self.later_position[start:end],
        )


class _Words:
    """The word hashes of rows."""

    def __init__(self, corpus: Corpus) -> None:
        counts = [files.array("facts")[:, NUM_WORDS].astype(np.int64) for _, files, _ in corpus.shards()]
        self.sizes = np.concatenate([np.empty(0, np.int64), *counts])
        self._starts = corpus.item_starts(self.sizes)
        self._corpus = corpus

    def read(self, rows: Rows) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
        offsets = np.zeros(len(rows) + 1, np.int64)
        np.cumsum(self.sizes[rows], out=offsets[1:])
        return self._corpus.read_items("words", rows, self._starts[rows], self.sizes[rows]), offsets


def _nominated_places(
    corpus: Corpus, is_active: NDArray[np.bool_], folder: Path, memory_bytes: int
) -> Iterator[_Places]:
    items = _Items(corpus, NUM_SEEDS)
    bits = bits_for(items.total)
    assert bits <= 32, "more seeds than a pair can number"
    seeds = ExternalSorter(folder, "seeds", memory_bytes // 2)
    for numbers, hashes in items.active(is_active, "seeds"):
        seeds.add(pack(hashes, numbers, bits))
    pairs = ExternalSorter(folder, "places", memory_bytes // 2)
    for low_high in _seed_pairs(seeds, bits):
        # By the later place first: its row's runs are then found one after the other.
        pairs.add(low_high << np.uint64(32) | low_high >> np.uint64(32))
    for chunk in pairs.chunks():
        for start in range(0, len(chunk), _PIECE):
            piece = np.unique(chunk[start : start + _PIECE])
            later, earlier = piece >> np.uint64(32), piece & np.uint64(0xFFFFFFFF)
            yield _places(items, earlier.astype(np.int64), later.astype(np.int64))


def _seed_pairs(sorter: ExternalSorter, bits: int) -> Iterator[NDArray[np.uint64]]:
    carried, first = np.empty(0, np.uint64), -1
    for chunk in sorter.chunks():
        for start in range(0, len(chunk), _PIECE):
            values = np.concatenate([carried, chunk[start : start + _PIECE]])
            yield bucket_pairs(values, len(carried), first, bits, WINDOW, 1 << bits)
            prefixes = values >> np.uint64(bits)
            place = int(np.searchsorted(prefixes, prefixes[-1]))
            if place or first < 0:
                first = int(values[place] & np.uint64((1 << bits) - 1))
            carried = values[place:][-WINDOW:]


def _places(items: _Items, earlier: Rows, later: Rows) -> _Places:
    numbers, where = np.unique(np.concatenate([earlier, later]), return_inverse=True)
    rows, positions = items.rows(numbers), items.gather(numbers, "seed_positions").astype(np.int64)
    a, b = where[: len(earlier)], where[len(earlier) :]
    is_across = rows[a] != rows[b]
    a, b = a[is_across], b[is_across]
    return _Places(rows[a], positions[a], rows[b], positions[b])


def _word_batches(places: _Places, sizes: NDArray[np.int64], memory_bytes: int) -> Iterator[_Places]:
    """Runs of pairs whose rows have at most about half of the memory's worth of words."""
    loads = np.cumsum(sizes[places.earlier] + sizes[places.later])
    start = 0
    while start < len(loads):
        before = loads[start - 1] if start else 0
        end = int(np.searchsorted(loads, before + memory_bytes // (2 * _ITEM_BYTES), side="right"))
        end = max(end, start + 1)
        yield places.slice(start, end)
        start = end


def _matches(places: _Places, words: _Words, min_words: int) -> tuple[Rows, Rows, Rows]:
    rows, where = np.unique(np.concatenate([places.earlier, places.later]), return_inverse=True)
    hashes, offsets = words.read(rows)
    where = where.astype(np.int64)
    later, start, end = matches(
        hashes,
        offsets[:-1],
        offsets[1:],
        where[: len(places.earlier)],
        places.earlier_position,
        where[len(places.earlier) :],
        places.later_position,
        min_words,
    )
    return rows[later], start, end


def _covered(corpus: Corpus, rows: Rows, starts: Rows, ends: Rows) -> tuple[Rows, Rows]:
    """Rows and numbers of the lines that the found runs cover entirely."""
    order = np.lexsort((starts, rows))
    rows, starts, ends = rows[order], starts[order], ends[order]
    found_rows, found_lines = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
    for number, first, last in runs_by_shard(rows, corpus.first_rows):
        files = corpus.files[number]
        counts = files.array("facts")[:, NUM_LINES].astype(np.int64)
        line_offsets = np.concatenate(([0], np.cumsum(counts)))
        lines_of_shard = files.array("lines")
        for row in np.unique(rows[first:last]):
            begin, end = np.searchsorted(rows, [row, row + 1])
            local = row - corpus.first_rows[number]
            counts_of_row = lines_of_shard[line_offsets[local] : line_offsets[local + 1]]
            lines = covered_lines(counts_of_row, starts[begin:end], ends[begin:end])
            found_rows.append(np.full(len(lines), row))
            found_lines.append(lines)
    return np.concatenate(found_rows), np.concatenate(found_lines)
