"""How deeply the elements of an HTML page nest, judged from its tags alone, before any parser sees it."""

import numpy as np
from numba import njit
from numpy.typing import NDArray

from bessemer.curate.kernels.hashing import FNV_OFFSET, FNV_PRIME

_VOID = "area base br col embed hr img input link meta param source track wbr"
"""Elements without content: HTML Living Standard, section 13.1.2."""
_END_TAG_OPTIONAL = "body colgroup dd dt head html li optgroup option p rp rt tbody td tfoot th thead tr"
"""Section 13.1.2.4. They close themselves when left open, and where they truly nest, a list or table that
counts lies between."""
_LESS, _SLASH = ord("<"), ord("/")


def _name_hash(name: str) -> int:
    state = int(FNV_OFFSET)
    for byte in name.encode():
        state = ((state ^ byte) * int(FNV_PRIME)) % 2**64
    return state


_UNCOUNTED_HASHES = np.array(
    sorted(_name_hash(name) for name in f"{_VOID} {_END_TAG_OPTIONAL}".split()), np.uint64
)


def nesting_depth(html: str) -> int:
    """Upper estimate of the number of elements open at once; tags inside comments and scripts count too."""
    buffer = np.frombuffer(html.encode("utf-8", "replace"), np.uint8)
    return int(_deepest(buffer, _UNCOUNTED_HASHES))


@njit(cache=True)
def _deepest(buffer: NDArray[np.uint8], uncounted: NDArray[np.uint64]) -> int:
    depth, deepest = 0, 0
    end = len(buffer)
    position = 0
    while position < end - 1:
        if buffer[position] != _LESS:
            position += 1
            continue
        position += 1
        is_closing = buffer[position] == _SLASH
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
        index = np.searchsorted(uncounted, state)
        if index < len(uncounted) and uncounted[index] == state:
            continue
        depth = max(0, depth - 1) if is_closing else depth + 1
        deepest = max(deepest, depth)
    return deepest
