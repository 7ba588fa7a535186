"""Shingle sets and MinHash signatures (Broder 1997)."""

import numpy as np
from numba import njit
from numpy.typing import NDArray

from bessemer.curate.kernels.hashing import FNV_OFFSET, extend


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
            grams.sort()
            for i in range(len(grams)):
                if i == 0 or grams[i] != grams[i - 1]:
                    shingles[filled] = grams[i]
                    filled += 1
        shingle_offsets[document + 1] = filled
    return shingles[:filled].copy(), shingle_offsets


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
        signature = signatures[document]
        for i in range(shingle_offsets[document], shingle_offsets[document + 1]):
            shingle = shingles[i]
            for j in range(num_hashes):
                value = np.uint32((multipliers[j] * shingle + increments[j]) >> np.uint64(32))
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


@njit(cache=True)
def jaccard(left: NDArray[np.uint64], right: NDArray[np.uint64]) -> float:
    """Exact |A ∩ B| / |A ∪ B| of two sorted sets; 0 when both are empty."""
    i, j, common = 0, 0, 0
    while i < len(left) and j < len(right):
        if left[i] == right[j]:
            common += 1
            i += 1
            j += 1
        elif left[i] < right[j]:
            i += 1
        else:
            j += 1
    union = len(left) + len(right) - common
    return common / union if union else 0.0
