"""Lines and paragraphs as datatrove 0.10.1 parts them, which differs from filter to filter.

Gopher repetition splits at runs of newlines and keeps whitespace; Gopher quality splits as `str.splitlines`
and counts blank lines; FineWeb splits at newlines and leaves out blank lines.
"""

import numpy as np
from numba import njit
from numpy.typing import NDArray

from bessemer.curate.kernels.decoding import decode, longest_span
from bessemer.curate.kernels.hashing import finalize, insert, table_size
from bessemer.curate.kernels.marks import LINE_BREAK, SPACE, STOP_MARK
from bessemer.curate.kernels.spacy_tables import HASH_BASE

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
_ONE = np.uint64(1)


@njit(cache=True)
def count_datatrove_lines(
    buffer: NDArray[np.uint8], offsets: NDArray[np.int64], marks: NDArray[np.uint16]
) -> NDArray[np.int64]:
    """Counts [documents, 16] in the order of the module's NUM_ constants; characters are code points."""
    num_documents = len(offsets) - 1
    counts = np.zeros((num_documents, _NUM_COUNTS), np.int64)
    longest = longest_span(offsets)
    codes, breaks = np.empty(longest, np.uint32), np.empty(longest + 1, np.int64)
    prefixes, powers = np.empty(longest + 1, np.uint64), np.empty(longest + 1, np.uint64)
    powers[0] = 1
    for i in range(longest):
        powers[i + 1] = powers[i] * HASH_BASE
    for document in range(num_documents):
        num_codes = decode(buffer, offsets[document], offsets[document + 1], codes)
        text, row = codes[:num_codes], counts[document]
        num_breaks = _find_breaks(text, marks, breaks, row)
        _hash_prefixes(text, prefixes)
        _count_newline_pieces(text, marks, breaks[:num_breaks], prefixes, powers, row)
        _count_paragraphs(text, marks, breaks[:num_breaks], prefixes, powers, row)
        _count_split_lines(text, marks, breaks[:num_breaks], row)
    return counts


@njit(cache=True)
def _find_breaks(codes, marks, breaks, row):
    """Places of all line breaks into `breaks`; returns their number, and counts the signs."""
    num_breaks = np.uint64(0)
    num_hash, num_newlines, num_ellipses, num_dots = 0, 0, 0, 0
    for i in range(len(codes)):
        code = codes[i]
        breaks[num_breaks] = i
        num_breaks += np.uint64((marks[code] & LINE_BREAK) != 0)
        num_hash += code == _HASH
        num_newlines += code == _NEWLINE
        num_ellipses += code == _ELLIPSIS
        if code == _DOT:
            num_dots += 1
            num_ellipses += num_dots % 3 == 0
        else:
            num_dots = 0
    row[NUM_HASH_SIGNS], row[NUM_NEWLINES], row[NUM_ELLIPSES] = num_hash, num_newlines, num_ellipses
    return np.int64(num_breaks)


@njit(cache=True)
def _hash_prefixes(codes, prefixes):
    """Polynomial hashes, modulo 2^64, of the first 0, 1, … code points.

    Four at a time: the hashes within a block do not wait for those before it.
    """
    second, third = HASH_BASE * HASH_BASE, HASH_BASE * HASH_BASE * HASH_BASE
    fourth = third * HASH_BASE
    state = np.uint64(0)
    prefixes[0] = state
    num_blocks = len(codes) // 4
    for block in range(num_blocks):
        some, found = codes[4 * block : 4 * block + 4], prefixes[4 * block + 1 : 4 * block + 5]
        one = np.uint64(some[0]) + _ONE
        two = one * HASH_BASE + np.uint64(some[1]) + _ONE
        three = two * HASH_BASE + np.uint64(some[2]) + _ONE
        four = three * HASH_BASE + np.uint64(some[3]) + _ONE
        found[0], found[1] = state * HASH_BASE + one, state * second + two
        found[2] = state * third + three
        state = state * fourth + four
        found[3] = state
    for i in range(4 * num_blocks, len(codes)):
        state = state * HASH_BASE + np.uint64(codes[i]) + _ONE
        prefixes[i + 1] = state


@njit(cache=True)
def _hash_between(prefixes, powers, start, end):
    """Hash of a range, spread over all bits."""
    return finalize(prefixes[end] - prefixes[start] * powers[end - start])


@njit(cache=True)
def _count_newline_pieces(codes, marks, breaks, prefixes, powers, row):
    """Gopher's repeated lines and all of FineWeb's: what lies between newlines, whitespace kept."""
    num_codes = len(codes)
    size = table_size(row[NUM_NEWLINES] + 2)
    keys, is_used = np.empty(size, np.uint64), np.zeros(size, np.bool_)
    num_empty_ends = 0
    if num_codes > 0 and row[NUM_NEWLINES] > 0:
        num_empty_ends = int(codes[0] == _NEWLINE) + int(codes[num_codes - 1] == _NEWLINE)
    row[NUM_PIECES] = num_empty_ends
    row[NUM_DUPLICATE] = num_empty_ends == 2
    start = 0
    for i in range(len(breaks) + 1):
        end = breaks[i] if i < len(breaks) else num_codes
        if end < num_codes and codes[end] != _NEWLINE:
            continue
        length = end - start
        if length > 0:
            row[NUM_PIECES] += 1
            _, is_new = insert(keys, is_used, size - 1, _hash_between(prefixes, powers, start, end))
            row[NUM_DUPLICATE] += not is_new
            row[NUM_DUPLICATE_CHARACTERS] += 0 if is_new else length
            first, last = strip_range(codes, start, end, marks)
            if last > first:
                row[NUM_FILLED] += 1
                row[NUM_STOPPED] += (marks[codes[end - 1]] & STOP_MARK) != 0
                row[NUM_SHORT] += length <= SHORT_LINE_CHARACTERS
                row[NUM_DUPLICATE_FILLED_CHARACTERS] += 0 if is_new else length
        start = end + 1


@njit(cache=True)
def _count_paragraphs(codes, marks, breaks, prefixes, powers, row):
    """What lies between runs of two newlines or more, in the text without whitespace at its ends."""
    start, end = strip_range(codes, 0, len(codes), marks)
    size = table_size(row[NUM_NEWLINES] + 2)
    keys, is_used = np.empty(size, np.uint64), np.zeros(size, np.bool_)
    for i in range(len(breaks) + 1):
        stop = end
        if i < len(breaks):
            stop = breaks[i]
            if stop < start or stop + 1 >= end or codes[stop] != _NEWLINE or codes[stop + 1] != _NEWLINE:
                continue
        row[NUM_PARAGRAPHS] += 1
        _, is_new = insert(keys, is_used, size - 1, _hash_between(prefixes, powers, start, stop))
        if not is_new:
            row[NUM_DUPLICATE_PARAGRAPHS] += 1
            row[NUM_DUPLICATE_PARAGRAPH_CHARACTERS] += stop - start
        start = stop
        while start < end and codes[start] == _NEWLINE:
            start += 1


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
def _count_split_lines(codes, marks, breaks, row):
    """Gopher quality: lines, blank ones too, that open with a bullet or close with an ellipsis."""
    position = 0
    for i in range(len(breaks) + 1):
        stop = breaks[i] if i < len(breaks) else len(codes)
        if stop < position or (i == len(breaks) and position == stop):
            continue  # the second half of a CR LF, or no line behind the last break
        start, end = strip_range(codes, position, stop, marks)
        row[NUM_LINES] += 1
        if end > start:
            row[NUM_BULLET] += codes[start] == _BULLET or codes[start] == _DASH
            is_dotted = end - start >= 3 and (
                codes[end - 1] == _DOT and codes[end - 2] == _DOT and codes[end - 3] == _DOT
            )
            row[NUM_ELLIPSIS] += codes[end - 1] == _ELLIPSIS or is_dotted
        _, position = next_break(codes, stop, len(codes), marks)
