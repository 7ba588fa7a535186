"""Near duplicates among the rows that are left: nominate, confirm, and measure what was found."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bessemer.curate.dedup.banding import candidate_pairs
from bessemer.curate.dedup.clusters import connected_survivors, direct_survivors
from bessemer.curate.dedup.config import DuplicateConfig
from bessemer.curate.dedup.corpus import Corpus
from bessemer.curate.dedup.evidence import ConfirmedPairs
from bessemer.curate.dedup.planted import Planted, PlantedCount
from bessemer.curate.dedup.verify import ShingleSets, verify
from bessemer.curate.kernels.duplicates import keep_best_partner

_Nominated = Iterable[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]]


@dataclass(frozen=True)
class NearDuplicates:
    """What near deduplication found. Arrays are by row."""

    survivor: NDArray[np.int64]
    """The row that stays in its place; itself where it stays."""
    partner: NDArray[np.int64]
    """Its most similar confirmed duplicate, -1 for none."""
    similarity: NDArray[np.float64]
    """With the partner."""
    pairs: ConfirmedPairs
    num_nominated: int
    """Pairs of rows of the corpus that agreed on a band."""
    planted: PlantedCount


def find_near_duplicates(
    corpus: Corpus,
    is_active: NDArray[np.bool_],
    planted: Planted,
    score: NDArray[np.float64] | None,
    config: DuplicateConfig,
    num_threads: int,
    folder: Path,
) -> NearDuplicates:
    """Clusters of the active rows, of which none has an empty set, by exact similarity of nominated pairs.

    `score` [rows] decides who stays, greatest first; without it the first row does.
    """
    memory = config.duplicate_memory
    num_rows = corpus.num_rows
    num_bands = config.minhash_parameters.bands
    nominated = candidate_pairs(corpus, is_active, planted.bands, num_bands, folder, memory // 2)
    counter = _Counter(nominated, num_rows)
    planted_count = PlantedCount(planted, num_rows)
    pairs = ConfirmedPairs(folder / "confirmed.pairs")
    sets = ShingleSets(corpus, planted.shingles, planted.offsets)
    is_containment = config.similarity == "containment"
    best, partner = np.full(num_rows, -1.0), np.full(num_rows, -1)
    for some in verify(counter, sets, is_containment, config.min_similarity, num_threads, memory // 2):
        real = planted_count.take(some.select(some.similarity >= 0))
        keep_best_partner(best, partner, real.low, real.high, real.similarity)
        pairs.write(real)
    pairs.close()
    if config.linkage == "connected":
        survivor = connected_survivors(pairs.read(), num_rows, score)
    else:
        survivor = direct_survivors(pairs.read, num_rows, score, folder, memory)
    return NearDuplicates(survivor, partner, best, pairs, counter.num_real, planted_count)


class _Counter:
    """Passes nominated pairs on and counts those without a planted row."""

    def __init__(self, nominated: _Nominated, num_rows: int) -> None:
        self._nominated = nominated
        self._num_rows = num_rows
        self.num_real = 0

    def __iter__(self) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]]:
        for low, high, shared in self._nominated:
            self.num_real += int((high < self._num_rows).sum())
            yield low, high, shared
