"""BigScience's repetition and character rules for the ROOTS corpus (Laurençon et al. 2022, see the
paper).

Code: bigscience-workshop/data-preparation, `01b_oscar_cleaning_and_filtering/filtering.py`.
"""

import string
from functools import lru_cache

import numpy as np
from numba import njit
from numpy.typing import NDArray

from bessemer.curate.kernels.characters import NUM_CODE_POINTS
from bessemer.curate.kernels.decoding import decode, longest_span
from bessemer.curate.kernels.hashing import extend, finalize, table_size
from bessemer.curate.kernels.ngrams import slot_of
from bessemer.curate.kernels.spacy_tables import HASH_BASE, icons

CHARACTER_GRAM, WORD_GRAM = 10, 5
"""Lengths of n-grams for English (`parameters_filtering.py`)."""
_OTHER_SPECIAL = (
    "\xa0\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u202f\u205f\u3000￼’“”–►ー`…✦▬•"
)


@lru_cache(maxsize=1)
def special_characters() -> NDArray[np.bool_]:
    """By code point: punctuation of ASCII, digits, whitespace, some typographic signs, and emoji.

    BigScience lists the emoji one by one; here they are Unicode's other symbols (So of version 11).
    """
    is_special = np.zeros(NUM_CODE_POINTS, np.bool_)
    is_special[icons()] = True
    listed = string.punctuation + string.digits + string.whitespace + _OTHER_SPECIAL
    is_special[[ord(sign) for sign in listed]] = True
    return is_special


@njit(cache=True)
def character_ratios(
    buffer: NDArray[np.uint8], offsets: NDArray[np.int64], is_special: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """[documents, 2]: share of the most frequent character 10-grams, and share of special characters.

    Most frequent: the first √d of d distinct ones, as many of them as repeat.
    """
    num_documents = len(offsets) - 1
    ratios = np.zeros((num_documents, 2), np.float64)
    longest = longest_span(offsets)
    codes = np.empty(longest, np.uint32)
    size = table_size(longest)
    keys, stamps = np.empty(size, np.uint64), np.zeros(size, np.int64)
    slots, tallies = np.empty(longest, np.int64), np.empty(size, np.int64)
    lead = np.uint64(1)
    for _ in range(CHARACTER_GRAM):
        lead *= HASH_BASE
    for document in range(num_documents):
        num_codes = decode(buffer, offsets[document], offsets[document + 1], codes)
        num_special = 0
        for i in range(num_codes):
            num_special += is_special[codes[i]]
        if num_codes:
            ratios[document, 1] = num_special / num_codes
        num_grams = num_codes - CHARACTER_GRAM + 1
        if num_grams < 1:
            continue
        mask = table_size(num_grams) - 1
        state, num_distinct = np.uint64(0), 0
        for i in range(num_codes):
            state = state * HASH_BASE + np.uint64(codes[i])
            if i < CHARACTER_GRAM - 1:
                continue
            if i >= CHARACTER_GRAM:
                state -= np.uint64(codes[i - CHARACTER_GRAM]) * lead
            slot, is_new = slot_of(keys, stamps, document + 1, mask, finalize(state))
            tallies[slot] = 1 if is_new else tallies[slot] + 1
            if is_new:
                slots[num_distinct] = slot
                num_distinct += 1
        frequencies = tallies[slots[:num_distinct]]
        frequencies = np.sort(frequencies[frequencies > 1])
        num_most = min(int(np.sqrt(num_distinct)), len(frequencies))
        ratios[document, 0] = frequencies[len(frequencies) - num_most :].sum() / num_grams
    return ratios


@njit(cache=True)
def repeated_grams(
    hashes: NDArray[np.uint64], word_offsets: NDArray[np.int64], n: int
) -> NDArray[np.float64]:
    """Share [documents] of the word n-grams that occur more than once; 0 for fewer than n words."""
    num_documents = len(word_offsets) - 1
    shares = np.zeros(num_documents, np.float64)
    longest = longest_span(word_offsets)
    size = table_size(longest)
    keys, stamps = np.empty(size, np.uint64), np.zeros(size, np.int64)
    tallies = np.empty(size, np.int64)
    for document in range(num_documents):
        start, num_grams = word_offsets[document], word_offsets[document + 1] - word_offsets[document] - n + 1
        if num_grams < 1:
            continue
        mask = table_size(num_grams) - 1
        num_repeated = 0
        for i in range(num_grams):
            gram = np.uint64(n)
            for j in range(n):
                gram = extend(gram, hashes[start + i + j])
            slot, is_new = slot_of(keys, stamps, document + 1, mask, gram)
            tallies[slot] = 1 if is_new else tallies[slot] + 1
            # The second occurrence makes the first one count as well.
            num_repeated += 0 if is_new else 2 if tallies[slot] == 2 else 1
        shares[document] = num_repeated / num_grams
    return shares
