"""Lines and paragraphs as datatrove 0.10.1 parts them, which differs from filter to filter.

Gopher repetition splits at runs of newlines and keeps whitespace; Gopher quality splits as `str.splitlines`
and counts blank lines; FineWeb splits at newlines and leaves out blank lines.
"""

import numpy as np
from numba import njit
from numpy.typing import NDArray

from bessemer.curate.kernels.decoding import decode, longest_span
from bessemer.curate.kernels.hashing import FNV_OFFSET, FNV_PRIME, extend, finalize, insert, table_size
from bessemer.curate.kernels.marks import LINE_BREAK, SPACE, STOP_MARK

(
    NUM_PIECES,
    NUM_DUPLICATE,
    NUM_DUPLICATE_CHARACTERS,
    NUM_PARAGRAPHS,
    NUM_DUPLICATE_PARAGRAPHS,
    NUM_DUPLICATE_PARAGRAPH_CHARACTERS,
    NUM_LINES,
    NUM_BULLET,
    NUM_ELLIPSIS,
    NUM_FILLED,
    NUM_STOPPED,
    NUM_SHORT,
    NUM_DUPLICATE_FILLED_CHARACTERS,
    NUM_NEWLINES,
    NUM_HASH_SIGNS,
    NUM_ELLIPSES,
) = range(16)
_NUM_COUNTS = 16
SHORT_LINE_CHARACTERS = 30
_NEWLINE, _RETURN, _DOT, _ELLIPSIS, _BULLET, _DASH, _HASH = 10, 13, 46, 0x2026, 0x2022, 45, 35


@njit(cache=True)
def count_datatrove_lines(
    buffer: NDArray[np.uint8], offsets: NDArray[np.int64], marks: NDArray[np.uint16]
) -> NDArray[np.int64]:
    """Counts [documents, 16] in the order of the module's NUM_ constants; characters are code points."""
    num_documents = len(offsets) - 1
    counts = np.zeros((num_documents, _NUM_COUNTS), np.int64)
    codes = np.empty(longest_span(offsets), np.uint32)
    for document in range(num_documents):
        num_codes = decode(buffer, offsets[document], offsets[document + 1], codes)
        _count_signs(codes, num_codes, counts[document])
        _count_newline_pieces(codes, num_codes, marks, counts[document])
        _count_paragraphs(codes, num_codes, marks, counts[document])
        _count_split_lines(codes, num_codes, marks, counts[document])
    return counts


@njit(cache=True)
def _count_signs(codes, num_codes, row):
    num_dots = 0
    for i in range(num_codes):
        code = codes[i]
        row[NUM_HASH_SIGNS] += code == _HASH
        row[NUM_NEWLINES] += code == _NEWLINE
        row[NUM_ELLIPSES] += code == _ELLIPSIS
        num_dots = num_dots + 1 if code == _DOT else 0
        row[NUM_ELLIPSES] += num_dots > 0 and num_dots % 3 == 0


@njit(cache=True)
def _count_newline_pieces(codes, num_codes, marks, row):
    """Gopher's repeated lines and all of FineWeb's: what lies between newlines, whitespace kept."""
    size = table_size(row[NUM_NEWLINES] + 2)
    keys, is_used = np.empty(size, np.uint64), np.zeros(size, np.bool_)
    position = 0
    num_empty_ends = 0
    if num_codes > 0 and row[NUM_NEWLINES] > 0:
        num_empty_ends = int(codes[0] == _NEWLINE) + int(codes[num_codes - 1] == _NEWLINE)
    row[NUM_PIECES] = num_empty_ends
    row[NUM_DUPLICATE] = num_empty_ends == 2
    while position < num_codes:
        state, start, is_blank = FNV_OFFSET, position, True
        while position < num_codes and codes[position] != _NEWLINE:
            code = codes[position]
            is_blank = is_blank and (marks[code] & SPACE) != 0
            state = (state ^ np.uint64(code)) * FNV_PRIME
            position += 1
        length = position - start
        if length > 0:
            row[NUM_PIECES] += 1
            _, is_new = insert(keys, is_used, size - 1, finalize(state))
            row[NUM_DUPLICATE] += not is_new
            row[NUM_DUPLICATE_CHARACTERS] += 0 if is_new else length
            if not is_blank:
                row[NUM_FILLED] += 1
                row[NUM_STOPPED] += (marks[codes[position - 1]] & STOP_MARK) != 0
                row[NUM_SHORT] += length <= SHORT_LINE_CHARACTERS
                row[NUM_DUPLICATE_FILLED_CHARACTERS] += 0 if is_new else length
        position += 1


@njit(cache=True)
def _count_paragraphs(codes, num_codes, marks, row):
    """What lies between runs of two newlines or more, in the text without whitespace at its ends."""
    start, end = 0, num_codes
    while start < end and marks[codes[start]] & SPACE:
        start += 1
    while end > start and marks[codes[end - 1]] & SPACE:
        end -= 1
    size = table_size(row[NUM_NEWLINES] + 2)
    keys, is_used = np.empty(size, np.uint64), np.zeros(size, np.bool_)
    position = start
    while position < end or position == start:
        state, length = FNV_OFFSET, 0
        while position < end:
            if codes[position] == _NEWLINE and position + 1 < end and codes[position + 1] == _NEWLINE:
                break
            state = (state ^ np.uint64(codes[position])) * FNV_PRIME
            length += 1
            position += 1
        row[NUM_PARAGRAPHS] += 1
        _, is_new = insert(keys, is_used, size - 1, extend(FNV_OFFSET, finalize(state)))
        if not is_new:
            row[NUM_DUPLICATE_PARAGRAPHS] += 1
            row[NUM_DUPLICATE_PARAGRAPH_CHARACTERS] += length
        if position >= end:
            break
        while position < end and codes[position] == _NEWLINE:
            position += 1


@njit(cache=True)
def next_break(codes, position, num_codes, marks):
    """Where the line that starts here ends, and where the next one starts, as `str.splitlines` has it."""
    while position < num_codes and not marks[codes[position]] & LINE_BREAK:
        position += 1
    after = position + 1
    if position + 1 < num_codes and codes[position] == _RETURN and codes[position + 1] == _NEWLINE:
        after += 1
    return position, after


@njit(cache=True)
def strip_range(codes, start, end, marks):
    """The range without whitespace at its ends."""
    while start < end and marks[codes[start]] & SPACE:
        start += 1
    while end > start and marks[codes[end - 1]] & SPACE:
        end -= 1
    return start, end


@njit(cache=True)
def _count_split_lines(codes, num_codes, marks, row):
    """Gopher quality: lines, blank ones too, that open with a bullet or close with an ellipsis."""
    position = 0
    while position < num_codes:
        end, after = next_break(codes, position, num_codes, marks)
        start, end = strip_range(codes, position, end, marks)
        row[NUM_LINES] += 1
        if end > start:
            row[NUM_BULLET] += codes[start] == _BULLET or codes[start] == _DASH
            is_dotted = end - start >= 3 and (
                codes[end - 1] == _DOT and codes[end - 2] == _DOT and codes[end - 3] == _DOT
            )
            row[NUM_ELLIPSIS] += codes[end - 1] == _ELLIPSIS or is_dotted
        position = after
