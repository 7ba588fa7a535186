"""What a code point is (letter, whitespace, punctuation) and its lower-case form, as lookup tables.

Tables come from the Unicode database of the running Python, so the kernels agree with `str.isalpha`,
`str.isspace` and `str.lower` on every code point, ASCII or not.
"""

import unicodedata
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

NUM_CODE_POINTS = 0x110000
SPACE, LETTER, PUNCTUATION, BULLET, TERMINAL, CLOSING = 1, 2, 4, 8, 16, 32

BULLETS = "•‣●◦▪*-"
"""Characters that open a list item. Rae et al. 2021 (Gopher) say only "bullet point"."""
TERMINAL_MARKS = ".?!。？！"
"""Ends of a sentence: C4's marks (Raffel et al. 2020) and their full-width forms."""
CLOSING_MARKS = "\"'”’»)]"
"""May follow the end of a sentence within the same word."""

# Punctuation and symbols (categories P*, S*) are all below this; above are ideographs, tags, private use.
_PUNCTUATION_END = 0x20000
# Letters and whitespace are below this: above are unassigned planes, tags and private use.
_LETTERS_END = 0x40000


class CharacterTables(NamedTuple):
    """Lookup tables by code point."""

    classes: NDArray[np.uint8]
    """Bits SPACE, LETTER, PUNCTUATION (Unicode P* and S*), BULLET, TERMINAL, CLOSING."""
    lower: NDArray[np.uint32]
    """Lower-case code point; where lower-casing gives two (İ), the first."""


@lru_cache(maxsize=1)
def character_tables() -> CharacterTables:
    """Build the tables once per process."""
    code_points = np.arange(NUM_CODE_POINTS, dtype=np.uint32)
    characters = code_points[:_LETTERS_END].view("U1")
    classes = np.zeros(NUM_CODE_POINTS, np.uint8)
    classes[:_LETTERS_END][np.char.isspace(characters)] |= SPACE
    classes[:_LETTERS_END][np.char.isalpha(characters)] |= LETTER
    for code_point in np.flatnonzero(classes[:_PUNCTUATION_END] & LETTER == 0).tolist():
        if unicodedata.category(chr(code_point))[0] in "PS":
            classes[code_point] |= PUNCTUATION
    for bit, marks in ((BULLET, BULLETS), (TERMINAL, TERMINAL_MARKS), (CLOSING, CLOSING_MARKS)):
        for mark in marks:
            classes[ord(mark)] |= bit
    lower = code_points.copy()
    capitals = np.flatnonzero(np.char.isupper(characters) | np.char.istitle(characters))
    lower[capitals] = [ord(chr(capital).lower()[0]) for capital in capitals.tolist()]
    return CharacterTables(classes, lower)


@njit(cache=True)
def decode_at(buffer, position):
    """Code point at a byte position of valid UTF-8, and the position after it."""
    first = np.uint32(buffer[position])
    if first < 0x80:
        return first, position + 1
    if first < 0xE0:
        return ((first & 0x1F) << 6) | (buffer[position + 1] & 0x3F), position + 2
    if first < 0xF0:
        return (
            ((first & 0x0F) << 12) | ((buffer[position + 1] & 0x3F) << 6) | (buffer[position + 2] & 0x3F),
            position + 3,
        )
    return (
        ((first & 0x07) << 18)
        | ((buffer[position + 1] & 0x3F) << 12)
        | ((buffer[position + 2] & 0x3F) << 6)
        | (buffer[position + 3] & 0x3F),
        position + 4,
    )
