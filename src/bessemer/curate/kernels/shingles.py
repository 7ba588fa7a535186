"""Shingle sets and MinHash signatures (Broder 1997)."""

import numpy as np
from numba import njit
from numpy.typing import NDArray

from bessemer.curate.kernels.characters import SPACE, decode_at
from bessemer.curate.kernels.hashing import FNV_OFFSET, extend, finalize

_BASE = np.uint64(0x5851F42D4C957F2D)
"""Odd multiplier of the rolling hash (Knuth's MMIX constant)."""
_HASHES_AT_ONCE = 512
"""Hash functions whose state stays in the first-level cache together."""


@njit(cache=True)
def shingle_sets(hashes: NDArray[np.uint64], word_offsets: NDArray[np.int64], num_words: int):
    """The set of word n-grams of each document: sorted, distinct uint64 hashes.

    Returns `shingles` [total] and `shingle_offsets` int64 [documents + 1]. A document shorter than
    `num_words` has one shingle of all its words, an empty one has none.
    """
    num_documents = len(word_offsets) - 1
    shingles = np.empty(len(hashes), np.uint64)
    shingle_offsets = np.zeros(num_documents + 1, np.int64)
    filled = 0
    for document in range(num_documents):
        start, end = word_offsets[document], word_offsets[document + 1]
        width = min(num_words, end - start)
        if width > 0:
            grams = np.empty(end - start - width + 1, np.uint64)
            for i in range(len(grams)):
                state = FNV_OFFSET
                for j in range(width):
                    state = extend(state, hashes[start + i + j])
                grams[i] = state
            filled = _append_distinct(grams, shingles, filled)
        shingle_offsets[document + 1] = filled
    return shingles[:filled].copy(), shingle_offsets


@njit(cache=True)
def character_shingle_sets(
    buffer: NDArray[np.uint8],
    offsets: NDArray[np.int64],
    classes: NDArray[np.uint8],
    lower: NDArray[np.uint32],
    num_characters: int,
):
    """As `shingle_sets`, of character n-grams: lower-case code points, each run of whitespace one blank.

    `buffer` holds UTF-8, document `d` at `offsets[d]:offsets[d + 1]`.
    """
    num_documents = len(offsets) - 1
    shingles = np.empty(offsets[-1] - offsets[0], np.uint64)
    shingle_offsets = np.zeros(num_documents + 1, np.int64)
    leaving = np.uint64(1)
    for _ in range(num_characters):
        leaving *= _BASE
    filled = 0
    for document in range(num_documents):
        characters = _normal_characters(buffer, offsets[document], offsets[document + 1], classes, lower)
        width = min(num_characters, len(characters))
        if width > 0:
            grams = np.empty(len(characters) - width + 1, np.uint64)
            state = np.uint64(0)
            for i in range(len(characters)):
                state = state * _BASE + characters[i]
                if i >= num_characters:
                    state -= characters[i - num_characters] * leaving
                if i >= width - 1:
                    grams[i - width + 1] = finalize(state)
            filled = _append_distinct(grams, shingles, filled)
        shingle_offsets[document + 1] = filled
    return shingles[:filled].copy(), shingle_offsets


@njit(cache=True)
def _normal_characters(buffer, position, end, classes, lower):
    """Mixed hashes of the code points of one document after normalisation."""
    characters = np.empty(end - position, np.uint64)
    filled = 0
    is_blank_due = False
    while position < end:
        code_point, position = decode_at(buffer, position)
        if classes[code_point] & SPACE:
            is_blank_due = filled > 0
            continue
        if is_blank_due:
            characters[filled] = finalize(np.uint64(33))
            filled += 1
            is_blank_due = False
        characters[filled] = finalize(np.uint64(lower[code_point]) + np.uint64(1))
        filled += 1
    return characters[:filled]


@njit(cache=True)
def _append_distinct(grams, shingles, filled):
    """Sort `grams` in place and append the distinct ones to `shingles`; returns the new length."""
    grams.sort()
    for i in range(len(grams)):
        if i == 0 or grams[i] != grams[i - 1]:
            shingles[filled] = grams[i]
            filled += 1
    return filled


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
