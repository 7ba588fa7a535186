"""Words: split, hashed once, and counted. The hashes serve repetition rules and shingles alike."""

import numpy as np
from numba import njit
from numpy.typing import NDArray

from bessemer.curate.kernels.characters import CLOSING, LETTER, PUNCTUATION, SPACE, TERMINAL, decode_at
from bessemer.curate.kernels.hashing import FNV_OFFSET, FNV_PRIME, finalize

NUM_WORDS, NUM_WORD_CHARACTERS, NUM_ALPHABETIC, LONGEST, NUM_STOP_WORDS, NUM_SENTENCES = range(6)
_NUM_COUNTS = 6


@njit(cache=True)
def split_words(
    buffer: NDArray[np.uint8],
    offsets: NDArray[np.int64],
    classes: NDArray[np.uint8],
    lower: NDArray[np.uint32],
    stop_words: NDArray[np.uint64],
):
    """Split a batch into words.

    A word's hash is over its normalised form: lower-cased, without punctuation and symbols at its ends;
    a word of nothing else is hashed as it stands. Returns `hashes` uint64 [words], `lengths` int32
    [words] (code points of the word as written), `word_offsets` int64 [documents + 1], and `counts`
    int64 [documents, 6]: words, their code points, words with a letter, longest word, distinct
    `stop_words` (hashes) present, and sentences.

    A sentence ends with a word that ends in a terminal mark, or with the line: C4 (Raffel et al. 2020,
    see the paper) counts sentences line by line; its tokenizer (Punkt) is approximated by the marks.
    """
    num_documents = len(offsets) - 1
    capacity = (offsets[-1] - offsets[0]) // 2 + num_documents + 1
    hashes = np.empty(capacity, np.uint64)
    lengths = np.empty(capacity, np.int32)
    word_offsets = np.zeros(num_documents + 1, np.int64)
    counts = np.zeros((num_documents, _NUM_COUNTS), np.int64)
    seen_stop_words = np.zeros(len(stop_words), np.bool_)
    num_words = 0
    for document in range(num_documents):
        position, end = offsets[document], offsets[document + 1]
        seen_stop_words[:] = False
        is_sentence_open = False
        while position < end:
            code_point, after = decode_at(buffer, position)
            if classes[code_point] & SPACE:
                if code_point == 10 and is_sentence_open:
                    counts[document, NUM_SENTENCES] += 1
                    is_sentence_open = False
                position = after
                continue
            start = position
            # The normalised form runs from the first to the last code point that is no punctuation.
            core_start, core_end = np.int64(-1), np.int64(-1)
            length = 0
            has_letter = False
            is_terminal = False
            while True:
                kind = classes[code_point]
                length += 1
                has_letter = has_letter or (kind & LETTER) != 0
                if not kind & PUNCTUATION:
                    core_start = position if core_start < 0 else core_start
                    core_end = after
                if not kind & CLOSING:
                    is_terminal = (kind & TERMINAL) != 0
                position = after
                if position >= end:
                    break
                code_point, after = decode_at(buffer, position)
                if classes[code_point] & SPACE:
                    break
            if core_start < 0:
                core_start, core_end = start, position
            word_hash = _hash_lowered(buffer, core_start, core_end, lower)
            hashes[num_words] = word_hash
            lengths[num_words] = length
            num_words += 1
            counts[document, NUM_WORDS] += 1
            counts[document, NUM_WORD_CHARACTERS] += length
            counts[document, NUM_ALPHABETIC] += has_letter
            counts[document, LONGEST] = max(counts[document, LONGEST], length)
            counts[document, NUM_SENTENCES] += is_terminal
            is_sentence_open = not is_terminal
            for i in range(len(stop_words)):
                if stop_words[i] == word_hash:
                    seen_stop_words[i] = True
        counts[document, NUM_SENTENCES] += is_sentence_open
        counts[document, NUM_STOP_WORDS] = seen_stop_words.sum()
        word_offsets[document + 1] = num_words
    return hashes[:num_words].copy(), lengths[:num_words].copy(), word_offsets, counts


@njit(cache=True)
def _hash_lowered(buffer, start, end, lower):
    """FNV-1a over lower-cased code points, with a finaliser that spreads every bit."""
    state = FNV_OFFSET
    position = start
    while position < end:
        code_point, position = decode_at(buffer, position)
        state = (state ^ np.uint64(lower[code_point])) * FNV_PRIME
    return finalize(state)
