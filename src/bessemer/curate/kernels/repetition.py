"""Repeated word n-grams: Rae et al. 2021 (Gopher), on the removal of repetition.

Of the published implementations, which disagree, this follows the paper's words: the fraction of a
document's characters that lie *within* the n-grams in question, each character counted once however
many occurrences overlap there. Characters are those of words; n-grams compare normalised words.
"""

import numpy as np
from numba import njit
from numpy.typing import NDArray

from bessemer.curate.kernels.hashing import extend, insert, table_size

MIN_TOP, MAX_TOP, MAX_DUPLICATE = 2, 4, 10
"""n = 2..4: the most frequent n-gram. n = 5..10: all n-grams that occur more than once."""


@njit(cache=True)
def ngram_coverage(
    hashes: NDArray[np.uint64], lengths: NDArray[np.int32], word_offsets: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Fraction of word characters [documents, 9], columns n = 2..10, as the module says.

    The most frequent n-gram must occur twice, else 0; among equally frequent ones, the one that covers
    most counts.
    """
    num_documents = len(word_offsets) - 1
    fractions = np.zeros((num_documents, MAX_DUPLICATE - MIN_TOP + 1), np.float64)
    longest = 0
    for document in range(num_documents):
        longest = max(longest, word_offsets[document + 1] - word_offsets[document])
    size = table_size(longest)
    keys = np.empty(size, np.uint64)
    is_used = np.empty(size, np.bool_)
    tallies = np.empty(size, np.int32)
    covered_to = np.empty(size, np.int64)
    covered = np.empty(size, np.int64)
    slots = np.empty(longest, np.int64)
    for document in range(num_documents):
        start, end = word_offsets[document], word_offsets[document + 1]
        num_words = end - start
        before = np.zeros(num_words + 1, np.int64)
        for i in range(num_words):
            before[i + 1] = before[i] + lengths[start + i]
        grams = hashes[start:end].copy()
        for n in range(2, MAX_DUPLICATE + 1):
            num_grams = num_words - n + 1
            if num_grams < 2:
                break
            mask = table_size(num_grams) - 1
            is_used[: mask + 1] = False
            top = 0
            for i in range(num_grams):
                grams[i] = extend(grams[i], hashes[start + i + n - 1])
                slot, is_new = insert(keys, is_used, mask, grams[i])
                slots[i] = slot
                tallies[slot] = 1 if is_new else tallies[slot] + 1
                top = max(top, tallies[slot])
                covered_to[slot] = 0
                covered[slot] = 0
            if top < 2:
                break  # no n-gram repeats, so no longer one does
            if n <= MAX_TOP:
                best = _cover_each(slots, num_grams, n, tallies, top, before, covered_to, covered)
            else:
                best = _cover_all(slots, num_grams, n, tallies, before)
            fractions[document, n - MIN_TOP] = best / before[num_words]
    return fractions


@njit(cache=True)
def _cover_each(slots, num_grams, n, tallies, top, before, covered_to, covered):
    """Most characters within the occurrences of one n-gram among those that occur `top` times."""
    best = 0
    for i in range(num_grams):
        slot = slots[i]
        if tallies[slot] == top:
            covered[slot] += before[i + n] - before[max(i, covered_to[slot])]
            covered_to[slot] = i + n
            best = max(best, covered[slot])
    return best


@njit(cache=True)
def _cover_all(slots, num_grams, n, tallies, before):
    """Characters within any n-gram that occurs more than once."""
    total = 0
    covered_to = 0
    for i in range(num_grams):
        if tallies[slots[i]] > 1:
            total += before[i + n] - before[max(i, covered_to)]
            covered_to = i + n
    return total
