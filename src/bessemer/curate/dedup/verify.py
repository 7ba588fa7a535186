"""Nominated pairs to confirmed ones: the exact similarity of their shingle sets, read in row order."""

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bessemer.curate.dedup.banding import Nominated
from bessemer.curate.dedup.corpus import Corpus
from bessemer.curate.kernels.shingles import pair_similarities

_ITEM_BYTES = 8
_MAX_BATCH_PAIRS = 1 << 16


@dataclass(frozen=True)
class Pairs:
    """Some pairs of rows, ascending by (low, high)."""

    low: NDArray[np.int64]
    high: NDArray[np.int64]
    num_shared_bands: NDArray[np.int64]
    similarity: NDArray[np.float64]
    """Exact; -1 where it is below the threshold."""

    def select(self, chosen: NDArray[np.bool_]) -> "Pairs":
        return Pairs(
            self.low[chosen], self.high[chosen], self.num_shared_bands[chosen], self.similarity[chosen]
        )


class ShingleSets:
    """The sets of a corpus and of rows planted behind it, read when needed."""

    def __init__(
        self, corpus: Corpus, planted: NDArray[np.uint64], planted_offsets: NDArray[np.int64]
    ) -> None:
        self._corpus = corpus
        self._planted = planted
        self._planted_offsets = planted_offsets
        self._starts = corpus.item_starts(corpus.set_sizes)
        self.sizes = np.concatenate([corpus.set_sizes, np.diff(planted_offsets)])
        """[rows and planted rows]"""

    def read(self, rows: NDArray[np.int64]) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
        """The sets of ascending rows, end to end, and their offsets [rows + 1]."""
        num_real = int(np.searchsorted(rows, self._corpus.num_rows))
        real, planted = rows[:num_real], rows[num_real:] - self._corpus.num_rows
        items = self._corpus.read_items("shingles", real, self._starts[real], self._corpus.set_sizes[real])
        parts = [
            self._planted[self._planted_offsets[row] : self._planted_offsets[row + 1]] for row in planted
        ]
        offsets = np.zeros(len(rows) + 1, np.int64)
        np.cumsum(self.sizes[rows], out=offsets[1:])
        return np.concatenate([items, *parts]), offsets


def verify(
    nominated: Iterable[Nominated],
    sets: ShingleSets,
    is_containment: bool,
    min_similarity: float,
    num_threads: int,
    memory_bytes: int,
) -> Iterator[Pairs]:
    """The pairs with their similarity, in the order given.

    Batches are cut by the size of their sets, `num_threads` are under way at a time (the kernel holds no
    lock); neither changes what comes out.
    """
    batch_items = max(1, memory_bytes // (2 * _ITEM_BYTES * (num_threads + 1)))

    def similarities(low: NDArray[np.int64], high: NDArray[np.int64], shared: NDArray[np.int64]) -> Pairs:
        rows, places = np.unique(np.concatenate([low, high]), return_inverse=True)
        shingles, offsets = sets.read(rows)
        left, right = places[: len(low)].astype(np.int64), places[len(low) :].astype(np.int64)
        found = pair_similarities(
            shingles, offsets[:-1], offsets[1:], left, right, is_containment, min_similarity
        )
        return Pairs(low, high, shared, found)

    batches = _batches(nominated, sets.sizes, is_containment, min_similarity, batch_items)
    with ThreadPoolExecutor(num_threads) as pool:
        under_way: deque[Future[Pairs]] = deque()
        for batch in batches:
            under_way.append(pool.submit(similarities, *batch))
            if len(under_way) > num_threads:
                yield under_way.popleft().result()
        while under_way:
            yield under_way.popleft().result()


def _batches(
    nominated: Iterable[Nominated],
    sizes: NDArray[np.int64],
    is_containment: bool,
    min_similarity: float,
    batch_items: int,
) -> Iterator[Nominated]:
    """The pairs that sizes do not rule out, in runs whose sets have at most about `batch_items` shingles."""
    for low, high, shared in nominated:
        if not is_containment:
            # |A ∩ B| <= min and |A ∪ B| >= max, so the similarity is at most min / max.
            smaller = np.minimum(sizes[low], sizes[high])
            is_possible = smaller >= min_similarity * np.maximum(sizes[low], sizes[high])
            low, high, shared = low[is_possible], high[is_possible], shared[is_possible]
        is_new_low = np.ones(len(low), np.bool_)
        is_new_low[1:] = low[1:] != low[:-1]
        loads = np.cumsum(sizes[high] + np.where(is_new_low, sizes[low], 0))
        start = 0
        while start < len(low):
            before = loads[start - 1] if start else 0
            end = int(np.searchsorted(loads, before + batch_items, side="right"))
            end = min(max(end, start + 1), start + _MAX_BATCH_PAIRS)
            yield low[start:end], high[start:end], shared[start:end]
            start = end
