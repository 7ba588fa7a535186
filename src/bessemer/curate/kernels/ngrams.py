"""Repeated word n-grams as the published implementations count them; the paper's words are in `repetition`.

All three read Rae et al. 2021 (Gopher), see the paper, and differ in what they count:

- datatrove 0.10.1 (`filters/gopher_repetition_filter.py`): of the most frequent n-gram every occurrence, with
  the blanks between its words; of repeated n-grams only the copies, read from left to right without overlap
  and compared run together without blanks. Over all characters of the text, whitespace too.
- dolma 1.2.1 (`taggers/gopher.py`): every occurrence, overlapping or not, of the most frequent n-gram over
the characters of the words; of repeated n-grams over the characters of all n-grams.
- RedPajama-Data v2 (`quality_signals/repetitions.py`): as dolma for the most frequent one, but nothing
unless it occurs twice; of repeated n-grams every character once (`repetition.ngram_coverage`).
"""

import numpy as np
from numba import njit
from numpy.typing import NDArray

from bessemer.curate.kernels.decoding import longest_span
from bessemer.curate.kernels.hashing import extend, finalize, table_size
from bessemer.curate.kernels.repeats import look_up, mark, may_repeat, num_marks
from bessemer.curate.kernels.repetition import (
    MAX_DUPLICATE,
    MAX_TOP,
    MIN_TOP,
    longer_grams,
    repeated_pairs,
)
from bessemer.curate.kernels.spacy_tables import HASH_BASE
from bessemer.curate.kernels.spacy_words import HEAD_CHARACTERS

_NUM_COLUMNS = MAX_DUPLICATE - MIN_TOP + 1


@njit(cache=True)
def slot_of(keys, stamps, stamp, mask, key):
    """Slot of a key in a table that a new stamp empties, and whether it is new there."""
    slot = np.int64(key & np.uint64(mask))
    while stamps[slot] == stamp:
        if keys[slot] == key:
            return slot, False
        slot = (slot + 1) & mask
    stamps[slot] = stamp
    keys[slot] = key
    return slot, True


@njit(cache=True)
def _power(powers, length):
    """HASH_BASE to the power of a token's length."""
    if length < len(powers):
        return powers[length]
    result, square = np.uint64(1), HASH_BASE
    while length > 0:
        if length & 1:
            result *= square
        square *= square
        length >>= 1
    return result


@njit(cache=True)
def datatrove_ngrams(
    hashes: NDArray[np.uint64],
    lengths: NDArray[np.int32],
    heads: NDArray[np.uint64],
    token_offsets: NDArray[np.int64],
    powers: NDArray[np.uint64],
) -> NDArray[np.int64]:
    """Characters [documents, 9] in the most frequent n-gram (n = 2..4) and in repeated ones (n = 5..10).

    Hashes are polynomial, heads as `spacy_words` makes them; the most frequent n-gram is the one that occurs
    first among equals. Only n-grams that may repeat are looked up.
    """
    num_documents = len(token_offsets) - 1
    characters = np.zeros((num_documents, _NUM_COLUMNS), np.int64)
    longest = longest_span(token_offsets)
    size = table_size(longest)
    keys, tallies, firsts = np.empty(size, np.uint64), np.empty(size, np.int32), np.empty(size, np.int64)
    marks = np.empty(num_marks(longest), np.uint8)
    grams, places = np.empty(longest, np.uint64), np.empty(longest, np.int64)
    slots = np.empty(longest, np.int64)
    before = np.zeros(longest + 1, np.int64)
    for document in range(num_documents):
        start, end = token_offsets[document], token_offsets[document + 1]
        words, sizes = hashes[start:end], lengths[start:end]
        for i in range(len(words)):
            before[i + 1] = before[i] + sizes[i]
        row = characters[document]
        _count_most_frequent(words, before, marks, grams, places, slots, keys, tallies, firsts, row)
        _count_copies(
            words, sizes, heads[start:end], before, powers, marks, grams, places, keys, tallies, row
        )
    return characters


@njit(cache=True)
def _count_most_frequent(words, before, marks, grams, places, slots, keys, tallies, firsts, row):
    """Characters, blanks between words included, in all occurrences of the first most frequent n-gram."""
    num_places = repeated_pairs(words, grams, marks, places)
    for n in range(MIN_TOP, MAX_TOP + 1):
        if len(words) < n:
            return
        size = table_size(num_places)
        for i in range(size):
            tallies[i] = 0
        top, first = 0, 0
        for i in range(num_places):
            slot = look_up(keys, tallies, size - 1, grams[i])
            if tallies[slot] == 0:
                keys[slot], firsts[slot] = grams[i], places[i]
            tallies[slot] += 1
            slots[i] = slot
            if tallies[slot] > top or (tallies[slot] == top and firsts[slot] < first):
                top, first = tallies[slot], firsts[slot]
        if top < 2:
            top, first = 1, 0
        row[n - MIN_TOP] = (before[first + n] - before[first] + n - 1) * top
        num_places = longer_grams(words, n, grams, places, slots[:num_places], tallies)


@njit(cache=True)
def _count_copies(words, sizes, heads, before, powers, marks, joined, places, keys, tallies, row):
    """Characters in copies of an n-gram met before; a copy is jumped over whole, and what it hides not met.

    Equal n-grams have equal heads unless they are shorter than a head, so `places` are those of n-grams that
    are, or whose head is there twice.
    """
    shortest = MAX_TOP + 1
    num_grams = len(words) - shortest + 1
    if num_grams < 1:
        return
    some = marks[: num_marks(num_grams)]
    mark(heads[:num_grams], some)
    num_places = 0
    for i in range(num_grams):
        places[num_places] = i
        is_short = before[i + shortest] - before[i] < HEAD_CHARACTERS
        num_places += is_short or may_repeat(heads[i], some)
    for i in range(num_places):
        joined[i] = 0
        for place in range(places[i], places[i] + shortest - 1):
            joined[i] = joined[i] * _power(powers, sizes[place]) + words[place]
    size = table_size(num_places)
    for n in range(shortest, MAX_DUPLICATE + 1):
        for i in range(size):
            tallies[i] = 0
        total, free = 0, 0
        for i in range(num_places):
            place = places[i]
            last = place + n - 1
            if last >= len(words):
                break
            joined[i] = joined[i] * _power(powers, sizes[last]) + words[last]
            if place < free:
                continue
            # The polynomial's low bits depend on the last characters alone.
            key = finalize(joined[i])
            slot = look_up(keys, tallies, size - 1, key)
            if tallies[slot] == 0:
                keys[slot], tallies[slot] = key, 1
            else:
                total += before[place + n] - before[place]
                free = place + n
        row[n - MIN_TOP] = total


@njit(cache=True)
def occurrence_ngrams(
    hashes: NDArray[np.uint64], lengths: NDArray[np.int32], word_offsets: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Characters [documents, 18] counted once for each occurrence that they lie in.

    Columns 0..2: the first most frequent n-gram, n = 2..4, which may occur once; 3..8: n-grams that repeat,
    n = 5..10; 9..14: all n-grams, n = 5..10; 15..17: how often the most frequent one occurs, n = 2..4.
    """
    num_documents = len(word_offsets) - 1
    num_duplicate = MAX_DUPLICATE - MAX_TOP
    num_top = MAX_TOP - MIN_TOP + 1
    characters = np.zeros((num_documents, 2 * num_top + 2 * num_duplicate), np.int64)
    longest = longest_span(word_offsets)
    size = table_size(longest)
    keys, stamps = np.empty(size, np.uint64), np.zeros(size, np.int64)
    tallies = np.empty(size, np.int64)
    slots = np.empty(longest, np.int64)
    grams = np.empty(longest, np.uint64)
    before = np.zeros(longest + 1, np.int64)
    stamp = 0
    for document in range(num_documents):
        start, end = word_offsets[document], word_offsets[document + 1]
        num_words = end - start
        for i in range(num_words):
            before[i + 1] = before[i] + lengths[start + i]
            grams[i] = hashes[start + i]
        for n in range(MIN_TOP, MAX_DUPLICATE + 1):
            num_grams = num_words - n + 1
            if num_grams < 1:
                break
            mask = table_size(num_grams) - 1
            stamp += 1
            top, first = 0, -1
            for i in range(num_grams):
                grams[i] = extend(grams[i], hashes[start + i + n - 1])
                slots[i], is_new = slot_of(keys, stamps, stamp, mask, grams[i])
                tallies[slots[i]] = 1 if is_new else tallies[slots[i]] + 1
                top = max(top, tallies[slots[i]])
            row = characters[document]
            for i in range(num_grams):
                size_here = before[i + n] - before[i]
                if n <= MAX_TOP:
                    if first < 0 and tallies[slots[i]] == top:
                        first = i
                        row[n - MIN_TOP] = size_here * top
                        row[num_top + 2 * num_duplicate + n - MIN_TOP] = top
                    continue
                row[num_top + num_duplicate + n - MAX_TOP - 1] += size_here
                if tallies[slots[i]] > 1:
                    row[num_top + n - MAX_TOP - 1] += size_here
    return characters
