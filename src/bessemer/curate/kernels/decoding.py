"""UTF-8 into code points, for kernels that go over a text more than once."""

from numba import njit

from bessemer.curate.kernels.characters import decode_at


@njit(cache=True)
def decode(buffer, start, end, codes):
    """Code points of valid UTF-8 into `codes`; returns their number."""
    num_codes, position = 0, start
    while position < end:
        code, position = decode_at(buffer, position)
        codes[num_codes] = code
        num_codes += 1
    return num_codes


@njit(cache=True)
def longest_span(offsets):
    """Length of the longest span that offsets [spans + 1] delimit: bytes of a text, words of a document."""
    longest = 0
    for i in range(len(offsets) - 1):
        longest = max(longest, offsets[i + 1] - offsets[i])
    return longest
