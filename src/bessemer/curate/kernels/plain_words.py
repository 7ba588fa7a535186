"""Words between whitespace exactly as written, and what dolma 1.2.1 (`taggers/gopher.py`) counts of them."""

import numpy as np
from numba import njit
from numpy.typing import NDArray

from bessemer.curate.kernels.decoding import decode, longest_span
from bessemer.curate.kernels.hashing import FNV_OFFSET, FNV_PRIME, finalize, insert, table_size
from bessemer.curate.kernels.marks import LETTER, SPACE

(
    NUM_WORDS,
    NUM_WORD_CHARACTERS,
    NUM_SYMBOL_WORDS,
    NUM_ALPHABETIC,
    NUM_STOP_WORDS,
    NUM_LINES,
    NUM_BULLET,
    NUM_ELLIPSIS,
    NUM_REPEATED,
    NUM_REPEATED_CHARACTERS,
    TWICE_MEDIAN_LENGTH,
) = range(11)
_NUM_COUNTS = 11
_NEWLINE, _HASH, _STAR, _DASH, _ELLIPSIS = 10, 35, 42, 45, 0x2026


@njit(cache=True)
def split_plain_words(
    buffer: NDArray[np.uint8],
    offsets: NDArray[np.int64],
    marks: NDArray[np.uint16],
    stop_words: NDArray[np.uint64],
):
    """`hashes` uint64 and `lengths` int32 [words], `word_offsets` int64 [documents + 1], `counts` int64
    [documents, 11] in the order of the module's NUM_ constants.

    Repeated lines count every copy, the first one too; every stop word counts as often as it occurs.
    """
    num_documents = len(offsets) - 1
    codes = np.empty(longest_span(offsets), np.uint32)
    capacity = (offsets[-1] - offsets[0]) // 2 + num_documents + 1
    hashes, lengths = np.empty(capacity, np.uint64), np.empty(capacity, np.int32)
    word_offsets = np.zeros(num_documents + 1, np.int64)
    counts = np.zeros((num_documents, _NUM_COUNTS), np.int64)
    total = 0
    for document in range(num_documents):
        num_codes = decode(buffer, offsets[document], offsets[document + 1], codes)
        row = counts[document]
        first, position = total, 0
        while position < num_codes:
            if marks[codes[position]] & SPACE:
                position += 1
                continue
            state, start, kinds, has_symbol = FNV_OFFSET, position, 0, False
            while position < num_codes and not marks[codes[position]] & SPACE:
                code = codes[position]
                kinds |= marks[code]
                has_symbol = has_symbol or code in (_HASH, _ELLIPSIS)
                state = (state ^ np.uint64(code)) * FNV_PRIME
                position += 1
            hashes[total], lengths[total] = finalize(state), position - start
            row[NUM_WORD_CHARACTERS] += position - start
            row[NUM_SYMBOL_WORDS] += has_symbol
            row[NUM_ALPHABETIC] += (kinds & LETTER) != 0
            for stop_word in stop_words:
                row[NUM_STOP_WORDS] += stop_word == hashes[total]
            total += 1
        row[NUM_WORDS] = total - first
        word_offsets[document + 1] = total
        row[TWICE_MEDIAN_LENGTH] = _twice_median(lengths[first:total])
        if num_codes:
            _count_lines(codes, num_codes, row)
    return hashes[:total].copy(), lengths[:total].copy(), word_offsets, counts


@njit(cache=True)
def _twice_median(lengths):
    """Sum of the two middle values; 0 for none."""
    if len(lengths) == 0:
        return 0
    ordered = np.sort(lengths)
    middle = len(ordered) // 2
    return ordered[middle] + ordered[middle if len(ordered) % 2 else middle - 1]


@njit(cache=True)
def _count_lines(codes, num_codes, row):
    """Lines between newlines as they stand, empty ones too."""
    num_lines = 1
    for i in range(num_codes):
        num_lines += codes[i] == _NEWLINE
    size = table_size(num_lines)
    keys, is_used = np.empty(size, np.uint64), np.zeros(size, np.bool_)
    is_repeated = np.zeros(size, np.bool_)
    row[NUM_LINES] = num_lines
    position = 0
    while position <= num_codes:
        state, start = FNV_OFFSET, position
        while position < num_codes and codes[position] != _NEWLINE:
            state = (state ^ np.uint64(codes[position])) * FNV_PRIME
            position += 1
        length = position - start
        if length:
            row[NUM_BULLET] += codes[start] == _STAR or codes[start] == _DASH
            row[NUM_ELLIPSIS] += codes[position - 1] == _ELLIPSIS
        slot, is_new = insert(keys, is_used, size - 1, finalize(state))
        if not is_new:
            copies = 1 if is_repeated[slot] else 2
            is_repeated[slot] = True
            row[NUM_REPEATED] += copies
            row[NUM_REPEATED_CHARACTERS] += copies * length
        position += 1
