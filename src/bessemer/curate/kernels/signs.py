"""Signs and phrases that rules count, straight from the bytes: all of them are ASCII but for the ellipsis."""

import numpy as np
from numba import njit
from numpy.typing import NDArray

NUM_HASH_SIGNS, NUM_ELLIPSES, NUM_NEWLINES, NUM_CURLY_BRACKETS, NUM_LOREM_IPSUM = range(5)
_NUM_COUNTS = 5
_LOREM_IPSUM = np.frombuffer(b"lorem ipsum", np.uint8)
_HASH, _DOT, _NEWLINE, _CURLY, _SMALL_L, _CASE_BIT = ord("#"), ord("."), 10, ord("{"), ord("l"), 0x20


@njit(cache=True)
def count_signs(buffer: NDArray[np.uint8], offsets: NDArray[np.int64]) -> NDArray[np.int64]:
    """Counts [documents, 5] in the order of the module's NUM_ constants.

    Ellipses are the sign itself and every three full stops in a row. No letter outside ASCII is a letter
    of "lorem ipsum" in lower case, so bytes are enough.
    """
    num_documents = len(offsets) - 1
    counts = np.zeros((num_documents, _NUM_COUNTS), np.int64)
    for document in range(num_documents):
        end = offsets[document + 1]
        num_hash, num_ellipses, num_newlines, num_curly, num_lorem, num_dots = 0, 0, 0, 0, 0, 0
        for i in range(offsets[document], end):
            byte = buffer[i]
            if byte == _DOT:
                num_dots += 1
                if num_dots == 3:
                    num_ellipses += 1
                    num_dots = 0
                continue
            num_dots = 0
            num_hash += byte == _HASH
            num_newlines += byte == _NEWLINE
            num_curly += byte == _CURLY
            if byte == 0xE2:
                num_ellipses += buffer[i + 1] == 0x80 and buffer[i + 2] == 0xA6
            elif (byte | _CASE_BIT) == _SMALL_L:
                num_lorem += _is_lorem_ipsum(buffer, i, end)
        row = counts[document]
        row[NUM_HASH_SIGNS], row[NUM_ELLIPSES], row[NUM_NEWLINES] = num_hash, num_ellipses, num_newlines
        row[NUM_CURLY_BRACKETS], row[NUM_LOREM_IPSUM] = num_curly, num_lorem
    return counts


@njit(cache=True)
def _is_lorem_ipsum(buffer, position, end):
    if position + len(_LOREM_IPSUM) > end:
        return False
    for i in range(len(_LOREM_IPSUM)):
        byte = buffer[position + i]
        wanted = _LOREM_IPSUM[i]
        # The blank has the case bit set already; a byte 0x00 is no blank.
        if (byte | _CASE_BIT if wanted != _CASE_BIT else byte) != wanted:
            return False
    return True
