"""Near duplicates among the rows that are left: nominate, confirm, and measure what was found."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bessemer.curate.dedup.banding import Nominated, candidate_pairs
from bessemer.curate.dedup.clusters import connected_survivors, direct_survivors
from bessemer.curate.dedup.config import DuplicateConfig
from bessemer.curate.dedup.corpus import Corpus
from bessemer.curate.dedup.evidence import ConfirmedPairs, read_pairs, write_pairs
from bessemer.curate.dedup.parts import Parts
from bessemer.curate.dedup.planted import Planted, PlantedCount
from bessemer.curate.dedup.verify import ShingleSets, verify
from bessemer.curate.kernels.duplicates import keep_best_partner

_PAIRS_AT_ONCE = 1 << 18
"""Nominated pairs that are confirmed together: what a kill costs at the most."""


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
    parts: Parts,
    folder: Path,
) -> NearDuplicates:
    """Clusters of the active rows, of which none has an empty set, by exact similarity of nominated pairs.

    `score` [rows] decides who stays, greatest first; without it the first row does. Nominated pairs of
    each band and confirmed pairs are parts of `parts`; `folder` is for sorting.
    """
    memory, num_rows = config.duplicate_memory, corpus.num_rows
    num_bands = config.minhash_parameters.bands
    nominated = candidate_pairs(corpus, is_active, planted.bands, num_bands, parts, folder, memory // 2)
    sets = ShingleSets(corpus, planted.shingles, planted.offsets)
    planted_count = PlantedCount(planted, num_rows)
    best, partner = np.full(num_rows, -1.0), np.full(num_rows, -1)
    num_nominated = num_confirmed = 0
    paths = []
    for number, some in enumerate(_in_lots(nominated, _PAIRS_AT_ONCE)):
        num_nominated += int((some[1] < num_rows).sum())
        name = f"confirmed-{number:05}"
        if not parts.is_done(name):
            _confirm(some, sets, config, num_threads, parts, name)
        paths.append(parts.path(name))
        real = planted_count.take(read_pairs(paths[-1]))
        keep_best_partner(best, partner, real.low, real.high, real.similarity)
        num_confirmed += len(real.low)
    pairs = ConfirmedPairs(paths, num_rows, num_confirmed)
    if config.linkage == "connected":
        survivor = connected_survivors(pairs.read(), num_rows, score)
    else:
        survivor = direct_survivors(pairs.read, num_rows, score, folder, memory)
    return NearDuplicates(survivor, partner, best, pairs, num_nominated, planted_count)


def _confirm(
    nominated: Nominated,
    sets: ShingleSets,
    config: DuplicateConfig,
    num_threads: int,
    parts: Parts,
    name: str,
) -> None:
    """Write the pairs that are similar enough as a part."""
    is_containment = config.similarity == "containment"
    memory = config.duplicate_memory // 2
    with parts.writing(name) as file:
        for pairs in verify([nominated], sets, is_containment, config.min_similarity, num_threads, memory):
            write_pairs(pairs.select(pairs.similarity >= 0), file)


def _in_lots(pieces: Iterable[Nominated], num_pairs: int) -> Iterator[Nominated]:
    """The same pairs, `num_pairs` at a time, however they came."""
    waiting: list[Nominated] = []
    num_waiting = 0
    for piece in pieces:
        waiting.append(piece)
        num_waiting += len(piece[0])
        while num_waiting >= num_pairs:
            low, high, shared = (np.concatenate(columns) for columns in zip(*waiting, strict=True))
            yield low[:num_pairs], high[:num_pairs], shared[:num_pairs]
            waiting = [(low[num_pairs:], high[num_pairs:], shared[num_pairs:])]
            num_waiting -= num_pairs
    if num_waiting:
        low, high, shared = (np.concatenate(columns) for columns in zip(*waiting, strict=True))
        yield low, high, shared
