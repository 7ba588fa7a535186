"""Repeated word n-grams: Rae et al. 2021 (Gopher), on the removal of repetition.

Of the published implementations, which disagree, this follows the paper's words: the fraction of a
document's characters that lie *within* the n-grams in question, each character counted once however
many occurrences overlap there. Characters are those of words; n-grams compare normalised words.
"""

import numpy as np
from numba import njit
from numpy.typing import NDArray

from bessemer.curate.kernels.decoding import longest_span
from bessemer.curate.kernels.hashing import extend, table_size
from bessemer.curate.kernels.repeats import look_up, mark, may_repeat, num_marks

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
    longest = longest_span(word_offsets)
    size = table_size(longest)
    keys, tallies = np.empty(size, np.uint64), np.empty(size, np.int32)
    covered_to, covered = np.empty(size, np.int64), np.empty(size, np.int64)
    grams, marks = np.empty(longest, np.uint64), np.empty(num_marks(longest), np.uint8)
    places, slots = np.empty(longest, np.int64), np.empty(longest, np.int64)
    before = np.zeros(longest + 1, np.int64)
    for document in range(num_documents):
        start, end = word_offsets[document], word_offsets[document + 1]
        words, sizes = hashes[start:end], lengths[start:end]
        num_words = len(words)
        for i in range(num_words):
            before[i + 1] = before[i] + sizes[i]
        num_places = repeated_pairs(words, grams, marks, places)
        for n in range(MIN_TOP, MAX_DUPLICATE + 1):
            mask = table_size(num_places) - 1
            for i in range(mask + 1):
                tallies[i], covered_to[i], covered[i] = 0, 0, 0
            top = 0
            for i in range(num_places):
                slot = look_up(keys, tallies, mask, grams[i])
                keys[slot] = grams[i]
                tallies[slot] += 1
                slots[i] = slot
                top = max(top, tallies[slot])
            if top < 2:
                break  # no n-gram repeats, so no longer one does
            if n <= MAX_TOP:
                best = _cover_each(slots[:num_places], places, n, tallies, top, before, covered_to, covered)
            else:
                best = _cover_all(slots[:num_places], places, n, tallies, before)
            fractions[document, n - MIN_TOP] = best / before[num_words]
            num_places = longer_grams(words, n, grams, places, slots[:num_places], tallies)
    return fractions


@njit(cache=True)
def repeated_pairs(words, grams, marks, places):
    """Hashes into `grams`, starts into `places`, of the word pairs that may repeat; returns their number."""
    num_pairs = max(0, len(words) - 1)
    for i in range(num_pairs):
        grams[i] = extend(words[i], words[i + 1])
    some = marks[: num_marks(num_pairs)]
    mark(grams[:num_pairs], some)
    num_places = 0
    for i in range(num_pairs):
        # Written over unless it stays: `grams` never falls behind its own places.
        grams[num_places], places[num_places] = grams[i], i
        num_places += may_repeat(grams[i], some)
    return num_places


@njit(cache=True)
def longer_grams(words, n, grams, places, slots, tallies):
    """From the n-grams that were looked up to those of n + 1 words that may repeat, in place; how many."""
    num_kept = 0
    for i in range(len(slots) - 1):
        place = places[i]
        is_next = places[i + 1] == place + 1 and place + n < len(words)
        if is_next and tallies[slots[i]] > 1 and tallies[slots[i + 1]] > 1:
            grams[num_kept], places[num_kept] = extend(grams[i], words[place + n]), place
            num_kept += 1
    return num_kept


@njit(cache=True)
def _cover_each(slots, places, n, tallies, top, before, covered_to, covered):
    """Most characters within the occurrences of one n-gram among those that occur `top` times."""
    best = 0
    for i in range(len(slots)):
        slot, place = slots[i], places[i]
        if tallies[slot] == top:
            covered[slot] += before[place + n] - before[max(place, covered_to[slot])]
            covered_to[slot] = place + n
            best = max(best, covered[slot])
    return best


@njit(cache=True)
def _cover_all(slots, places, n, tallies, before):
    """Characters within any n-gram that occurs more than once."""
    total = 0
    covered_to = 0
    for i in range(len(slots)):
        if tallies[slots[i]] > 1:
            place = places[i]
            total += before[place + n] - before[max(place, covered_to)]
            covered_to = place + n
    return total
