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
from bessemer.curate.kernels.repetition import MAX_DUPLICATE, MAX_TOP, MIN_TOP
from bessemer.curate.kernels.spacy_tables import HASH_BASE

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
    token_offsets: NDArray[np.int64],
    powers: NDArray[np.uint64],
) -> NDArray[np.int64]:
    """Characters [documents, 9] in the most frequent n-gram (n = 2..4) and in repeated ones (n = 5..10).

    Hashes are polynomial (`spacy_words`); the most frequent is the one that occurs first among equals.
    """
    num_documents = len(token_offsets) - 1
    characters = np.zeros((num_documents, _NUM_COLUMNS), np.int64)
    longest = longest_span(token_offsets)
    size = table_size(longest)
    keys, stamps = np.empty(size, np.uint64), np.zeros(size, np.int64)
    tallies = np.empty(size, np.int64)
    grams, joined = np.empty(longest, np.uint64), np.empty(longest, np.uint64)
    shifts = np.empty(longest, np.uint64)
    before = np.zeros(longest + 1, np.int64)
    stamp = 0
    for document in range(num_documents):
        start, end = token_offsets[document], token_offsets[document + 1]
        num_words = end - start
        for i in range(num_words):
            before[i + 1] = before[i] + lengths[start + i]
            grams[i] = joined[i] = hashes[start + i]
            shifts[i] = _power(powers, lengths[start + i])
        for n in range(MIN_TOP, MAX_DUPLICATE + 1):
            num_grams = num_words - n + 1
            if num_grams < 1:
                break
            mask = table_size(num_grams) - 1
            stamp += 1
            for i in range(num_grams):
                joined[i] = joined[i] * shifts[i + n - 1] + hashes[start + i + n - 1]
            if n <= MAX_TOP:
                for i in range(num_grams):
                    grams[i] = extend(grams[i], hashes[start + i + n - 1])
                best = _most_frequent(grams, num_grams, n, keys, stamps, stamp, mask, tallies, before)
                characters[document, n - MIN_TOP] = best
            else:
                copies = _copies(joined, num_grams, n, keys, stamps, stamp, mask, before)
                characters[document, n - MIN_TOP] = copies
    return characters


@njit(cache=True)
def _most_frequent(grams, num_grams, n, keys, stamps, stamp, mask, tallies, before):
    """Characters, blanks between words included, in all occurrences of the first most frequent n-gram."""
    top = 0
    for i in range(num_grams):
        slot, is_new = slot_of(keys, stamps, stamp, mask, grams[i])
        tallies[slot] = 1 if is_new else tallies[slot] + 1
        top = max(top, tallies[slot])
    for i in range(num_grams):
        slot, _ = slot_of(keys, stamps, stamp, mask, grams[i])
        if tallies[slot] == top:
            return (before[i + n] - before[i] + n - 1) * top
    return 0


@njit(cache=True)
def _copies(joined, num_grams, n, keys, stamps, stamp, mask, before):
    """Characters in copies of an n-gram met before; a copy is jumped over whole, and what it hides not
    met."""
    total, i = 0, 0
    while i < num_grams:
        # The polynomial's low bits depend on the last characters alone.
        _, is_new = slot_of(keys, stamps, stamp, mask, finalize(joined[i]))
        if is_new:
            i += 1
        else:
            total += before[i + n] - before[i]
            i += n
    return total


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
