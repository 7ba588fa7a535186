"""RefinedWeb's line rules (Penedo et al. 2023, see the paper) as DCLM's baseline runs them.

DCLM `baselines_configs/dclm_baseline_refinedweb.yaml` and `mappers/modifiers.py`: a line goes when more than
half of its characters are upper-case, when all are digits, when it is a counter ("3 likes"), or when it is
one word; and from lines of at most ten words "items in cart", a final "Read more..." and an opening "Sign-in"
are cut. DCLM's pattern for the second takes any three characters for the dots; here they are dots.
"""

import numpy as np
from numba import njit

from bessemer.curate.kernels.marks import DECIMAL, SPACE, WORD

KEEP, MOSTLY_UPPERCASE, ALL_DIGITS, COUNTER, ONE_WORD = range(5)
BOILERPLATE_WORDS = 10
"""Longest line, in words, from which boilerplate is cut."""
_COUNTED = (
    "likes shares comments retweets reposts quotes bookmarks upvotes downvotes downloads views followers"
)


def _spelled(text: str) -> np.ndarray:
    return np.array([ord(sign) for sign in text], np.uint32)


_COUNTED_CODES = _spelled(" " + _COUNTED + " ")
_ITEMS, _READ_MORE, _SIGN_IN = _spelled("items in cart"), _spelled("read more..."), _spelled("sign-in")
_COMMA, _DOT, _BLANK, _SMALL_I, _SMALL_R = ord(","), ord("."), ord(" "), ord("i"), ord("r")
_SMALL_B, _SMALL_K, _SMALL_M = ord("b"), ord("k"), ord("m")


@njit(cache=True)
def classify_line(codes, start, end, num_words, num_upper, num_digits, marks, lower):
    """Which rule removes the line, in the order of the constants above; KEEP for none or an empty line.

    `num_words`, `num_upper`, `num_digits`: what it has of words, upper-case code points and digits.
    """
    if end <= start:
        return KEEP
    if 2 * num_upper > end - start:
        return MOSTLY_UPPERCASE
    if num_digits == end - start:
        return ALL_DIGITS
    if num_digits and _is_counter(codes, start, end, marks, lower):
        return COUNTER
    return ONE_WORD if num_words < 2 else KEEP


@njit(cache=True)
def _is_counter(codes, start, end, marks, lower):
    """A number (1,234 or 1.2K), whitespace and a word such as "likes", with nothing but signs around."""
    position = start
    while position < end and not marks[codes[position]] & WORD:
        position += 1
    if position == end or not marks[codes[position]] & DECIMAL:
        return False
    while position < end and (
        marks[codes[position]] & DECIMAL or codes[position] == _COMMA or codes[position] == _DOT
    ):
        position += 1
    letter = lower[codes[position]] if position < end else 0
    if letter == _SMALL_B or letter == _SMALL_K or letter == _SMALL_M:  # noqa: SIM109
        position += 1
    gap = position
    while position < end and marks[codes[position]] & SPACE:
        position += 1
    if position == gap:
        return False
    word = position
    while position < end and marks[codes[position]] & WORD:
        position += 1
    if position == word or not _is_counted(codes, word, position, lower):
        return False
    while position < end:
        if marks[codes[position]] & WORD:
            return False
        position += 1
    return True


@njit(cache=True)
def _is_counted(codes, start, end, lower):
    """Whether the range is one of the words that counters count."""
    for i in range(len(_COUNTED_CODES) - (end - start) - 1):
        if _COUNTED_CODES[i] != _BLANK or _COUNTED_CODES[i + 1 + end - start] != _BLANK:
            continue
        if _is_at(codes, start, end, _COUNTED_CODES[i + 1 : i + 1 + end - start], lower):
            return True
    return False


@njit(cache=True)
def _is_at(codes, position, end, phrase, lower):
    """Whether a lower-case phrase stands at a position."""
    if position + len(phrase) > end:
        return False
    for i in range(len(phrase)):  # noqa: SIM110
        if lower[codes[position + i]] != phrase[i]:
            return False
    return True


@njit(cache=True)
def find_boilerplate(codes, start, end, num_words, marks, lower, starts, ends):
    """Spans to cut from the line, with a blank before (for the last: behind) each; returns their number.

    `starts` and `ends` need room for one span every eleven code points, and two more. A line of which only
    whitespace would be left is one span.
    """
    if num_words == 0 or num_words > BOILERPLATE_WORDS:
        return 0
    num_spans, position = 0, start
    if _is_at(codes, start, end, _SIGN_IN, lower):
        position = start + len(_SIGN_IN)
        position += position < end and (marks[codes[position]] & SPACE) != 0
        starts[0], ends[0] = start, position
        num_spans = 1
    while position < end:
        length = 0
        code = codes[position] | 0x20
        if code != _SMALL_I and code != _SMALL_R:
            position += 1
            continue
        if _is_at(codes, position, end, _ITEMS, lower):
            length = len(_ITEMS)
        elif position + len(_READ_MORE) == end and _is_at(codes, position, end, _READ_MORE, lower):
            length = len(_READ_MORE)
        if length == 0:
            position += 1
            continue
        first = position
        if position > start and marks[codes[position - 1]] & SPACE:  # noqa: SIM102
            if num_spans == 0 or ends[num_spans - 1] < position:
                first -= 1
        position += length
        starts[num_spans], ends[num_spans] = first, position
        num_spans += 1
    if num_spans and _is_blank_without(codes, start, end, marks, starts, ends, num_spans):
        starts[0], ends[0] = start, end
        return 1
    return num_spans


@njit(cache=True)
def _is_blank_without(codes, start, end, marks, starts, ends, num_spans):
    position = start
    for i in range(num_spans + 1):
        stop = starts[i] if i < num_spans else end
        while position < stop:
            if not marks[codes[position]] & SPACE:
                return False
            position += 1
        position = ends[i] if i < num_spans else end
    return True
