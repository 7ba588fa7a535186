"""Texts without regard to case and whitespace, as bytes to take digests of."""

import numpy as np
from numba import njit
from numpy.typing import NDArray

from bessemer.curate.kernels.characters import SPACE, decode_at

_BLANK = 32


@njit(cache=True)
def normal_texts(
    buffer: NDArray[np.uint8],
    offsets: NDArray[np.int64],
    classes: NDArray[np.uint8],
    lower: NDArray[np.uint32],
):
    """UTF-8 of each document in lower case, runs of whitespace as one blank, none at the ends.

    Returns the bytes and their offsets [documents + 1]. Lower case is by code point, see `CharacterTables`.
    """
    num_documents = len(offsets) - 1
    # No character of one byte grows, and one of two bytes (Ⱥ) to three at the most.
    normal = np.empty((offsets[-1] - offsets[0]) * 3 // 2 + 4, np.uint8)
    normal_offsets = np.zeros(num_documents + 1, np.int64)
    filled = 0
    for document in range(num_documents):
        position, end = offsets[document], offsets[document + 1]
        first = filled
        is_blank_due = False
        while position < end:
            byte = buffer[position]
            if byte < 0x80 and not is_blank_due and not classes[byte] & SPACE:
                normal[filled] = lower[byte]  # most of most texts
                filled += 1
                position += 1
                continue
            code_point, position = decode_at(buffer, position)
            if classes[code_point] & SPACE:
                is_blank_due = filled > first
                continue
            if is_blank_due:
                normal[filled] = _BLANK
                filled += 1
                is_blank_due = False
            filled = _encode(lower[code_point], normal, filled)
        normal_offsets[document + 1] = filled
    return normal[:filled], normal_offsets


@njit(cache=True)
def _encode(code_point, out, filled):
    """Write a code point as UTF-8; returns the place behind it."""
    if code_point < 0x80:
        out[filled] = code_point
        return filled + 1
    if code_point < 0x800:
        out[filled] = 0xC0 | (code_point >> 6)
        out[filled + 1] = 0x80 | (code_point & 0x3F)
        return filled + 2
    if code_point < 0x10000:
        out[filled] = 0xE0 | (code_point >> 12)
        out[filled + 1] = 0x80 | ((code_point >> 6) & 0x3F)
        out[filled + 2] = 0x80 | (code_point & 0x3F)
        return filled + 3
    out[filled] = 0xF0 | (code_point >> 18)
    out[filled + 1] = 0x80 | ((code_point >> 12) & 0x3F)
    out[filled + 2] = 0x80 | ((code_point >> 6) & 0x3F)
    out[filled + 3] = 0x80 | (code_point & 0x3F)
    return filled + 4
