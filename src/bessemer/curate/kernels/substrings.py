"""Runs of words that occur in several documents: seeds by winnowing, matches by extending them."""

import numpy as np
from numba import njit
from numpy.typing import NDArray

from bessemer.curate.kernels.characters import SPACE, decode_at
from bessemer.curate.kernels.hashing import FNV_OFFSET, extend, finalize

_BASE = np.uint64(0x5851F42D4C957F2D)
"""Odd multiplier of the rolling hash (Knuth's MMIX constant)."""
_NEWLINE = 10


@njit(cache=True)
def winnow(hashes: NDArray[np.uint64], offsets: NDArray[np.int64], gram_words: int, window_grams: int):
    """Robust winnowing (Schleimer, Wilkerson, Aiken 2003, section 3).

    Of every `window_grams` consecutive n-grams of `gram_words` words the one of least hash is taken, an
    earlier choice again where it still is one. Two documents that share a run of at least
    `gram_words + window_grams - 1` words share a chosen n-gram within it. Returns `seeds` uint64, their
    `documents` and `positions` (word index in the document), in order.
    """
    num_documents = len(offsets) - 1
    seeds = np.empty(len(hashes), np.uint64)
    documents = np.empty(len(hashes), np.int64)
    positions = np.empty(len(hashes), np.int64)
    leaving = np.uint64(1)
    for _ in range(gram_words):
        leaving *= _BASE
    filled = 0
    for document in range(num_documents):
        words = hashes[offsets[document] : offsets[document + 1]]
        num_grams = len(words) - gram_words + 1
        if num_grams < window_grams:
            continue
        grams = _rolling(words, gram_words, leaving)
        chosen = np.int64(-1)
        for last in range(window_grams - 1, num_grams):
            first = last - window_grams + 1
            before = chosen
            if chosen < first:
                chosen = first
                for i in range(first + 1, last + 1):
                    if grams[i] <= grams[chosen]:
                        chosen = i
            elif grams[last] < grams[chosen]:
                chosen = last
            if chosen != before:
                seeds[filled] = grams[chosen]
                documents[filled] = document
                positions[filled] = chosen
                filled += 1
    return seeds[:filled].copy(), documents[:filled].copy(), positions[:filled].copy()


@njit(cache=True)
def _rolling(words, gram_words, leaving):
    grams = np.empty(len(words) - gram_words + 1, np.uint64)
    state = np.uint64(0)
    for i in range(len(words)):
        state = state * _BASE + words[i]
        if i >= gram_words:
            state -= words[i - gram_words] * leaving
        if i >= gram_words - 1:
            grams[i - gram_words + 1] = finalize(state)
    return grams


@njit(cache=True)
def words_per_line(
    buffer: NDArray[np.uint8], offsets: NDArray[np.int64], classes: NDArray[np.uint8]
) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """Number of words of every line, and offsets [documents + 1] into it; lines end at `\\n`."""
    num_documents = len(offsets) - 1
    counts = np.zeros(num_documents + (buffer == _NEWLINE).sum(), np.int32)
    line_offsets = np.zeros(num_documents + 1, np.int64)
    line = 0
    for document in range(num_documents):
        position, end = offsets[document], offsets[document + 1]
        is_in_word = False
        while position < end:
            code_point, position = decode_at(buffer, position)
            is_space = (classes[code_point] & SPACE) != 0
            if not is_space and not is_in_word:
                counts[line] += 1
            is_in_word = not is_space
            if code_point == _NEWLINE:
                line += 1
        line += 1
        line_offsets[document + 1] = line
    return counts[:line].copy(), line_offsets


@njit(cache=True)
def line_keys(
    hashes: NDArray[np.uint64], counts: NDArray[np.int32], min_words: int
) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    """Two 64-bit keys [lines, 2] of each line of at least `min_words` words, and the lines' numbers.

    `hashes` are the words of the lines, end to end, `counts` words to a line.
    """
    keys = np.empty((len(counts), 2), np.uint64)
    lines = np.empty(len(counts), np.int64)
    filled, position = 0, 0
    for line in range(len(counts)):
        if counts[line] >= min_words:
            first, second = FNV_OFFSET, ~FNV_OFFSET
            for i in range(position, position + counts[line]):
                first, second = extend(first, hashes[i]), extend(second, hashes[i])
            keys[filled, 0], keys[filled, 1] = first, second
            lines[filled] = line
            filled += 1
        position += counts[line]
    return keys[:filled].copy(), lines[:filled].copy()


@njit(cache=True)
def matches(
    words: NDArray[np.uint64],
    starts: NDArray[np.int64],
    ends: NDArray[np.int64],
    earlier: NDArray[np.int64],
    earlier_position: NDArray[np.int64],
    later: NDArray[np.int64],
    later_position: NDArray[np.int64],
    min_words: int,
):
    """Maximal common runs around nominated positions, of at least `min_words` words.

    Document `d` is `words[starts[d]:ends[d]]`. Pairs are in ascending order of (`later`,
    `later_position`). Returns the later documents and the runs' first and end word in them. A pair on the
    diagonal of a run that reaches beyond it is not extended again.
    """
    found_later = np.empty(len(later), np.int64)
    found_start = np.empty(len(later), np.int64)
    found_end = np.empty(len(later), np.int64)
    open_document = np.empty(len(later), np.int64)
    open_diagonal = np.empty(len(later), np.int64)
    open_end = np.empty(len(later), np.int64)
    filled, num_open = 0, 0
    for pair in range(len(later)):
        b, at_b = later[pair], later_position[pair]
        a, at_a = earlier[pair], earlier_position[pair]
        if pair == 0 or later[pair - 1] != b:
            num_open = 0
        is_known = False
        num_still_open = 0
        for i in range(num_open):
            if open_end[i] <= at_b:
                continue
            is_known = is_known or (open_document[i] == a and open_diagonal[i] == at_b - at_a)
            open_document[num_still_open] = open_document[i]
            open_diagonal[num_still_open] = open_diagonal[i]
            open_end[num_still_open] = open_end[i]
            num_still_open += 1
        num_open = num_still_open
        if is_known:
            continue
        left, right = _extend_both(words[starts[a] : ends[a]], words[starts[b] : ends[b]], at_a, at_b)
        if right <= left:
            continue
        open_document[num_open], open_diagonal[num_open], open_end[num_open] = a, at_b - at_a, right
        num_open += 1
        if right - left >= min_words:
            found_later[filled], found_start[filled], found_end[filled] = b, left, right
            filled += 1
    return found_later[:filled].copy(), found_start[:filled].copy(), found_end[:filled].copy()


@njit(cache=True)
def _extend_both(a, b, at_a, at_b):
    """First and end word in `b` of the common run that holds the two positions; empty when they differ."""
    if a[at_a] != b[at_b]:
        return at_b, at_b
    left = 0
    while at_a - left > 0 and at_b - left > 0 and a[at_a - left - 1] == b[at_b - left - 1]:
        left += 1
    right = 1
    while at_a + right < len(a) and at_b + right < len(b) and a[at_a + right] == b[at_b + right]:
        right += 1
    return at_b - left, at_b + right


@njit(cache=True)
def covered_lines(
    counts: NDArray[np.int32], starts: NDArray[np.int64], ends: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Lines of one document whose every word lies in the union of intervals; lines without words never.

    `counts`: words to a line; intervals in ascending order of `starts`.
    """
    is_covered = np.zeros(counts.sum(), np.bool_)
    reached = 0
    for i in range(len(starts)):
        for word in range(max(starts[i], reached), ends[i]):
            is_covered[word] = True
        reached = max(reached, ends[i])
    lines = np.empty(len(counts), np.int64)
    filled, position = 0, 0
    for line in range(len(counts)):
        end = position + counts[line]
        if counts[line] > 0 and is_covered[position:end].all():
            lines[filled] = line
            filled += 1
        position = end
    return lines[:filled].copy()
