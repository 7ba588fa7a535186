"""Spans that editing rules take out of texts, found in one pass over lines between newlines."""

from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from bessemer.curate.kernels.c4 import (
    JAVASCRIPT,
    LONGEST_WORD_CHARACTERS,
    POLICY,
    citation_end,
    count_code,
    cut_citations,
    has_end_mark,
    may_mention,
    measure_words,
)
from bessemer.curate.kernels.datatrove_lines import strip_range
from bessemer.curate.kernels.decoding import decode, longest_span
from bessemer.curate.kernels.marks import DIGIT, SPACE, UPPERCASE
from bessemer.curate.kernels.phrases import Automaton, find_phrases
from bessemer.curate.kernels.refinedweb import KEEP, classify_line, find_boilerplate

(
    JAVASCRIPT_LINES,
    POLICY_LINES,
    LONG_WORD_LINES,
    CITATION_MARKS,
    TERMINAL_LINES,
    SHORT_LINES,
    SHORT_LINES_V1,
    TERMINAL_LINES_DATATROVE,
    SHORT_LINES_DATATROVE,
    UPPERCASE_LINES,
    DIGIT_LINES,
    COUNTER_LINES,
    ONE_WORD_LINES,
    BOILERPLATE,
) = range(14)
NUM_EDIT_RULES = 14
_NEWLINE, _OPEN = 10, ord("[")
_FINAL_MIN_WORDS, _V1_MIN_WORDS = 5, 3


class FoundEdits(NamedTuple):
    """Edits of a batch. Positions are code points of the text."""

    removed: NDArray[np.int64]
    """[documents, rules]: characters in the spans of each rule, wanted or not."""
    refinedweb_words: NDArray[np.int64]
    """[documents, 2]: words that RefinedWeb's rules take, and all words."""
    rules: NDArray[np.int16]
    """[edits], of wanted rules alone."""
    spans: NDArray[np.int64]
    """[edits, 2]: start and end."""
    offsets: NDArray[np.int64]
    """[documents + 1]: each document's edits."""


@njit(cache=True)
def find_line_edits(
    buffer: NDArray[np.uint8],
    offsets: NDArray[np.int64],
    marks: NDArray[np.uint16],
    lower: NDArray[np.uint32],
    automaton: Automaton,
    groups: NDArray[np.int64],
    is_wanted: NDArray[np.bool_],
):
    """The fields of FoundEdits. A line goes with the newline that ends it."""
    num_documents = len(offsets) - 1
    longest = longest_span(offsets)
    codes, line = np.empty(longest, np.uint32), np.empty(longest, np.uint32)
    room = longest // 11 + 3
    starts, ends = np.empty(room, np.int64), np.empty(room, np.int64)
    removed = np.zeros((num_documents, NUM_EDIT_RULES), np.int64)
    taken = np.zeros((num_documents, 2), np.int64)
    rules, spans = np.empty(64, np.int16), np.empty((64, 2), np.int64)
    edit_offsets = np.zeros(num_documents + 1, np.int64)
    mentions = np.zeros(3, np.int64)
    hits = np.zeros(NUM_EDIT_RULES, np.bool_)
    num_edits = 0
    for document in range(num_documents):
        num_codes = decode(buffer, offsets[document], offsets[document + 1], codes)
        text, row = codes[:num_codes], removed[document]
        has_phrases, has_citations = may_mention(text), count_code(text, _OPEN) > 0
        position = 0
        while position < num_codes:
            start, end = position, position
            while end < num_codes and codes[end] != _NEWLINE:
                end += 1
            position = end + (end < num_codes)
            for rule in range(NUM_EDIT_RULES):
                hits[rule] = False
                mentions[rule % len(mentions)] = 0
            first, last = strip_range(codes, start, end, marks)
            num_words, longest_word, num_upper, num_digits = _measure_line(codes, first, last, marks)
            if has_phrases:
                find_phrases(codes, first, last, automaton, groups, mentions)
            kept, length, num_left = codes[first:last], last - first, num_words
            if has_citations:
                length = cut_citations(codes, first, last, marks, line)
                if length < last - first:
                    kept = line[:length]
                    num_left, _ = measure_words(line, 0, length, marks)
            hits[JAVASCRIPT_LINES], hits[POLICY_LINES] = mentions[JAVASCRIPT] > 0, mentions[POLICY] > 0
            hits[LONG_WORD_LINES] = longest_word > LONGEST_WORD_CHARACTERS
            hits[TERMINAL_LINES] = not has_end_mark(kept, length, False)
            hits[TERMINAL_LINES_DATATROVE] = not has_end_mark(kept, length, True)
            hits[SHORT_LINES], hits[SHORT_LINES_V1] = num_left < _FINAL_MIN_WORDS, num_left < _V1_MIN_WORDS
            hits[SHORT_LINES_DATATROVE] = num_words < _V1_MIN_WORDS
            verdict = classify_line(codes, start, end, num_words, num_upper, num_digits, marks, lower)
            if verdict != KEEP:
                hits[UPPERCASE_LINES + verdict - 1] = True
            num_spans = find_boilerplate(codes, start, end, num_words, marks, lower, starts, ends)
            _tally_words(codes, num_words, verdict, num_spans, starts, ends, marks, taken[document])
            needed = num_edits + NUM_EDIT_RULES + num_spans + (end - start) // 2 + 1
            rules, spans = _grown(rules, spans, needed)
            for rule in range(NUM_EDIT_RULES):
                if hits[rule]:
                    row[rule] += position - start
                    if is_wanted[rule]:
                        rules[num_edits] = rule
                        spans[num_edits, 0], spans[num_edits, 1] = start, position
                        num_edits += 1
            for i in range(num_spans):
                last = position if ends[i] == end and starts[i] == start else ends[i]
                row[BOILERPLATE] += last - starts[i]
                if is_wanted[BOILERPLATE]:
                    rules[num_edits] = BOILERPLATE
                    spans[num_edits, 0], spans[num_edits, 1] = starts[i], last
                    num_edits += 1
            place = start if has_citations else end
            while place < end:
                after = citation_end(codes, place, end, marks) if codes[place] == _OPEN else -1
                if after < 0:
                    place += 1
                    continue
                row[CITATION_MARKS] += after - place
                if is_wanted[CITATION_MARKS]:
                    rules[num_edits] = CITATION_MARKS
                    spans[num_edits, 0], spans[num_edits, 1] = place, after
                    num_edits += 1
                place = after
        edit_offsets[document + 1] = num_edits
    return removed, taken, rules[:num_edits].copy(), spans[:num_edits].copy(), edit_offsets


@njit(cache=True)
def _grown(rules, spans, needed):
    """The arrays, doubled until `needed` entries fit."""
    if needed <= len(rules):
        return rules, spans
    size = len(rules)
    while size < needed:
        size *= 2
    more_rules, more_spans = np.empty(size, np.int16), np.empty((size, 2), np.int64)
    for i in range(len(rules)):  # one by one: compiling an assignment to a slice takes seconds
        more_rules[i], more_spans[i, 0], more_spans[i, 1] = rules[i], spans[i, 0], spans[i, 1]
    return more_rules, more_spans


@njit(cache=True)
def _measure_line(codes, start, end, marks):
    """Words of a range, the length of the longest, upper-case code points, digits."""
    num_words, longest, length, num_upper, num_digits = 0, 0, 0, 0, 0
    for code in codes[start:end]:
        kind = marks[code]
        num_upper += (kind & UPPERCASE) != 0
        num_digits += (kind & DIGIT) != 0
        is_space = (kind & SPACE) != 0
        num_words += length == 0 and not is_space
        length = 0 if is_space else length + 1
        longest = max(longest, length)
    return num_words, longest, num_upper, num_digits


@njit(cache=True)
def _tally_words(codes, num_words, verdict, num_spans, starts, ends, marks, taken):
    taken[1] += num_words
    if verdict != KEEP:
        taken[0] += num_words
        return
    for i in range(num_spans):
        num_cut, _ = measure_words(codes, starts[i], ends[i], marks)
        taken[0] += num_cut
