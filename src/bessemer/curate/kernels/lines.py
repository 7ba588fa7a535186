"""Lines and paragraphs: how they begin, how they end, and which repeat.

A line is what lies between newlines, without whitespace at its ends; blank ones do not count. A
paragraph is a run of lines between blank ones. A duplicate is any copy after the first.
"""

import numpy as np
from numba import njit
from numpy.typing import NDArray

from bessemer.curate.kernels.characters import BULLET, CLOSING, SPACE, TERMINAL, decode_at
from bessemer.curate.kernels.hashing import FNV_OFFSET, FNV_PRIME, extend, finalize, insert, table_size

(
    NUM_LINES,
    NUM_LINE_CHARACTERS,
    NUM_BULLET,
    NUM_ELLIPSIS,
    NUM_TERMINAL,
    NUM_SHORT,
    NUM_DUPLICATE,
    NUM_DUPLICATE_CHARACTERS,
    NUM_PARAGRAPHS,
    NUM_DUPLICATE_PARAGRAPHS,
    NUM_DUPLICATE_PARAGRAPH_CHARACTERS,
    NUM_LONG,
) = range(12)
_NUM_COUNTS = 12
SHORT_LINE_CHARACTERS = 30
"""Penedo et al. 2024 (FineWeb), see the paper: lines shorter than 30 characters."""
LONG_LINE_CHARACTERS = 200
"""Xue et al. 2021 (mC4), see the paper: pages with at least three lines of 200 characters or more."""
_ELLIPSIS = 0x2026
_FULL_STOP = 0x2E
_NEWLINE = 0x0A


@njit(cache=True)
def count_lines(
    buffer: NDArray[np.uint8], offsets: NDArray[np.int64], classes: NDArray[np.uint8]
) -> NDArray[np.int64]:
    """Counts [documents, 12] in the order of the module's NUM_ constants; characters are code points."""
    num_documents = len(offsets) - 1
    counts = np.zeros((num_documents, _NUM_COUNTS), np.int64)
    for document in range(num_documents):
        position, end = offsets[document], offsets[document + 1]
        num_newlines = 0
        for i in range(position, end):
            num_newlines += buffer[i] == 10
        size = table_size(num_newlines + 1)
        line_keys, line_used = np.empty(size, np.uint64), np.zeros(size, np.bool_)
        paragraph_keys, paragraph_used = np.empty(size, np.uint64), np.zeros(size, np.bool_)
        paragraph, paragraph_characters = FNV_OFFSET, 0
        row = counts[document]
        while position <= end:
            line, length, first, last, num_stops, is_terminal, position = _scan_line(
                buffer, position, end, classes
            )
            if length > 0:
                row[NUM_LINES] += 1
                row[NUM_LINE_CHARACTERS] += length
                row[NUM_BULLET] += (classes[first] & BULLET) != 0
                row[NUM_ELLIPSIS] += last == _ELLIPSIS or num_stops >= 3
                row[NUM_TERMINAL] += is_terminal
                row[NUM_SHORT] += length < SHORT_LINE_CHARACTERS
                row[NUM_LONG] += length >= LONG_LINE_CHARACTERS
                _, is_new = insert(line_keys, line_used, size - 1, line)
                if not is_new:
                    row[NUM_DUPLICATE] += 1
                    row[NUM_DUPLICATE_CHARACTERS] += length
                paragraph = extend(paragraph, line)
                paragraph_characters += length
            if paragraph_characters > 0 and (length == 0 or position > end):
                row[NUM_PARAGRAPHS] += 1
                _, is_new = insert(paragraph_keys, paragraph_used, size - 1, paragraph)
                if not is_new:
                    row[NUM_DUPLICATE_PARAGRAPHS] += 1
                    row[NUM_DUPLICATE_PARAGRAPH_CHARACTERS] += paragraph_characters
                paragraph, paragraph_characters = FNV_OFFSET, 0
    return counts


@njit(cache=True)
def _scan_line(buffer, position, end, classes):
    """The line from `position`: hash, length, first code point, how it ends, and where the next one begins.

    Whitespace at the ends is left out. How it ends: the last code point, the number of full stops there,
    and whether a terminal mark stands there (closing quotes and brackets may follow it). The next line
    begins beyond `end` when this one was the last.
    """
    state, length = FNV_OFFSET, 0
    first, last, num_stops, is_terminal = np.uint32(0), np.uint32(0), 0, False
    inner_state, inner_length = FNV_OFFSET, 0
    while position < end:
        code_point, after = decode_at(buffer, position)
        if code_point == _NEWLINE:
            return finalize(state), length, first, last, num_stops, is_terminal, after
        position = after
        kind = classes[code_point]
        if kind & SPACE:
            # Whitespace belongs to the line only once something follows it.
            if length > 0:
                inner_state = state if inner_length == 0 else inner_state
                inner_state = (inner_state ^ np.uint64(code_point)) * FNV_PRIME
                inner_length += 1
            continue
        if inner_length > 0:
            state, length, inner_length = inner_state, length + inner_length, 0
            num_stops = 0
        first = code_point if length == 0 else first
        last = code_point
        state = (state ^ np.uint64(code_point)) * FNV_PRIME
        length += 1
        num_stops = num_stops + 1 if code_point == _FULL_STOP else 0
        if not kind & CLOSING:
            is_terminal = (kind & TERMINAL) != 0
    return finalize(state), length, first, last, num_stops, is_terminal, end + 1
