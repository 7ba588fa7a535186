"""Known duplicates of graded similarity, planted into the index of every run: what does it find?

Copies of documents of the run with words replaced go the way of all others (words, shingles, bands,
exact check), as rows behind the last one that no output ever sees. What counts as a duplicate is told by
plain Python on sets of words, not by the code under test.
"""

import random
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate, pairwise

import numpy as np
from numpy.typing import NDArray

from bessemer.curate.dedup.minhash import bands_of, shingle
from bessemer.curate.dedup.parameters import MinHashParameters
from bessemer.curate.dedup.verify import Pairs
from bessemer.curate.measure import split

MAX_ORIGINALS = 40
_ROWS_PER_ORIGINAL = 10
_MIN_WORDS, _MAX_WORDS = 30, 5000
_MARGIN = 0.02
"""Similarities are aimed at no closer than this to a grade's ends."""


@dataclass(frozen=True)
class Grade:
    """A range of similarity, [low, high), or up to 1."""

    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.low:.2f}-{self.high:.2f}"

    def holds(self, similarity: float) -> bool:
        return self.low <= similarity < self.high or similarity == self.high == 1.0


@dataclass(frozen=True)
class Planted:
    """Planted copies, numbered in the order of these arrays."""

    original: NDArray[np.int64]
    """[copies]: the row each was made from."""
    similarity: NDArray[np.float64]
    """[copies]: to the original, by plain Python."""
    bands: NDArray[np.uint64]
    """[copies, bands]"""
    shingles: NDArray[np.uint64]
    offsets: NDArray[np.int64]
    """[copies + 1]: each copy's set within `shingles`."""


def grades(min_similarity: float) -> list[Grade]:
    """One grade below the threshold, which nothing may be taken from, and four above."""
    steps = [min_similarity + (1 - min_similarity) * quarter / 4 for quarter in range(5)]
    above = [Grade(low, high) for low, high in pairwise(steps) if high > low]
    return [Grade(max(0.0, min_similarity - 0.2), min_similarity), *above]


def choose_originals(is_active: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Rows to make copies of, evenly over all that take part: a tenth of them, at most MAX_ORIGINALS."""
    rows = np.flatnonzero(is_active)
    num_originals = min(MAX_ORIGINALS, -(-len(rows) // _ROWS_PER_ORIGINAL))
    return rows[np.linspace(0, len(rows) - 1, num_originals).round().astype(np.int64)] if len(rows) else rows


def plant(
    rows: NDArray[np.int64],
    texts: Sequence[str],
    parameters: MinHashParameters,
    is_containment: bool,
    min_similarity: float,
) -> Planted:
    """A copy of each text in each grade. Texts that are too short or very long are left out."""
    original, similarities, copies = [], [], []
    for row, text in zip(rows.tolist(), texts, strict=True):
        if not _MIN_WORDS <= len(text.split()) <= _MAX_WORDS:
            continue
        shingles = plain_shingles(text, parameters)
        for number, grade in enumerate(grades(min_similarity)):
            random_ = random.Random(row * 10 + number)
            margin = min(_MARGIN, (grade.high - grade.low) / 4)
            target = random_.uniform(grade.low + margin, grade.high - margin)
            # Of n shingles, d changed ones leave a Jaccard similarity of (n - d) / (n + d), and n - d of n.
            share = 1 - target if is_containment else (1 - target) / (1 + target)
            copy = _changed(text, share * len(shingles), parameters, random_)
            original.append(row)
            copies.append(copy)
            similarities.append(plain_similarity(shingles, plain_shingles(copy, parameters), is_containment))
    shingles, offsets = shingle(copies, split(*copies), parameters)
    bands = np.ascontiguousarray(bands_of(shingles, offsets, parameters).T)
    return Planted(np.array(original, np.int64), np.array(similarities, np.float64), bands, shingles, offsets)


def load_kernels(parameters: MinHashParameters) -> None:
    """Have the compiled code at hand that shingles and signs texts: the first call takes half a second."""
    plant(np.zeros(1, np.int64), ["word " * _MIN_WORDS], parameters, False, 0.5)


def _changed(text: str, num_changed: float, parameters: MinHashParameters, random_: random.Random) -> str:
    """The text with words replaced here and there until about `num_changed` shingles have changed."""
    words = text.split()
    is_of_words = parameters.unit == "words"
    spans = [1 if is_of_words else len(word) + 1 for word in words]
    starts = [0, *accumulate(spans)]
    changed: set[int] = set()
    # A word takes part in at least one shingle, so that no more places can be needed.
    for place in random_.sample(range(len(words)), min(len(words), int(num_changed) + 1)):
        first, last = max(0, starts[place] - parameters.shingle_size + 1), starts[place] + spans[place]
        if len(changed) + (last - first) / 2 > num_changed:
            break
        changed.update(range(first, last))
        words[place] = f"planted{place}"
    return " ".join(words)


def plain_shingles(text: str, parameters: MinHashParameters) -> set[tuple[str, ...]] | set[str]:
    """Shingles by plain Python: words lower-cased and bare of punctuation, or characters."""
    if parameters.unit == "characters":
        normal = " ".join(text.lower().split())
        width = min(parameters.shingle_size, len(normal))
        return {normal[i : i + width] for i in range(len(normal) - width + 1)} if normal else set()
    words = [_bare(word).lower() for word in text.split()]
    width = min(parameters.shingle_size, len(words))
    return {tuple(words[i : i + width]) for i in range(len(words) - width + 1)} if words else set()


@lru_cache(maxsize=1 << 16)
def _bare(word: str) -> str:
    """The word without punctuation and symbols at its ends; of nothing else, as it stands."""
    is_mark = [unicodedata.category(character)[0] in "PS" for character in word]
    if all(is_mark):
        return word
    first, last = is_mark.index(False), len(word) - is_mark[::-1].index(False)
    return word[first:last]


def plain_similarity(left: set, right: set, is_containment: bool) -> float:
    """|A ∩ B| over |A ∪ B|, or over the smaller one's size."""
    whole = min(len(left), len(right)) if is_containment else len(left | right)
    return len(left & right) / whole if whole else 0.0


class PlantedCount:
    """Which planted copies the index has found, counted as confirmed pairs come by."""

    def __init__(self, planted: Planted, num_rows: int) -> None:
        self._planted = planted
        self._num_rows = num_rows
        self._is_found = np.zeros(len(planted.original), np.bool_)
        self._is_taken_for_original = np.zeros(len(planted.original), np.bool_)

    def take(self, confirmed: Pairs) -> Pairs:
        """Note the pairs that hold a planted row, return the others."""
        is_planted = confirmed.high >= self._num_rows
        copies = confirmed.high[is_planted] - self._num_rows
        self._is_found[copies] = True
        is_original = confirmed.low[is_planted] == self._planted.original[copies]
        self._is_taken_for_original[copies[is_original]] = True
        return confirmed.select(~is_planted)

    def by_grade(self, min_similarity: float) -> list[tuple[Grade, int, int]]:
        """Grade, copies of that similarity, and how many of them were found."""
        counts = []
        for grade in grades(min_similarity):
            is_in = np.array([grade.holds(s) for s in self._planted.similarity], np.bool_)
            found = self._is_found if grade.low >= min_similarity else self._is_taken_for_original
            counts.append((grade, int(is_in.sum()), int((is_in & found).sum())))
        return counts
