"""C4's rules for lines (Raffel et al. 2020; code of the final version: TFDS `text/c4_utils.py`).

Of a line, stripped: is a word too long; does it end with a terminal mark once citation marks are cut out; how
many words has it; which phrases does it mention. What follows from that differs between versions.
"""

import numpy as np
from numba import njit
from numpy.typing import NDArray

from bessemer.curate.kernels.datatrove_lines import next_break, strip_range
from bessemer.curate.kernels.decoding import decode, longest_span
from bessemer.curate.kernels.marks import DECIMAL, SPACE
from bessemer.curate.kernels.phrases import Automaton, find_phrases
from bessemer.curate.kernels.spacy_tables import SpacyTables
from bessemer.curate.kernels.spacy_words import count_sentences

POLICY_PHRASES = (
    "terms of use",
    "privacy policy",
    "cookie policy",
    "uses cookies",
    "use of cookies",
    "use cookies",
)
PHRASES = ("javascript", "lorem ipsum", *POLICY_PHRASES)
JAVASCRIPT, LOREM_IPSUM, POLICY = range(3)
PHRASE_GROUPS = np.array([JAVASCRIPT, LOREM_IPSUM] + [POLICY] * len(POLICY_PHRASES), np.int64)
LONGEST_WORD_CHARACTERS = 1000

NUM_SENTENCES, NUM_CURLY_LINES, NUM_LOREM_LINES = range(3)
_MARKS_AFTER_BRACKET = (
    np.array([ord(sign) for sign in "edit]"], np.uint32),
    np.array([ord(sign) for sign in "citation needed]"], np.uint32),
)
_EDIT, _NEEDED = _MARKS_AFTER_BRACKET
_OPEN, _CLOSE, _DOT, _CURLY = ord("["), ord("]"), ord("."), ord("{")
_DATATROVE_MIN_WORDS = 3
_NEEDLES = ("avas", "ipsu", "licy", "okie", "f us")
"""Of these every phrase holds one, and few other texts do."""
_NEEDLE_CODES = np.array([int.from_bytes(needle.encode(), "big") for needle in _NEEDLES], np.uint32)
_FOLDED = (0x130, 0x212A)
"""The code points outside ASCII whose lower case begins with a letter of ASCII: İ and the Kelvin sign."""
_CASE_BIT = 0x20


@njit(cache=True)
def citation_end(codes, position, end, marks):
    """End of the citation mark ([12], [], [edit], [citation needed]) that starts here, or -1."""
    if codes[position] != _OPEN:
        return -1
    after = position + 1
    while after < end and marks[codes[after]] & DECIMAL:
        after += 1
    if after < end and codes[after] == _CLOSE:
        return after + 1
    for mark in (_EDIT, _NEEDED):
        after = position + 1
        i = 0
        while i < len(mark) and after < end and codes[after] == mark[i]:
            i += 1
            after += 1
        if i == len(mark):
            return after
    return -1


@njit(cache=True)
def cut_citations(codes, start, end, marks, line):
    """The range without citation marks into `line`; returns its length."""
    length, position = 0, start
    while position < end:
        after = citation_end(codes, position, end, marks) if codes[position] == _OPEN else -1
        if after >= 0:
            position = after
            continue
        line[length] = codes[position]
        length += 1
        position += 1
    return length


@njit(cache=True)
def measure_words(codes, start, end, marks):
    """Number of words of a range, and the length of the longest."""
    num_words, longest, length = 0, 0, 0
    for i in range(start, end):
        if marks[codes[i]] & SPACE:
            length = 0
            continue
        num_words += length == 0
        length += 1
        longest = max(longest, length)
    return num_words, longest


@njit(cache=True)
def has_end_mark(line, length, with_apostrophe):
    """Whether a line ends with . ? ! or \" but not with three full stops. datatrove counts ' as well."""
    if length == 0:
        return False
    last = line[length - 1]
    if last == _DOT:
        return not (length >= 3 and line[length - 2] == _DOT and line[length - 3] == _DOT)
    return last == 63 or last == 33 or last == 34 or (with_apostrophe and last == 39)


@njit(cache=True)
def may_mention(codes):
    """Whether a text may hold one of the PHRASES: one of the needles is in it, or a sign that folds to ASCII.

    Three loops without branches, many times as fast as the automaton.
    """
    if len(codes) < 4:
        return False
    second, third, fourth = codes[1:], codes[2:], codes[3:]
    num_found = 0
    for i in range(len(fourth)):
        four = (
            ((codes[i] | _CASE_BIT) << 24)
            | ((second[i] | _CASE_BIT) << 16)
            | ((third[i] | _CASE_BIT) << 8)
            | (fourth[i] | _CASE_BIT)
        )
        for j in range(len(_NEEDLE_CODES)):
            num_found += np.uint32(four) == _NEEDLE_CODES[j]
    for i in range(len(codes)):
        num_found += codes[i] == _FOLDED[0]
        num_found += codes[i] == _FOLDED[1]
    return num_found > 0


@njit(cache=True)
def count_code(codes, code):
    """How often a code point is there."""
    num_found = 0
    for i in range(len(codes)):
        num_found += codes[i] == code
    return num_found


@njit(cache=True)
def count_datatrove_c4(
    buffer: NDArray[np.uint8],
    offsets: NDArray[np.int64],
    tables: SpacyTables,
    marks: NDArray[np.uint16],
    automaton: Automaton,
    groups: NDArray[np.int64],
) -> NDArray[np.int64]:
    """What datatrove 0.10.1's C4QualityFilter decides by [documents, 3], on the text before any edit.

    Sentences in the lines that it keeps; lines with a curly bracket, and lines with lorem ipsum, among
    those that reach these tests: not dropped before for a long word, no end mark, fewer than 3 words, or
    (for the bracket) javascript.
    """
    num_documents = len(offsets) - 1
    counts = np.zeros((num_documents, 3), np.int64)
    longest = longest_span(offsets)
    codes, line = np.empty(longest, np.uint32), np.empty(longest, np.uint32)
    starts, ends = np.empty(longest, np.int64), np.empty(longest, np.int64)
    mentions = np.zeros(3, np.int64)
    for document in range(num_documents):
        text = codes[: decode(buffer, offsets[document], offsets[document + 1], codes)]
        has_phrases, has_citations = may_mention(text), count_code(text, _OPEN) > 0
        has_curly = count_code(text, _CURLY) > 0
        row = counts[document]
        position = 0
        while position < len(text):
            end, after = next_break(text, position, len(text), marks)
            start, end = strip_range(text, position, end, marks)
            position = after
            kept, first, last = text, start, end
            if has_citations:
                kept, first, last = line, 0, cut_citations(text, start, end, marks, line)
            if not has_end_mark(kept[first:last], last - first, True):
                continue
            if not _has_words(text, start, end, marks):
                continue
            mentions[:] = 0
            if has_phrases:
                find_phrases(kept, first, last, automaton, groups, mentions)
            if mentions[LOREM_IPSUM]:
                row[NUM_LOREM_LINES] += 1
            elif mentions[JAVASCRIPT]:
                continue
            elif has_curly and count_code(kept[first:last], _CURLY):
                row[NUM_CURLY_LINES] += 1
            elif not mentions[POLICY]:
                row[NUM_SENTENCES] += count_sentences(kept, first, last, tables, starts, ends)
    return counts


@njit(cache=True)
def _has_words(codes, start, end, marks):
    """Whether a line has words enough for datatrove, none of them too long."""
    num_words, length = 0, 0
    is_short = end - start <= LONGEST_WORD_CHARACTERS
    for i in range(start, end):
        if marks[codes[i]] & SPACE:
            length = 0
            continue
        num_words += length == 0
        length += 1
        if length > LONGEST_WORD_CHARACTERS:
            return False
        if num_words >= _DATATROVE_MIN_WORDS and is_short:
            return True
    return num_words >= _DATATROVE_MIN_WORDS
