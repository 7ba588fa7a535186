"""How much work an HTML page makes, judged from its tags alone, before any parser sees it.

HTML parsing is not linear in the worst case: an end tag looks through all open elements, extraction walks
from elements to the root, and formatting elements left open are made anew in each paragraph (HTML Living
Standard, section 13.2.4.3, "reconstruct the active formatting elements"), so that 18 kB can take a gigabyte.
"""

from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from bessemer.curate.kernels.hashing import FNV_OFFSET, FNV_PRIME

_VOID = "area base br col embed hr img input link meta param source track wbr"
"""Elements without content: HTML Living Standard, section 13.1.2."""
_END_TAG_OPTIONAL = "body colgroup dd dt head html li optgroup option p rp rt tbody td tfoot th thead tr"
"""Section 13.1.2.4. They close themselves when left open, and where they truly nest, a list or table that
counts lies between."""
_FORMATTING = "b big code em font i nobr s small strike strong tt u"
"""Section 13.2.4.2, without `a`, of which a second one closes the first."""
_BREAKS = "p div br"
"""What starts a new line in a cell."""
_NOT_FIGURES = "pre ul ol form script h1 h2 h3"
"""What a table of figures and short texts does not hold, besides tables."""
_OPTIONS = "option optgroup"
LONE_LETTERS = (
    (0x900, 0x1FFF),
    (0x2713, 0x2718),
    (0x3005, 0x30FF),
    (0x3400, 0x9FFF),
    (0xAC00, 0xD7A3),
    (0xF900, 0xFAFF),
)
"""First and last code points: letters of many scripts that UTF-8 writes in three bytes, and check marks."""
_MOST_OPEN_TABLES = 64
_LESS, _GREATER, _SLASH, _EQUALS = ord("<"), ord(">"), ord("/"), ord("=")
_QUOTE, _APOSTROPHE = ord('"'), ord("'")


class PageShape(NamedTuple):
    """Upper estimates; tags inside comments and scripts count too."""

    depth: int
    """Elements open at once."""
    num_tags: int
    """`<` signs."""
    steps: int
    """Sum over all tags of the depth at each."""
    copies: int
    """Sum over all tags of the formatting elements open at each."""
    longest_tag: int
    """Bytes of the longest tag, attributes included."""
    most_attributes: int
    """Attributes on one tag."""
    tables_of_figures: int
    """Tables with line breaks in them, but no other table, list, form, script, code or heading."""
    lone_letters: int
    """Characters of LONE_LETTERS that are, but for blanks, all that stands between two tags."""
    num_options: int
    """Start and end tags of options of forms and of their groups."""


def _name_hash(name: str) -> int:
    state = int(FNV_OFFSET)
    for byte in name.encode():
        state = ((state ^ byte) * int(FNV_PRIME)) % 2**64
    return state


def _name_hashes(names: str) -> NDArray[np.uint64]:
    return np.array(sorted(_name_hash(name) for name in names.split()), np.uint64)


_UNCOUNTED_HASHES = _name_hashes(f"{_VOID} {_END_TAG_OPTIONAL}")
_FORMATTING_HASHES = _name_hashes(_FORMATTING)
_BREAKS_HASHES = _name_hashes(_BREAKS)
_NOT_FIGURES_HASHES = _name_hashes(_NOT_FIGURES)
_OPTIONS_HASHES = _name_hashes(_OPTIONS)
_TABLE_HASH = np.uint64(_name_hash("table"))


def page_shape(html: str) -> PageShape:
    """See `PageShape`. Takes linear time."""
    buffer = np.frombuffer(html.encode("utf-8", "replace"), np.uint8)
    found = _measure(
        buffer,
        _UNCOUNTED_HASHES,
        _FORMATTING_HASHES,
        _TABLE_HASH,
        _BREAKS_HASHES,
        _NOT_FIGURES_HASHES,
        _OPTIONS_HASHES,
    )
    return PageShape(*map(int, found))


@njit(cache=True)
def _measure(
    buffer: NDArray[np.uint8],
    uncounted: NDArray[np.uint64],
    formatting: NDArray[np.uint64],
    table: np.uint64,
    breaks: NDArray[np.uint64],
    not_figures: NDArray[np.uint64],
    options: NDArray[np.uint64],
):
    depth, deepest, num_tags, num_formatting, steps, copies, longest, most = 0, 0, 0, 0, 0, 0, 0, 0
    end = len(buffer)
    position, end_of_tag = 0, 0
    # Of the open tables, from the outside in.
    has_breaks, is_spoilt = np.zeros(_MOST_OPEN_TABLES, np.bool_), np.zeros(_MOST_OPEN_TABLES, np.bool_)
    num_open, num_tables, num_lone, num_options = 0, 0, 0, 0
    while position < end:
        if buffer[position] != _LESS:
            position += 1
            continue
        num_tags += 1
        num_lone += _is_behind_lone_letter(buffer, position)
        steps += depth
        copies += num_formatting
        position += 1
        is_closing = position < end and buffer[position] == _SLASH
        position += is_closing
        state, start = FNV_OFFSET, position
        while position < end:
            letter = buffer[position] | 0x20
            is_digit = position > start and 48 <= buffer[position] <= 57
            if not (97 <= letter <= 122 or is_digit):
                break
            state = (state ^ np.uint64(buffer[position] if is_digit else letter)) * FNV_PRIME
            position += 1
        if position == start:
            continue
        if position >= end_of_tag:  # else inside an attribute, and the tag is measured already
            end_of_tag, num_attributes = _end_of_tag(buffer, position)
            longest = max(longest, end_of_tag - position)
            most = max(most, num_attributes)
        if state == table:
            if is_closing:
                if num_open > 0:
                    num_open -= 1
                    num_tables += has_breaks[num_open] and not is_spoilt[num_open]
            else:
                if num_open > 0:
                    is_spoilt[num_open - 1] = True
                if num_open < _MOST_OPEN_TABLES:
                    has_breaks[num_open], is_spoilt[num_open] = False, False
                    num_open += 1
        elif num_open > 0:
            if _is_in(breaks, state):
                has_breaks[num_open - 1] = True
            elif not is_closing and _is_in(not_figures, state):
                is_spoilt[num_open - 1] = True
        if _is_in(uncounted, state):
            num_options += _is_in(options, state)
            continue
        step = -1 if is_closing else 1
        depth = max(0, depth + step)
        deepest = max(deepest, depth)
        if _is_in(formatting, state):
            num_formatting = max(0, num_formatting + step)
    for index in range(num_open):
        num_tables += has_breaks[index] and not is_spoilt[index]
    return deepest, num_tags, steps, copies, longest, most, num_tables, num_lone, num_options


@njit(cache=True)
def _is_behind_lone_letter(buffer, position):
    """Whether `>`, blanks, a letter of three bytes and blanks lead up to a position."""
    last = _before_blanks(buffer, position - 1)
    if last < 3 or buffer[last] & 0xC0 != 0x80 or buffer[last - 2] & 0xF0 != 0xE0:
        return False
    code_point = (buffer[last - 2] & 0xF) << 12 | (buffer[last - 1] & 0x3F) << 6 | (buffer[last] & 0x3F)
    is_letter = False
    for first, end in LONE_LETTERS:
        is_letter |= first <= code_point <= end
    if not is_letter:
        return False
    return buffer[_before_blanks(buffer, last - 3)] == _GREATER


@njit(cache=True)
def _before_blanks(buffer, position):
    while position > 0 and (buffer[position] == 32 or 9 <= buffer[position] <= 13):
        position -= 1
    return position


@njit(cache=True)
def _is_in(hashes, state):
    index = np.searchsorted(hashes, state)
    return index < len(hashes) and hashes[index] == state


@njit(cache=True)
def _end_of_tag(buffer, position):
    """Where the `>` of a tag is, from the end of its name on, and how many attributes lie before it.

    Inside a quoted value `>` does not count. HTML Living Standard, sections 13.2.5.32 to 13.2.5.39.
    """
    is_after_equals, is_in_name, is_in_value, num_attributes = False, False, False, 0
    end = len(buffer)
    while position < end:
        byte = buffer[position]
        if byte == _GREATER:
            break
        if byte == 32 or 9 <= byte <= 13:
            is_in_name, is_in_value = False, False
        elif is_in_value:
            pass
        elif is_after_equals:
            is_after_equals = False
            if byte in (_QUOTE, _APOSTROPHE):
                position += 1
                while position < end and buffer[position] != byte:
                    position += 1
            else:
                is_in_value = True
        elif byte == _EQUALS:
            is_after_equals, is_in_name = True, False
        elif byte == _SLASH:
            is_in_name = False
        elif not is_in_name:
            is_in_name = True
            num_attributes += 1
        position += 1
    return min(position, end), num_attributes
