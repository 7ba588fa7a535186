"""Rows from several corpora with weights that may change on the way: a pure function of the row number.

Each block of `PERIOD` rows holds exactly its weights' share of every source, in an order drawn from
(seed, stage, block). So any run, from any step and on any number of workers, takes the same rows, and the
shares are met to within one row a block.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from bessemer.training.batches import Row, rng

PERIOD = 1024
"""Rows in a block; weights are met to a thousandth."""
_MIXING = 4
"""Keeps the generator of mixing apart from those inside the sources."""


class RowSource(Protocol):
    """Rows of one corpus, by number, without end."""

    def row(self, number: int) -> Row: ...
    def documents(self, number: int) -> list[str]: ...


@dataclass(frozen=True)
class MixStage:
    """Weights that hold from one row on."""

    first_row: int
    weights: tuple[float, ...]
    """By source, not negative, not all zero."""


class Mixture:
    """Rows drawn from sources by the weights of the stage that they fall into."""

    def __init__(self, sources: Sequence[RowSource], stages: Sequence[MixStage], seed: int) -> None:
        """`stages` in order; the first begins at row 0."""
        assert stages[0].first_row == 0, "the first stage begins with the first row"
        self._sources, self._stages, self._seed = sources, stages, seed
        self._counts = [shares(stage.weights) for stage in stages]
        self._blocks: dict[tuple[int, int], tuple[NDArray[np.int64], NDArray[np.int64]]] = {}
        self._before = [np.zeros(len(sources), dtype=np.int64)]
        for number, (stage, following) in enumerate(pairwise(stages)):
            self._before.append(self._before[-1] + self._taken(number, following.first_row - stage.first_row))

    def place(self, number: int) -> tuple[int, int]:
        """(source, row of that source) of a row."""
        stage = max(k for k, each in enumerate(self._stages) if each.first_row <= number)
        block, inside = divmod(number - self._stages[stage].first_row, PERIOD)
        sources, ranks = self._block(stage, block)
        source = int(sources[inside])
        earlier = int(self._before[stage][source]) + block * int(self._counts[stage][source])
        return source, earlier + int(ranks[inside])

    def row(self, number: int) -> Row:
        """One row of the mixture."""
        source, row = self.place(number)
        return self._sources[source].row(row)

    def documents(self, number: int) -> list[str]:
        """Ids of the documents in a row."""
        source, row = self.place(number)
        return self._sources[source].documents(row)

    def rows_by_source(self, num_rows: int) -> list[int]:
        """How many of the first `num_rows` rows come from each source."""
        stage = max(k for k, each in enumerate(self._stages) if each.first_row <= max(0, num_rows - 1))
        taken = self._taken(stage, num_rows - self._stages[stage].first_row)
        return (self._before[stage] + taken).tolist()

    def _taken(self, stage: int, num_rows: int) -> NDArray[np.int64]:
        """Rows of each source among the first `num_rows` of a stage."""
        block, inside = divmod(num_rows, PERIOD)
        sources, _ = self._block(stage, block)
        partial = np.bincount(sources[:inside], minlength=len(self._sources))
        return block * self._counts[stage] + partial

    def _block(self, stage: int, block: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Source of each row of a block, and how many rows of that source come before it in the block."""
        key = (stage, block)
        if key not in self._blocks:
            counts = self._counts[stage]
            sources = np.repeat(np.arange(len(counts)), counts)
            sources = rng(self._seed, _MIXING, stage + 1, block + 1).permutation(sources)
            ranks = np.empty(PERIOD, dtype=np.int64)
            for source, count in enumerate(counts):
                ranks[sources == source] = np.arange(count)
            self._blocks = dict(list(self._blocks.items())[-1:]) | {key: (sources, ranks)}
        return self._blocks[key]


def shares(weights: Sequence[float]) -> NDArray[np.int64]:
    """Rows of each source in a block: the weights' shares of `PERIOD`, by largest remainders."""
    exact = np.asarray(weights, dtype=np.float64) / np.sum(weights) * PERIOD
    counts = np.floor(exact).astype(np.int64)
    largest = np.argsort(counts - exact, kind="stable")[: PERIOD - int(counts.sum())]
    counts[largest] += 1
    return counts
