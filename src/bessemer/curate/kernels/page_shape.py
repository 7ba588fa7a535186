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


def _name_hash(name: str) -> int:
    state = int(FNV_OFFSET)
    for byte in name.encode():
        state = ((state ^ byte) * int(FNV_PRIME)) % 2**64
    return state


def _name_hashes(names: str) -> NDArray[np.uint64]:
    return np.array(sorted(_name_hash(name) for name in names.split()), np.uint64)


_UNCOUNTED_HASHES = _name_hashes(f"{_VOID} {_END_TAG_OPTIONAL}")
_FORMATTING_HASHES = _name_hashes(_FORMATTING)


def page_shape(html: str) -> PageShape:
    """See `PageShape`. Takes linear time."""
    buffer = np.frombuffer(html.encode("utf-8", "replace"), np.uint8)
    return PageShape(*map(int, _measure(buffer, _UNCOUNTED_HASHES, _FORMATTING_HASHES)))


@njit(cache=True)
def _measure(buffer: NDArray[np.uint8], uncounted: NDArray[np.uint64], formatting: NDArray[np.uint64]):
    depth, deepest, num_tags, num_formatting, steps, copies, longest, most = 0, 0, 0, 0, 0, 0, 0, 0
    end = len(buffer)
    position, end_of_tag = 0, 0
    while position < end:
        if buffer[position] != _LESS:
            position += 1
            continue
        num_tags += 1
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
        if _is_in(uncounted, state):
            continue
        step = -1 if is_closing else 1
        depth = max(0, depth + step)
        deepest = max(deepest, depth)
        if _is_in(formatting, state):
            num_formatting = max(0, num_formatting + step)
    return deepest, num_tags, steps, copies, longest, most


@njit(cache=True)
def _is_in(hashes, state):
    index = np.searchsorted(hashes, state)
    return index < len(hashes) and hashes[index] == state


@njit(cache=True)
def _end_of_tag(buffer, position):
    """Where the `>` of a tag is, from the end of its name on, and how many attributes lie before it.

    Inside a quoted value `>` does not count. HTML Living Standard, sections 13.2.5.32 to 13.2.5.39.
    """
    quote, is_after_equals, is_in_name, is_in_value, num_attributes = 0, False, False, False, 0
    while position < len(buffer):
        byte = buffer[position]
        if quote:
            if byte == quote:
                quote = 0
        elif byte == _GREATER:
            break
        elif byte == 32 or 9 <= byte <= 13:
            is_in_name, is_in_value = False, False
        elif is_in_value:
            pass
        elif is_after_equals:
            is_after_equals = False
            if byte in (_QUOTE, _APOSTROPHE):
                quote = byte
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
    return position, num_attributes
