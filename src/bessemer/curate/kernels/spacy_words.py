"""spaCy's English tokens of a batch of texts, hashed once and counted, and its sentences.

A token lies between whitespace (as `str.isspace` has it) or where `spacy_chunks` cuts; whitespace itself is
no token here. Hashes are polynomial over code points, so that those of two tokens give that of both run
together: datatrove compares n-grams run together without a gap.

Most chunks need no rule: a first pass without branches hashes all of them and notes what kinds of code points
they hold, and only what may be cut is looked at closely.
"""

from functools import lru_cache

import numpy as np
from numba import njit
from numpy.typing import NDArray

from bessemer.curate.kernels import marks as mark_bits
from bessemer.curate.kernels.decoding import decode, longest_span
from bessemer.curate.kernels.marks import character_marks
from bessemer.curate.kernels.spacy_chunks import find_slot, hash_range, split_chunk
from bessemer.curate.kernels.spacy_exceptions import exceptions
from bessemer.curate.kernels.spacy_tables import (
    ACTIVE,
    DOT_FOLLOWS,
    HASH_BASE,
    LONGEST_EXCEPTION,
    MARKS_SHIFT,
    SUFFIX,
    SpacyTables,
    build_tables,
)

NUM_TOKENS, NUM_WORDS, NUM_WORD_CHARACTERS, NUM_ALPHABETIC, NUM_STOP_WORDS, NUM_CODE_POINTS = range(6)
"""Tokens; those that are no mere symbols; their code points; tokens with a letter; distinct stop words; all
code points of the text."""
_NUM_COUNTS = 6
HEAD_CHARACTERS = 12
"""Code points that a token's head is made of."""
_HEAD_MASK = np.uint64((1 << 5 * HEAD_CHARACTERS) - 1)
_SPACE = mark_bits.SPACE << MARKS_SHIFT
_LETTER = mark_bits.LETTER << MARKS_SHIFT
_NOT_SYMBOL = mark_bits.NOT_SYMBOL << MARKS_SHIFT
_SENTENCE_END = mark_bits.SENTENCE_END << MARKS_SHIFT
_IS_PUNCTUATION = mark_bits.IS_PUNCTUATION << MARKS_SHIFT
_SPACE_BIT = np.uint64(_SPACE.bit_length() - 1)
_BLANK, _DOT = ord(" "), ord(".")
_ZERO, _ONE, _FIVE, _LOW_BITS = np.uint64(0), np.uint64(1), np.uint64(5), np.uint64(31)


@lru_cache(maxsize=1)
def tokenizer_tables() -> SpacyTables:
    """The tokenizer's tables, completed: what the rules alone make of each exception. Once per process."""
    tables = build_tables()
    tables.kinds[:] |= character_marks().astype(np.uint32) << MARKS_SHIFT
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
    stop_words: NDArray[np.uint64],
):
    """Tokens of each text: `hashes` and `heads` uint64 and `lengths` int32 [tokens], `token_offsets` int64
    [documents + 1], and `counts` int64 [documents, 6] in the order of the module's NUM_ constants.

    `stop_words` are hashes of tokens as written, case and all. A token's head stands for HEAD_CHARACTERS code
    points from its first on, whitespace left out: it is equal where these are, and seldom where not. Near the
    end of a text, where there are fewer, it stands for nothing.
    """
    num_documents = len(offsets) - 1
    longest = longest_span(offsets)
    codes = np.empty(longest, np.uint32)
    states, kinds = np.empty(longest, np.uint64), np.empty(longest, np.uint32)
    windows = np.zeros(longest + HEAD_CHARACTERS, np.uint64)
    bounds = np.empty((2, longest // 2 + 2), np.int64)
    starts, ends = np.empty(longest, np.int64), np.empty(longest, np.int64)
    room = offsets[-1] - offsets[0]
    hashes, heads = np.empty(room, np.uint64), np.empty(room, np.uint64)
    lengths, signs = np.empty(room, np.int32), np.empty(longest, np.uint32)
    token_offsets = np.zeros(num_documents + 1, np.int64)
    counts = np.zeros((num_documents, _NUM_COUNTS), np.int64)
    total = 0
    for document in range(num_documents):
        num_codes = decode(buffer, offsets[document], offsets[document + 1], codes)
        text = codes[:num_codes]
        num_chunks = _scan(text, tables.kinds, states, kinds, windows, bounds[0], bounds[1])
        row = counts[document]
        row[NUM_CODE_POINTS] = num_codes
        row[NUM_TOKENS] = _hash_tokens(
            text,
            tables,
            states,
            kinds,
            bounds[0, :num_chunks],
            bounds[1, :num_chunks],
            starts,
            ends,
            hashes[total:],
            lengths[total:],
            signs,
        )
        after = total + row[NUM_TOKENS]
        _count_tokens(hashes[total:after], lengths[total:after], signs, stop_words, row)
        _find_heads(lengths[total:after], windows, heads[total:after])
        total = after
        token_offsets[document + 1] = total
    return hashes[:total].copy(), lengths[:total].copy(), heads[:total].copy(), token_offsets, counts


@njit(cache=True)
def _scan(codes, table, states, kinds, windows, starts, ends):
    """Chunks of a text into `starts` and `ends`; returns their number. No branch depends on the text.

    By code point: `states`, the hash of its chunk up to it, and `kinds`, those in the chunk up to it. By code
    point that is no whitespace, in `windows`: the low bits of it and of the ones before.
    """
    state, window, seen = _ZERO, _ZERO, np.uint32(0)
    num_starts, num_ends, num_filled = _ZERO, _ZERO, _ZERO
    was_space = _ONE
    for i in range(len(codes)):
        kind = table[codes[i]]
        code = np.uint64(codes[i])
        is_space = (np.uint64(kind) >> _SPACE_BIT) & _ONE
        is_filled = is_space ^ _ONE
        kept = is_space - _ONE  # all bits where no whitespace, none where it is
        state = (state * HASH_BASE + code + _ONE) & kept
        seen = np.uint32((seen | kind) & kept)
        states[i], kinds[i] = state, seen
        moved = (window << _FIVE) | (code & _LOW_BITS)
        window = (moved & kept) | (window & ~kept)
        windows[num_filled] = moved
        starts[num_starts] = ends[num_ends] = i
        num_filled += is_filled
        num_starts += was_space & is_filled
        num_ends += (was_space ^ _ONE) & is_space
        was_space = is_space
    if num_ends < num_starts:
        ends[num_ends] = len(codes)
    return np.int64(num_starts)


@njit(cache=True)
def _hash_tokens(
    codes, tables, states, kinds, chunk_starts, chunk_ends, starts, ends, hashes, lengths, signs
):
    """Hash, length and kinds of every token of the chunks; returns their number."""
    keys, table, listed = tables.keys, tables.kinds, tables.listed
    num_tokens = 0
    for chunk in range(len(chunk_starts)):
        start, end = chunk_starts[chunk], chunk_ends[chunk]
        state, kind, length = states[end - 1], kinds[end - 1], end - start
        is_short = length <= LONGEST_EXCEPTION + 1
        if not kind & ACTIVE:
            if not (is_short and _may_be_listed(listed, state) and find_slot(keys, state) >= 0):
                hashes[num_tokens], lengths[num_tokens], signs[num_tokens] = state, length, kind
                num_tokens += 1
                continue
        elif length > 1 and not kinds[end - 2] & ACTIVE:
            # Only the last sign is one that rules look at: most often a comma or a full stop behind a word.
            last = table[codes[end - 1]]
            before = states[end - 2]
            is_cut = table[codes[end - 2]] & DOT_FOLLOWS if codes[end - 1] == _DOT else last & SUFFIX
            if is_cut and is_short:
                is_whole = _may_be_listed(listed, state) and find_slot(keys, state) >= 0
                if is_whole or (_may_be_listed(listed, before) and find_slot(keys, before) >= 0):
                    is_cut = 0
            if is_cut:
                hashes[num_tokens], lengths[num_tokens] = before, length - 1
                signs[num_tokens] = kinds[end - 2]
                hashes[num_tokens + 1] = np.uint64(codes[end - 1]) + _ONE
                lengths[num_tokens + 1], signs[num_tokens + 1] = 1, last
                num_tokens += 2
                continue
        for i in range(split_chunk(codes, start, end, tables, starts, ends)):
            kind = np.uint32(0)
            for place in range(starts[i], ends[i]):
                kind |= table[codes[place]]
            hashes[num_tokens] = hash_range(codes, starts[i], ends[i])
            lengths[num_tokens], signs[num_tokens] = ends[i] - starts[i], kind
            num_tokens += 1
    return num_tokens


@njit(cache=True)
def _may_be_listed(listed, state):
    return (listed[state >> np.uint64(54)] >> ((state >> np.uint64(48)) & np.uint64(63))) & _ONE


@njit(cache=True)
def _count_tokens(hashes, lengths, signs, stop_words, row):
    bits = _ZERO
    for stop_word in stop_words:
        bits |= _ONE << (stop_word >> np.uint64(58))
    is_seen = np.zeros(len(stop_words), np.bool_)
    num_words, num_characters, num_alphabetic = 0, 0, 0
    for i in range(len(hashes)):
        is_word = (signs[i] & _NOT_SYMBOL) != 0
        num_words += is_word
        num_characters += lengths[i] * is_word
        num_alphabetic += (signs[i] & _LETTER) != 0
        if (bits >> (hashes[i] >> np.uint64(58))) & _ONE:
            for j in range(len(stop_words)):
                if stop_words[j] == hashes[i]:
                    is_seen[j] = True
    row[NUM_WORDS], row[NUM_WORD_CHARACTERS], row[NUM_ALPHABETIC] = num_words, num_characters, num_alphabetic
    row[NUM_STOP_WORDS] = is_seen.sum()


@njit(cache=True)
def _find_heads(lengths, windows, heads):
    before = 0
    for i in range(len(lengths)):
        heads[i] = windows[before + HEAD_CHARACTERS - 1] & _HEAD_MASK
        before += lengths[i]


@njit(cache=True)
def count_sentences(codes, start, end, tables, starts, ends):
    """Sentences of a range: one ends before the first token that is no punctuation after an end mark.

    spaCy's sentencizer; whitespace other than one blank between chunks counts as a token. Only chunks with an
    end mark, and the one that follows them, are split.
    """
    table = tables.kinds
    num_ends, position = 0, start
    while True:
        while position < end and not table[codes[position]] & _SENTENCE_END:
            position += 1
        if position >= end:
            return num_ends + (end > start)
        while position > start and not table[codes[position - 1]] & _SPACE:
            position -= 1
        is_past_end = False
        while True:
            chunk_end = position + 1
            while chunk_end < end and not table[codes[chunk_end]] & _SPACE:
                chunk_end += 1
            for i in range(split_chunk(codes, position, chunk_end, tables, starts, ends)):
                is_end = ends[i] - starts[i] == 1 and (table[codes[starts[i]]] & _SENTENCE_END) != 0
                if is_past_end and not is_end and not _is_punctuation(codes, starts[i], ends[i], table):
                    num_ends += 1
                    is_past_end = False
                elif is_end:
                    is_past_end = True
            position = chunk_end
            if not is_past_end or position >= end:
                break
            while position < end and table[codes[position]] & _SPACE:
                position += 1
            is_gap = position - chunk_end == 1 and codes[chunk_end] == _BLANK
            # Whitespace that is more than a gap ends the sentence; so does a chunk that opens with a word.
            if not is_gap or (
                position < end and not table[codes[position]] & (_IS_PUNCTUATION | _SENTENCE_END)
            ):
                num_ends += 1
                break
            if position >= end:
                break


@njit(cache=True)
def _is_punctuation(codes, start, end, table):
    for i in range(start, end):  # noqa: SIM110
        if not table[codes[i]] & _IS_PUNCTUATION:
            return False
    return True
