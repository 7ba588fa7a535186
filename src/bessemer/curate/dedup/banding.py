"""Bands to candidate pairs: rows that agree on a whole band, in sorted order and bounded memory.

Leskovec, Rajaraman, Ullman, "Mining of Massive Datasets", section 3.4.
"""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bessemer.curate.dedup.corpus import Corpus
from bessemer.curate.dedup.external_sort import (
    ExternalSorter,
    bits_for,
    merge_sorted,
    pack,
    unpack_numbers,
)
from bessemer.curate.dedup.parts import Parts
from bessemer.curate.kernels.duplicates import bucket_pairs

WINDOW = 16
"""A member of a bucket is compared with this many before it and with the first. It bounds the work: a
bucket of m members gives 17 m pairs instead of m² / 2, and two members far apart in it usually share
smaller buckets too."""
MAX_ROWS = 1 << 32
"""Two row numbers make one 64-bit word."""
_PIECE = 1 << 18
"""Sorted values that are turned into pairs at a time."""
_LEAST_SORT_BYTES = 4 << 20
"""Memory of a band's sort that spills: its runs hold half of it, enough to be read well."""

Nominated = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]
"""Low rows, high rows, bands that each pair shares."""


def candidate_pairs(
    corpus: Corpus,
    is_active: NDArray[np.bool_],
    planted_bands: NDArray[np.uint64],
    num_bands: int,
    parts: Parts,
    folder: Path,
    memory_bytes: int,
) -> Iterator[Nominated]:
    """Low rows, high rows and the number of bands they share, ascending by (low, high), in pieces.

    `is_active` [rows] says which rows take part. `planted_bands` [planted, bands] are rows of no corpus,
    numbered from `corpus.num_rows` on; they are paired with real rows only and change no other pair. Each
    band's pairs, sorted, are a part of `parts`; `folder` is for sorting.
    """
    num_rows = corpus.num_rows + len(planted_bands)
    assert num_rows <= MAX_ROWS, "more rows than a pair can number"
    row_bits = bits_for(num_rows)
    names = [f"band-{band:05}" for band in range(num_bands)]
    missing = [band for band, name in enumerate(names) if not parts.is_done(name)]
    num_at_once = _bands_at_once(int(is_active.sum()) + len(planted_bands), memory_bytes // 2)
    for first in range(0, len(missing), num_at_once):
        bands = missing[first : first + num_at_once]
        sorters = [ExternalSorter(folder, names[band], memory_bytes // 2 // len(bands)) for band in bands]
        _read_bands(corpus, is_active, planted_bands, bands, row_bits, sorters)
        for band, sorter in zip(bands, sorters, strict=True):
            pairs = ExternalSorter(folder, "pairs", memory_bytes // 2)
            for some in _pairs_of_band(sorter, row_bits, corpus.num_rows):
                pairs.add(some)
            with parts.writing(names[band]) as file:
                for some in pairs.chunks():
                    file.write(some.astype("<u8").tobytes())
    yield from _counted(merge_sorted([parts.path(name) for name in names], memory_bytes // 2))


def _bands_at_once(num_rows: int, memory_bytes: int) -> int:
    """How many bands to read in one pass over the shards: as many as memory sorts, or else spill well.

    A pass reads the keys of all bands, so that many passes would cost more than runs on disk, which are
    written and read once.
    """
    return max(1, memory_bytes // (16 * max(1, num_rows)), memory_bytes // _LEAST_SORT_BYTES)


def _read_bands(
    corpus: Corpus,
    is_active: NDArray[np.bool_],
    planted_bands: NDArray[np.uint64],
    bands: Sequence[int],
    row_bits: int,
    sorters: list[ExternalSorter],
) -> None:
    """Every active row's keys of some bands, to a sorter each, in one pass over the shards."""
    for _, files, rows in corpus.shards():
        is_here = is_active[rows]
        keys = files.array("bands")[is_here]
        numbers = np.flatnonzero(is_here) + rows.start
        for band, sorter in zip(bands, sorters, strict=True):
            sorter.add(pack(keys[:, band], numbers, row_bits))
    numbers = np.arange(len(planted_bands)) + corpus.num_rows
    for band, sorter in zip(bands, sorters, strict=True):
        sorter.add(pack(planted_bands[:, band], numbers, row_bits))


def _pairs_of_band(sorter: ExternalSorter, row_bits: int, num_real_rows: int) -> Iterator[NDArray[np.uint64]]:
    carried, first = np.empty(0, np.uint64), -1
    for chunk in sorter.chunks():
        for start in range(0, len(chunk), _PIECE):
            piece = chunk[start : start + _PIECE]
            values = np.concatenate([carried, piece])
            yield bucket_pairs(values, len(carried), first, row_bits, WINDOW, num_real_rows)
            carried, first = _tail(values, first, row_bits, num_real_rows)


def _tail(
    values: NDArray[np.uint64], first: int, row_bits: int, num_real_rows: int
) -> tuple[NDArray[np.uint64], int]:
    """The last real members of the last bucket, which may go on, and the row it began with."""
    prefixes = values >> np.uint64(row_bits)
    start = int(np.searchsorted(prefixes, prefixes[-1]))
    members = values[start:]
    numbers = unpack_numbers(members, row_bits)
    began = first if start == 0 and first >= 0 else int(numbers[0])
    real = members[numbers < num_real_rows]
    return real[-WINDOW:], began if len(real) else -1


def _counted(chunks: Iterable[NDArray[np.uint64]]) -> Iterator[Nominated]:
    """Distinct pairs and how often each occurred in ascending ones."""
    pending = np.empty(0, np.uint64)
    num_pending = 0
    for chunk in chunks:
        for start in range(0, len(chunk), _PIECE):
            distinct, counts = np.unique(chunk[start : start + _PIECE], return_counts=True)
            if len(pending) and distinct[0] == pending[0]:
                counts[0] += num_pending
            elif len(pending):
                yield _split(pending, np.array([num_pending]))
            yield _split(distinct[:-1], counts[:-1])
            pending, num_pending = distinct[-1:], int(counts[-1])
    if len(pending):
        yield _split(pending, np.array([num_pending]))


def _split(pairs: NDArray[np.uint64], counts: NDArray[np.int64]) -> Nominated:
    return (
        (pairs >> np.uint64(32)).astype(np.int64),
        (pairs & np.uint64(0xFFFFFFFF)).astype(np.int64),
        counts.astype(np.int64),
    )
