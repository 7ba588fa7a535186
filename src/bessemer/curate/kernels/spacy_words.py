"""spaCy's English tokens of a batch of texts, hashed once and counted, and its sentences.

A token lies between whitespace (as `str.isspace` has it) or where `spacy_chunks` cuts; whitespace itself is
no token here. Hashes are polynomial over code points, so that those of two tokens give that of both run
together: datatrove compares n-grams run together without a gap.
"""

from functools import lru_cache

import numpy as np
from numba import njit
from numpy.typing import NDArray

from bessemer.curate.kernels.decoding import decode, longest_span
from bessemer.curate.kernels.marks import IS_PUNCTUATION, LETTER, NOT_SYMBOL, SENTENCE_END, SPACE
from bessemer.curate.kernels.spacy_chunks import find_slot, hash_range, split_chunk
from bessemer.curate.kernels.spacy_exceptions import exceptions
from bessemer.curate.kernels.spacy_tables import (
    ACTIVE,
    DOT_FOLLOWS,
    HASH_BASE,
    LONGEST_EXCEPTION,
    SUFFIX,
    SpacyTables,
    build_tables,
)

NUM_TOKENS, NUM_WORDS, NUM_WORD_CHARACTERS, NUM_ALPHABETIC, NUM_STOP_WORDS, NUM_CODE_POINTS = range(6)
"""Tokens; those that are no mere symbols; their code points; tokens with a letter; distinct stop words; all
code points of the text."""
_NUM_COUNTS = 6
_BLANK, _DOT = ord(" "), ord(".")


@lru_cache(maxsize=1)
def tokenizer_tables() -> SpacyTables:
    """The tokenizer's tables, completed: what the rules alone make of each exception. Once per process."""
    tables = build_tables()
    without = tables._replace(keys=np.zeros(16, np.uint64))
    room = np.empty((2, LONGEST_EXCEPTION), np.int64)
    for text in exceptions():
        codes = np.array([ord(sign) for sign in text], np.uint32)
        num_tokens = split_chunk(codes, 0, len(codes), without, room[0], room[1])
        if num_tokens < 2:
            continue
        lengths = room[1, :num_tokens] - room[0, :num_tokens]
        slot = find_slot(tables.keys, np.uint64(hash_range(codes, 0, len(codes))))
        tables.merges[slot] = sum(int(length) << (4 * i) for i, length in enumerate(lengths))
        tables.first_signs[codes[room[0, 0]] & 255] = True
        tables.second_signs[codes[room[0, 1]] & 255] = True
    return tables


@njit(cache=True)
def split_tokens(
    buffer: NDArray[np.uint8],
    offsets: NDArray[np.int64],
    tables: SpacyTables,
    marks: NDArray[np.uint16],
    stop_words: NDArray[np.uint64],
):
    """Tokens of each text: `hashes` uint64 and `lengths` int32 [tokens], `token_offsets` int64
    [documents + 1], and `counts` int64 [documents, 6] in the order of the module's NUM_ constants.

    `stop_words` are hashes of tokens as written, case and all.
    """
    num_documents = len(offsets) - 1
    longest = longest_span(offsets)
    codes = np.empty(longest, np.uint32)
    starts, ends = np.empty(longest, np.int64), np.empty(longest, np.int64)
    hashes = np.empty(offsets[-1] - offsets[0], np.uint64)
    lengths = np.empty(offsets[-1] - offsets[0], np.int32)
    token_offsets = np.zeros(num_documents + 1, np.int64)
    counts = np.zeros((num_documents, _NUM_COUNTS), np.int64)
    is_seen = np.zeros(len(stop_words), np.bool_)
    classes, keys = tables.classes, tables.keys
    total = 0
    for document in range(num_documents):
        num_codes = decode(buffer, offsets[document], offsets[document + 1], codes)
        row = counts[document]
        row[NUM_CODE_POINTS] = num_codes
        is_seen[:] = False
        first_token = total
        position = 0
        while position < num_codes:
            if marks[codes[position]] & SPACE:
                position += 1
                continue
            end, state, kinds, signs, state_before, kinds_before, signs_before = _scan_chunk(
                codes, position, num_codes, classes, marks
            )
            num_tokens = _num_plain_tokens(
                codes, position, end, state, kinds, state_before, kinds_before, classes, keys
            )
            is_plain = num_tokens > 0
            if num_tokens == 0:
                num_tokens = split_chunk(codes, position, end, tables, starts, ends)
            elif num_tokens == 1:
                starts[0], ends[0] = position, end
            else:
                starts[0], ends[0], starts[1], ends[1] = position, end - 1, end - 1, end
            for i in range(num_tokens):
                if is_plain and i == 0:
                    token_hash, kinds = (state, signs) if num_tokens == 1 else (state_before, signs_before)
                else:
                    token_hash, kinds = _describe(codes, starts[i], ends[i], marks)
                length = ends[i] - starts[i]
                hashes[total] = token_hash
                lengths[total] = length
                total += 1
                if kinds & NOT_SYMBOL:
                    row[NUM_WORDS] += 1
                    row[NUM_WORD_CHARACTERS] += length
                row[NUM_ALPHABETIC] += (kinds & LETTER) != 0
                for j in range(len(stop_words)):
                    if stop_words[j] == token_hash:
                        is_seen[j] = True
            position = end
        row[NUM_TOKENS] = total - first_token
        row[NUM_STOP_WORDS] = is_seen.sum()
        token_offsets[document + 1] = total
    return hashes[:total].copy(), lengths[:total].copy(), token_offsets, counts


@njit(cache=True)
def _scan_chunk(codes, start, limit, classes, marks):
    """The chunk that starts here: its end, its hash, all kinds of code points in it, and of all but its last.

    Returns `end`, `state`, `classes`, `marks`, then `state`, `classes` and `marks` without the last code
    point.
    """
    end, state, kinds, signs = start, np.uint64(0), 0, 0
    state_before, kinds_before, signs_before = state, 0, 0
    while end < limit:
        code = codes[end]
        mark = marks[code]
        if mark & SPACE:
            break
        state_before, kinds_before, signs_before = state, kinds, signs
        state = state * HASH_BASE + np.uint64(code) + np.uint64(1)
        kinds |= classes[code]
        signs |= mark
        end += 1
    return end, state, kinds, signs, state_before, kinds_before, signs_before


@njit(cache=True)
def _num_plain_tokens(codes, start, end, state, kinds, state_before, kinds_before, classes, keys):
    """1 for a chunk that no rule cuts, 2 for one that loses its last sign alone, 0 for all that need a
    closer look.

    The two frequent cases, told apart without the tokenizer proper.
    """
    is_short = end - start <= LONGEST_EXCEPTION + 1
    if not kinds & ACTIVE:
        return 0 if is_short and find_slot(keys, state) >= 0 else 1
    if kinds_before & ACTIVE or end - start < 2:
        return 0
    last = codes[end - 1]
    if last == _DOT:
        if not classes[codes[end - 2]] & DOT_FOLLOWS:
            return 0
    elif not classes[last] & SUFFIX:
        return 0
    if is_short and (find_slot(keys, state) >= 0 or find_slot(keys, state_before) >= 0):
        return 0
    return 2


@njit(cache=True)
def _describe(codes, start, end, marks):
    """Hash of a token, and all kinds of code points in it."""
    kinds = 0
    for i in range(start, end):
        kinds |= marks[codes[i]]
    return hash_range(codes, start, end), kinds


@njit(cache=True)
def count_sentences(codes, start, end, tables, marks, starts, ends):
    """Sentences of a range: one ends before the first token that is no punctuation after an end mark.

    spaCy's sentencizer; whitespace other than one blank between chunks counts as a token.
    """
    classes, keys = tables.classes, tables.keys
    num_sentences, is_past_end = 0, False
    position = start
    is_empty = True
    while position < end:
        if marks[codes[position]] & SPACE:
            after = position + 1
            while after < end and marks[codes[after]] & SPACE:
                after += 1
            is_gap = position > start and codes[position] == _BLANK
            if after - position > is_gap:
                num_sentences += is_past_end
                is_past_end = False
                is_empty = False
            position = after
            continue
        after, state, kinds, _, state_before, kinds_before, _ = _scan_chunk(
            codes, position, end, classes, marks
        )
        num_tokens = _num_plain_tokens(
            codes, position, after, state, kinds, state_before, kinds_before, classes, keys
        )
        if num_tokens == 0:
            num_tokens = split_chunk(codes, position, after, tables, starts, ends)
        elif num_tokens == 1:
            starts[0], ends[0] = position, after
        else:
            starts[0], ends[0], starts[1], ends[1] = position, after - 1, after - 1, after
        position = after
        is_empty = False
        for i in range(num_tokens):
            is_end = ends[i] - starts[i] == 1 and (marks[codes[starts[i]]] & SENTENCE_END) != 0
            if is_past_end and not is_end and not _is_punctuation(codes, starts[i], ends[i], marks):
                num_sentences += 1
                is_past_end = False
            elif is_end:
                is_past_end = True
    return num_sentences + (0 if is_empty else 1)


@njit(cache=True)
def _is_punctuation(codes, start, end, marks):
    for i in range(start, end):  # noqa: SIM110
        if not marks[codes[i]] & IS_PUNCTUATION:
            return False
    return True
