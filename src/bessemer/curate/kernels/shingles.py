"""Shingle sets and MinHash signatures (Broder 1997)."""

from itertools import pairwise

import numpy as np
from numba import njit
from numpy.typing import NDArray

from bessemer.curate.kernels.characters import SPACE, decode_at
from bessemer.curate.kernels.hashing import FNV_OFFSET, extend, finalize

_BASE = np.uint64(0x5851F42D4C957F2D)
"""Odd multiplier of the rolling hash (Knuth's MMIX constant)."""
_HASHES_AT_ONCE = 512
"""Hash functions whose state stays in the first-level cache together."""


def shingle_sets(
    hashes: NDArray[np.uint64], word_offsets: NDArray[np.int64], num_words: int
) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    """The set of word n-grams of each document: sorted, distinct uint64 hashes.

    Returns `shingles` [total] and `shingle_offsets` int64 [documents + 1]. A document shorter than
    `num_words` has one shingle of all its words, an empty one has none.
    """
    return _sets(*_grams(hashes, word_offsets, num_words))


def character_shingle_sets(
    buffer: NDArray[np.uint8],
    offsets: NDArray[np.int64],
    classes: NDArray[np.uint8],
    lower: NDArray[np.uint32],
    num_characters: int,
) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    """As `shingle_sets`, of character n-grams: lower-case code points, each run of whitespace one blank.

    `buffer` holds UTF-8, document `d` at `offsets[d]:offsets[d + 1]`.
    """
    return _sets(*_grams(*_normal_characters(buffer, offsets, classes, lower), num_characters))


def _sets(
    grams: NDArray[np.uint64], offsets: NDArray[np.int64]
) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    """Sorted and distinct by document; `grams` is used up."""
    for start, end in pairwise(offsets.tolist()):
        grams[start:end].sort()  # numpy's own sort, which is vectorised, is five times as fast as numba's
    return _distinct(grams, offsets)


@njit(cache=True)
def _grams(items, offsets, width):
    """Hashes of each document's runs of `width` items, of all its items where it has fewer; rolling.

    The hash of a run is a polynomial in its items, which are well mixed, and mixed again at its end.
    """
    num_documents = len(offsets) - 1
    grams = np.empty(len(items), np.uint64)
    gram_offsets = np.zeros(num_documents + 1, np.int64)
    leaving = np.uint64(1)
    for _ in range(width):
        leaving *= _BASE
    filled = 0
    for document in range(num_documents):
        start, end = offsets[document], offsets[document + 1]
        shortest = min(width, end - start)
        state = np.uint64(0)
        for i in range(start, end):
            state = state * _BASE + items[i]
            if i >= start + width:
                state -= items[i - width] * leaving
            if i >= start + shortest - 1:
                grams[filled] = finalize(state)
                filled += 1
        gram_offsets[document + 1] = filled
    return grams[:filled], gram_offsets


@njit(cache=True)
def _normal_characters(buffer, offsets, classes, lower):
    """Mixed hashes of the code points of each document after normalisation, and offsets into them."""
    num_documents = len(offsets) - 1
    characters = np.empty(offsets[-1] - offsets[0], np.uint64)
    character_offsets = np.zeros(num_documents + 1, np.int64)
    blank = finalize(np.uint64(33))
    filled = 0
    for document in range(num_documents):
        position, end = offsets[document], offsets[document + 1]
        first = filled
        is_blank_due = False
        while position < end:
            code_point, position = decode_at(buffer, position)
            if classes[code_point] & SPACE:
                is_blank_due = filled > first
                continue
            if is_blank_due:
                characters[filled] = blank
                filled += 1
                is_blank_due = False
            characters[filled] = finalize(np.uint64(lower[code_point]) + np.uint64(1))
            filled += 1
        character_offsets[document + 1] = filled
    return characters[:filled], character_offsets


@njit(cache=True)
def _distinct(grams, offsets):
    """The distinct ones of each document's ascending `grams`, and offsets into them."""
    distinct = np.empty(len(grams), np.uint64)
    distinct_offsets = np.zeros(len(offsets), np.int64)
    filled = 0
    for document in range(len(offsets) - 1):
        for i in range(offsets[document], offsets[document + 1]):
            if i == offsets[document] or grams[i] != grams[i - 1]:
                distinct[filled] = grams[i]
                filled += 1
        distinct_offsets[document + 1] = filled
    return distinct[:filled].copy(), distinct_offsets


@njit(cache=True)
def minhash_signatures(
    shingles: NDArray[np.uint64],
    shingle_offsets: NDArray[np.int64],
    multipliers: NDArray[np.uint64],
    increments: NDArray[np.uint64],
) -> NDArray[np.uint32]:
    """Signatures [documents, hashes]: the least value of each hash function over the document's set.

    Hash functions are multiply-add-shift, (a x + b mod 2^64) >> 32 with odd a: strongly universal
    enough for shingles that are well mixed already (Dietzfelbinger 1996). Empty sets give 2^32 - 1.
    """
    num_documents, num_hashes = len(shingle_offsets) - 1, len(multipliers)
    signatures = np.full((num_documents, num_hashes), np.uint32(0xFFFFFFFF), np.uint32)
    for document in range(num_documents):
        for first in range(0, num_hashes, _HASHES_AT_ONCE):
            last = min(first + _HASHES_AT_ONCE, num_hashes)
            signature = signatures[document, first:last]
            some_multipliers, some_increments = multipliers[first:last], increments[first:last]
            for i in range(shingle_offsets[document], shingle_offsets[document + 1]):
                shingle = shingles[i]
                for j in range(last - first):
                    value = np.uint32((some_multipliers[j] * shingle + some_increments[j]) >> np.uint64(32))
                    signature[j] = min(signature[j], value)
    return signatures


@njit(cache=True)
def band_keys(signatures: NDArray[np.uint32], num_bands: int) -> NDArray[np.uint64]:
    """One key per band [bands, documents]; equal rows in a band give equal keys."""
    num_documents, num_hashes = signatures.shape
    num_rows = num_hashes // num_bands
    keys = np.empty((num_bands, num_documents), np.uint64)
    for document in range(num_documents):
        for band in range(num_bands):
            state = FNV_OFFSET
            for row in range(band * num_rows, (band + 1) * num_rows):
                state = extend(state, np.uint64(signatures[document, row]))
            keys[band, document] = state
    return keys


@njit(cache=True, nogil=True)
def intersection_size(left: NDArray[np.uint64], right: NDArray[np.uint64], at_least: int) -> int:
    """|A ∩ B| of two sorted sets, or -1 as soon as it is certain to be less than `at_least`."""
    i, j, common = 0, 0, 0
    while i < len(left) and j < len(right):
        if left[i] == right[j]:
            common += 1
            i += 1
            j += 1
        elif left[i] < right[j]:
            i += 1
            if common + len(left) - i < at_least:
                return -1
        else:
            j += 1
            if common + len(right) - j < at_least:
                return -1
    return common if common >= at_least else -1


@njit(cache=True, nogil=True)
def jaccard(left: NDArray[np.uint64], right: NDArray[np.uint64]) -> float:
    """Exact |A ∩ B| / |A ∪ B| of two sorted sets; 0 when both are empty."""
    common = intersection_size(left, right, 0)
    union = len(left) + len(right) - common
    return common / union if union else 0.0


@njit(cache=True, nogil=True)
def pair_similarities(
    shingles: NDArray[np.uint64],
    starts: NDArray[np.int64],
    ends: NDArray[np.int64],
    left: NDArray[np.int64],
    right: NDArray[np.int64],
    is_containment: bool,
    min_similarity: float,
) -> NDArray[np.float64]:
    """Exact similarity of each pair [pairs] of sets `shingles[starts[k]:ends[k]]`, or -1 below the least.

    Jaccard |A ∩ B| / |A ∪ B|; with `is_containment`, |A ∩ B| / min(|A|, |B|) (Broder 1997, section 1).
    A pair is given up once its intersection is certain to be too small: s >= t needs
    |A ∩ B| >= t |A ∪ B|, that is |A ∩ B| >= t (|A| + |B|) / (1 + t).
    """
    similarities = np.full(len(left), -1.0)
    for pair in range(len(left)):
        a = shingles[starts[left[pair]] : ends[left[pair]]]
        b = shingles[starts[right[pair]] : ends[right[pair]]]
        smaller = min(len(a), len(b))
        if smaller == 0:
            continue
        if is_containment:
            least = min_similarity * smaller
        else:
            least = min_similarity * (len(a) + len(b)) / (1 + min_similarity)
        # Rounded down by one, so that rounding errors never decide; the exact quotient does.
        at_least = max(0, int(least) - 1)
        if at_least > smaller:
            continue
        common = intersection_size(a, b, at_least)
        if common < 0:
            continue
        whole = smaller if is_containment else len(a) + len(b) - common
        similarity = common / whole
        if similarity >= min_similarity:
            similarities[pair] = similarity
    return similarities
