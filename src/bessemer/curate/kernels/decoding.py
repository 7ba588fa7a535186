"""UTF-8 into code points, for kernels that go over a text more than once."""

from numba import njit

from bessemer.curate.kernels.characters import decode_at

_BLOCK_BYTES = 32
"""Looked at together: loops of fixed length over them become vector instructions."""


@njit(cache=True)
def decode(buffer, start, end, codes):
    """Code points of valid UTF-8 into `codes`; returns their number."""
    text = buffer[start:end]
    num_codes, position = 0, 0
    while position + _BLOCK_BYTES <= len(text):
        block = text[position : position + _BLOCK_BYTES]
        some = codes[num_codes : num_codes + _BLOCK_BYTES]
        seen = 0
        for i in range(_BLOCK_BYTES):
            seen |= block[i]
            some[i] = block[i]
        if seen < 0x80:
            num_codes += _BLOCK_BYTES
            position += _BLOCK_BYTES
            continue
        block_end = position + _BLOCK_BYTES
        while position < block_end:
            codes[num_codes], position = decode_at(text, position)
            num_codes += 1
    while position < len(text):
        codes[num_codes], position = decode_at(text, position)
        num_codes += 1
    return num_codes


@njit(cache=True)
def longest_span(offsets):
    """Length of the longest span that offsets [spans + 1] delimit: bytes of a text, words of a document."""
    longest = 0
    for i in range(len(offsets) - 1):
        longest = max(longest, offsets[i + 1] - offsets[i])
    return longest
