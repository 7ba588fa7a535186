"""Splitting one chunk (a run without whitespace) into tokens as spaCy's English tokenizer does.

Code points come as an array; a token is a half-open range of it. In order: exceptions by list; signs cut
off both ends, again and again, until an exception or nothing is left to cut; a web address left whole; else
the inside cut at infixes; and last, neighbouring tokens that spell an exception joined into it.
(spaCy 3.8, `tokenizer.pyx`.) Time is linear in the length of the chunk.
"""

import numpy as np
from numba import njit

from bessemer.curate.kernels.spacy_tables import (
    ALPHA,
    CURRENCY,
    DIGIT,
    DOT_FOLLOWS,
    HASH_BASE,
    INFIX,
    LONGEST_EXCEPTION,
    LONGEST_UNIT,
    LOWER,
    PREFIX,
    QUOTE,
    SUFFIX,
    UPPER,
)
from bessemer.curate.kernels.spacy_urls import is_url

_DOT, _PLUS, _APOSTROPHE, _CURLY, _DEGREE = ord("."), ord("+"), ord("'"), ord("’"), ord("°")
_SMALL_S, _LARGE_S, _DOLLAR, _A, _C, _U = ord("s"), ord("S"), ord("$"), ord("A"), ord("C"), ord("U")
_ELLIPSIS, _COMMA, _HYPHEN, _EM_DASH = ord("…"), ord(","), ord("-"), ord("—")
_MOST_MERGED = 11
_NONE = -1


@njit(cache=True)
def hash_range(codes, start, end):
    """Polynomial hash of code points, modulo 2^64."""
    state = np.uint64(0)
    for i in range(start, end):
        state = state * HASH_BASE + np.uint64(codes[i]) + np.uint64(1)
    return state


@njit(cache=True)
def find_exception(codes, start, end, keys):
    """Slot of the exception that the range spells, or -1."""
    if end - start > LONGEST_EXCEPTION:
        return _NONE
    return find_slot(keys, hash_range(codes, start, end))


@njit(cache=True)
def find_slot(keys, key):
    """Slot of a key in the table of exceptions, or -1."""
    mask = np.uint64(len(keys) - 1)
    slot = (key >> np.uint64(20)) & mask
    while keys[slot] != 0:
        if keys[slot] == key:
            return np.int64(slot)
        slot = (slot + np.uint64(1)) & mask
    return _NONE


@njit(cache=True)
def split_chunk(codes, start, end, tables, starts, ends):
    """Tokens of a chunk into `starts` and `ends` (room for one each code point); returns their number."""
    num_tokens, num_suffixes = 0, 0
    room = end - start
    classes, keys, units = tables.classes, tables.keys, tables.units
    # Suffixes are found last one first: they are kept from the far end of the arrays.
    last_length, is_exception = -1, False
    while end > start and end - start != last_length:
        if find_exception(codes, start, end, keys) >= 0:
            is_exception = True
            break
        last_length = end - start
        prefix = _prefix_length(codes, start, end, classes)
        if prefix > 0 and find_exception(codes, start + prefix, end, keys) >= 0:
            starts[num_tokens], ends[num_tokens] = start, start + prefix
            num_tokens += 1
            start += prefix
            is_exception = True
            break
        suffix = _suffix_length(codes, start + prefix, end, classes, units)
        if suffix > 0 and find_exception(codes, start, end - suffix, keys) >= 0:
            num_suffixes += 1
            starts[room - num_suffixes], ends[room - num_suffixes] = end - suffix, end
            end -= suffix
            is_exception = True
            break
        if prefix > 0:
            starts[num_tokens], ends[num_tokens] = start, start + prefix
            num_tokens += 1
            start += prefix
        if suffix > 0:
            num_suffixes += 1
            starts[room - num_suffixes], ends[room - num_suffixes] = end - suffix, end
            end -= suffix
    if end > start:
        if is_exception:
            num_tokens = _append_exception(codes, start, end, tables, starts, ends, num_tokens)
        else:
            num_tokens = _split_inside(codes, start, end, tables.classes, starts, ends, num_tokens)
    for i in range(room - num_suffixes, room):
        starts[num_tokens], ends[num_tokens] = starts[i], ends[i]
        num_tokens += 1
    if num_tokens > 1:
        num_tokens = _merge(codes, tables, starts, ends, num_tokens)
    return num_tokens


@njit(cache=True)
def _append_exception(codes, start, end, tables, starts, ends, num_tokens):
    slot = find_exception(codes, start, end, tables.keys)
    pieces = tables.pieces
    position = start
    for i in range(pieces.shape[1]):
        piece = pieces[slot, i]
        if piece == 0:
            break
        starts[num_tokens], ends[num_tokens] = position, position + piece
        position += piece
        num_tokens += 1
    return num_tokens


@njit(cache=True)
def _prefix_length(codes, start, end, classes):
    """Code points to cut off the front: a sign, a run of full stops, a currency, a plus before no digit."""
    code = codes[start]
    if classes[code] & PREFIX:
        return 1
    if code == _DOT:
        position = start + 1
        while position < end and codes[position] == _DOT:
            position += 1
        return position - start if position - start > 1 else 0
    if code == _PLUS:
        return 0 if start + 1 < end and classes[codes[start + 1]] & DIGIT else 1
    return _letters_of_dollar(codes, start, end)


@njit(cache=True)
def _letters_of_dollar(codes, start, end):
    """Length of US$, C$ or A$ at `start`, else 0."""
    code = codes[start]
    if (code == _C or code == _A) and start + 1 < end and codes[start + 1] == _DOLLAR:  # noqa: SIM109
        return 2
    if code == _U and start + 2 < end and codes[start + 1] == _LARGE_S and codes[start + 2] == _DOLLAR:
        return 3
    return 0


@njit(cache=True)
def _suffix_length(codes, start, end, classes, units):
    """Code points to cut off the back: of several rules that apply, the one that cuts most."""
    if end <= start:
        return 0
    code = codes[end - 1]
    longest = 1 if classes[code] & SUFFIX else 0
    before = classes[codes[end - 2]] if end - 2 >= start else 0
    if code == _DOT:
        return max(longest, _dots_length(codes, start, end, classes))
    if code == _ELLIPSIS:
        return 2 if end - 2 >= start and codes[end - 2] == _ELLIPSIS else 1
    if code == _SMALL_S or code == _LARGE_S:  # noqa: SIM109
        if end - 2 >= start and (codes[end - 2] == _APOSTROPHE or codes[end - 2] == _CURLY):
            longest = 2
    elif code == _PLUS and before & DIGIT:
        longest = 1
    if classes[code] & CURRENCY:
        if before & DIGIT:
            longest = max(longest, 1)
        if code == _DOLLAR:
            for length in (2, 3):
                place = end - length
                if place - 1 >= start and classes[codes[place - 1]] & DIGIT:  # noqa: SIM102
                    if _letters_of_dollar(codes, place, end) == length:
                        longest = length
    for length in range(longest + 1, LONGEST_UNIT + 1):
        place = end - length - 1
        if place < start:
            break
        if classes[codes[place]] & DIGIT:
            key = hash_range(codes, place + 1, end)
            index = np.searchsorted(units, key)
            if index < len(units) and units[index] == key:
                longest = length
    return longest


@njit(cache=True)
def _dots_length(codes, start, end, classes):
    """Full stops at the end: a run of several, or one behind what a sentence ends with."""
    position = end - 1
    while position > start and codes[position - 1] == _DOT:
        position -= 1
    if end - position > 1:
        return end - position
    if end - 2 < start:
        return 0
    before = codes[end - 2]
    if classes[before] & DOT_FOLLOWS:
        return 1
    if end - 3 >= start:
        if classes[before] & UPPER and classes[codes[end - 3]] & UPPER:
            return 1
        # °F. and its like.
        if codes[end - 3] == _DEGREE and (before == 67 or before == 70 or before == 75):
            return 1
    return 0


@njit(cache=True)
def _infix_length(codes, start, position, end, classes):
    """Length of the infix at a position of the range, else 0."""
    code = codes[position]
    kind = classes[code]
    if code == _DOT and position + 1 < end and codes[position + 1] == _DOT:
        after = position + 2
        while after < end and codes[after] == _DOT:
            after += 1
        return after - position
    if kind & INFIX:
        return 1
    if position == start or position + 1 >= end:
        return 0
    before, after = classes[codes[position - 1]], classes[codes[position + 1]]
    is_hyphen = code == _HYPHEN
    if code == _PLUS or is_hyphen or code == 42 or code == 94:  # noqa: SIM102
        if before & DIGIT and (after & DIGIT or codes[position + 1] == _HYPHEN):
            return 1
    if code == _DOT:
        return 1 if before & (LOWER | QUOTE) and after & (UPPER | QUOTE) else 0
    if code == _COMMA:
        return 1 if before & ALPHA and after & ALPHA else 0
    if not before & (ALPHA | DIGIT):
        return 0
    if is_hyphen or code == 0x2013 or code == _EM_DASH or code == 0x7E:
        return _dashes_length(codes, position, end, classes)
    if (code == 58 or code == 60 or code == 62 or code == 61 or code == 47) and after & ALPHA:
        return 1
    return 0


@njit(cache=True)
def _dashes_length(codes, position, end, classes):
    """Dashes between letters: one of any kind, two or three hyphens, two em dashes."""
    code = codes[position]
    most = 3 if code == _HYPHEN else 2 if code == _EM_DASH else 1
    length = 1
    while length < most and position + length < end and codes[position + length] == code:
        length += 1
    follows = position + length
    return length if follows < end and classes[codes[follows]] & ALPHA else 0


@njit(cache=True)
def _split_inside(codes, start, end, classes, starts, ends, num_tokens):
    """The range as one token, or cut at its infixes unless it is a web address."""
    is_checked = False
    token_start = start
    position = start
    while position < end:
        length = _infix_length(codes, start, position, end, classes)
        # An infix that opens the range cuts nothing: the search goes on behind it.
        if length == 0 or position == start:
            position += max(length, 1)
            continue
        if not is_checked:
            if is_url(codes, start, end, classes):
                break
            is_checked = True
        if position > token_start:
            starts[num_tokens], ends[num_tokens] = token_start, position
            num_tokens += 1
        starts[num_tokens], ends[num_tokens] = position, position + length
        num_tokens += 1
        position += length
        token_start = position
    if token_start < end:
        starts[num_tokens], ends[num_tokens] = token_start, end
        num_tokens += 1
    return num_tokens


@njit(cache=True)
def _merge(codes, tables, starts, ends, num_tokens):
    """Join neighbouring tokens that are an exception taken apart: longest first, then leftmost."""
    keys, merges = tables.keys, tables.merges
    first_signs, second_signs = tables.first_signs, tables.second_signs
    widest = 0
    for i in range(num_tokens - 1):
        if first_signs[codes[starts[i]] & 255] and second_signs[codes[starts[i + 1]] & 255]:
            for width in range(min(_MOST_MERGED, num_tokens - i), 1, -1):
                if _merge_slot(codes, keys, merges, starts, ends, i, width) >= 0:
                    widest = max(widest, width)
                    break
    if widest == 0:
        return num_tokens
    # -1: free, -2: within a match, otherwise the slot of the exception that starts here.
    marks = np.full(num_tokens, -1, np.int64)
    widths = np.zeros(num_tokens, np.int64)
    for width in range(widest, 1, -1):
        for i in range(num_tokens - width + 1):
            if not (first_signs[codes[starts[i]] & 255] and second_signs[codes[starts[i + 1]] & 255]):
                continue
            slot = _merge_slot(codes, keys, merges, starts, ends, i, width)
            if slot < 0:
                continue
            is_free = marks[i] == -1 and marks[i + width - 1] == -1
            for j in range(i, i + width):
                marks[j] = -2 if marks[j] == -1 else marks[j]
            if is_free:
                marks[i] = slot
                widths[i] = width
    merged_starts, merged_ends = starts[:num_tokens].copy(), ends[:num_tokens].copy()
    num_merged, i = 0, 0
    while i < num_tokens:
        if marks[i] < 0:
            starts[num_merged], ends[num_merged] = merged_starts[i], merged_ends[i]
            num_merged += 1
            i += 1
            continue
        first, last = merged_starts[i], merged_ends[i + widths[i] - 1]
        num_merged = _append_exception(codes, first, last, tables, starts, ends, num_merged)
        i += widths[i]
    return num_merged


@njit(cache=True)
def _merge_slot(codes, keys, merges, starts, ends, i, width):
    """Slot of the exception that the tokens from `i` on are the rules' view of, or -1."""
    first, last = starts[i], ends[i + width - 1]
    if last - first > LONGEST_EXCEPTION:
        return _NONE
    slot = find_exception(codes, first, last, keys)
    if slot < 0:
        return _NONE
    lengths = np.int64(0)
    for j in range(i + width - 1, i - 1, -1):
        lengths = lengths * 16 + (ends[j] - starts[j])
    return slot if merges[slot] == lengths else _NONE
