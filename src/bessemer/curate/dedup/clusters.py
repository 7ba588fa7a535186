"""Confirmed pairs to clusters, and clusters to the document that stays: union-find over arrays of rows."""

from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bessemer.curate.dedup.external_sort import ExternalSorter
from bessemer.curate.dedup.verify import Pairs
from bessemer.curate.kernels.duplicates import best_members, drop_direct, flatten, join

Rows = NDArray[np.int64]
PairStream = Callable[[], Iterable[Pairs]]
"""Starts again from the first confirmed pair whenever it is called."""


def connected_survivors(pairs: Iterable[Pairs], num_rows: int, score: NDArray[np.float64] | None) -> Rows:
    """[rows]: the row that stays for each row's connected component; itself where it stays.

    The member of greatest `score`, of equals the first; without scores the first.
    """
    parent = np.arange(num_rows)
    for some in pairs:
        join(parent, some.low, some.high)
    flatten(parent)
    return parent if score is None else best_members(parent, score)[parent]


def direct_survivors(
    pairs: PairStream, num_rows: int, score: NDArray[np.float64] | None, folder: Path, memory_bytes: int
) -> Rows:
    """[rows]: a row that stays and is confirmed to be a duplicate; itself where it stays.

    Rows are taken in order of `score`, best first: each one that is still there takes away what is
    confirmed to be a duplicate of it. No document goes for the sake of a third one between two.
    """
    by_rank = np.arange(num_rows) if score is None else np.argsort(-score, kind="stable")
    rank = np.empty(num_rows, np.int64)
    rank[by_rank] = np.arange(num_rows)
    sorter = ExternalSorter(folder, "ranks", memory_bytes)
    for some in pairs():
        a, b = rank[some.low], rank[some.high]
        sorter.add(np.minimum(a, b).astype(np.uint64) << np.uint64(32) | np.maximum(a, b).astype(np.uint64))
    survivor = np.full(num_rows, -1)
    for chunk in sorter.chunks():
        low, high = chunk >> np.uint64(32), chunk & np.uint64(0xFFFFFFFF)
        drop_direct(survivor, by_rank, low.astype(np.int64), high.astype(np.int64))
    return np.where(survivor < 0, np.arange(num_rows), survivor)


def last_survivors(survivor: Rows) -> Rows:
    """Follow survivors that went in a later step to the row that stays in the end."""
    while True:
        further = survivor[survivor]
        if np.array_equal(further, survivor):
            return survivor
        survivor = further


def cluster_sizes(survivor: Rows, is_member: NDArray[np.bool_]) -> NDArray[np.int64]:
    """[rows]: number of the rows that each row stands for, itself included; 0 where it does not stay.

    Only dropped rows that `is_member` marks count.
    """
    stays = survivor == np.arange(len(survivor))
    counts = np.bincount(survivor[is_member & ~stays], minlength=len(survivor))
    return np.where(stays, counts + 1, 0)


SIZE_CLASSES = ((2, 2), (3, 4), (5, 9), (10, 99), (100, 999), (1000, None))


def size_histogram(sizes: NDArray[np.int64]) -> dict[str, int]:
    """Number of clusters by size class, such as `5-9` or `1000+`."""
    histogram = {}
    for low, high in SIZE_CLASSES:
        name = f"{low}+" if high is None else str(low) if low == high else f"{low}-{high}"
        is_in_class = (sizes >= low) & (sizes <= high) if high is not None else sizes >= low
        histogram[name] = int(is_in_class.sum())
    return histogram
