"""fastText's prediction (Joulin et al. 2016, "Bag of tricks"; 2016, "FastText.zip"): the most probable label.

A text is the set of its words and of their character n-grams, each a row of a matrix. The mean of the rows
goes down a Huffman tree of labels (hierarchical softmax) whose every inner node is a logistic regression.

The scores are fastText's own, bit for bit on x86-64: rows are added in its order in float32, and float and
double follow one another as they do in its source. (Elsewhere its compiler may fuse products and sums.)
"""

import math
from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

FNV_OFFSET_32 = np.uint32(0x811C9DC5)
FNV_PRIME_32 = np.uint32(0x01000193)
"""FNV-1a, 32 bits; fastText takes bytes as signed numbers, so those from 128 on reach into the high bits."""
_BEGIN, _END = np.uint32(ord("<")), np.uint32(ord(">"))
"""Around each word, so that n-grams at its ends differ from those within."""
LABEL_PREFIX = b"__label__"
_LABEL_PREFIX = np.frombuffer(LABEL_PREFIX, np.uint8)
_NEWLINE = 10
_TINY = 1e-5
"""Added before each logarithm. Probabilities below it are not looked at."""
_LEAST_SCORE = np.float32(math.log(_TINY))


class Classifier(NamedTuple):
    """A supervised model as the kernel reads it. W entries (words, then labels), R rows, D numbers a row, L
    labels, C chains of the hash table (a power of two)."""

    num_words: int
    """Entries below are words and rows of the same number; those from here on are labels."""
    end_of_line: int
    """Entry of the word that ends a text, `</s>`."""
    min_characters: int
    max_characters: int
    """Of the n-grams of a word with its marks of begin and end; no n-grams where the greatest is 0."""
    max_words: int
    """Of the n-grams of words; 1 where there are none."""
    entry_bytes: NDArray[np.uint8]
    """The entries' UTF-8, one after another."""
    entry_offsets: NDArray[np.int64]
    """[W + 1]"""
    entry_hashes: NDArray[np.uint32]
    """[W]"""
    chained: NDArray[np.int32]
    """[W] entries in the order of their chains."""
    chain_offsets: NDArray[np.int32]
    """[C + 1]; an entry is in the chain that the low bits of its hash name."""
    num_buckets: int
    """The hash of an n-gram is taken modulo this."""
    has_row: NDArray[np.uint64]
    """[buckets / 64, rounded up] a bit a bucket, the lowest first: whether pruning left its n-grams a row."""
    first_rows: NDArray[np.int32]
    """[buckets / 64, rounded up] row of the first bit that is set in this or a later word of `has_row`."""
    rows: NDArray[np.float32]
    """[R, D] of the words, then of the n-grams by bucket."""
    nodes: NDArray[np.float32]
    """[L or L - 1, D] regression of the inner node L + i."""
    node_scales: NDArray[np.float32]
    """[L or L - 1] by which the product with the regression is multiplied."""
    children: NDArray[np.int32]
    """[2 L - 1, 2] left and right of each node; -1 for leaves, which are the first L. The root is last."""


def predict(
    buffer: NDArray[np.uint8], offsets: NDArray[np.int64], model: Classifier
) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """The most probable label of each text of a batch: int32 [texts], and its probability float32 [texts].

    Of each text the first line is read, as fastText does.
    """
    return _predict(buffer, offsets, *model)


@njit(cache=True, nogil=True, error_model="numpy")
def _predict(
    buffer,
    offsets,
    num_words,
    end_of_line,
    min_characters,
    max_characters,
    max_words,
    entry_bytes,
    entry_offsets,
    entry_hashes,
    chained,
    chain_offsets,
    num_buckets,
    has_row,
    first_rows,
    rows,
    nodes,
    node_scales,
    children,
):
    """As `predict`, of a classifier's fields in their order: numba counts references to the arrays of a tuple
    in inner loops, which takes longer than all the rest."""
    num_texts = len(offsets) - 1
    labels = np.empty(num_texts, np.int32)
    probabilities = np.empty(num_texts, np.float32)
    longest = np.int64(0)
    for text in range(num_texts):
        longest = max(longest, offsets[text + 1] - offsets[text])
    num_sizes = max(0, max_characters - max(min_characters, 1) + 1)
    capacity = longest // 2 + 2
    found = np.empty((longest + 2 * capacity) * num_sizes + capacity * max_words, np.int32)
    word = np.empty(longest + 2, np.uint32)
    starts = np.empty(longest + 3, np.int64)
    word_hashes = np.empty(capacity, np.uint32)
    hidden = np.empty(rows.shape[1], np.float32)
    pending = np.empty(len(children), np.int32)
    scores = np.empty(len(children), np.float32)
    for text in range(num_texts):
        position, end = offsets[text], offsets[text + 1]
        num_found = 0
        num_hashes = 0
        while True:
            while position < end and _is_space(buffer[position]) and buffer[position] != _NEWLINE:
                position += 1
            if position == end or buffer[position] == _NEWLINE:
                found[num_found] = end_of_line
                num_found += 1
                word_hashes[num_hashes] = entry_hashes[end_of_line]
                num_hashes += 1
                break
            begin = position
            length, num_characters, state = _mark_word(buffer, begin, end, word, starts)
            position = begin + length - 2
            entry = _find_entry(
                buffer,
                begin,
                position,
                state,
                entry_bytes,
                entry_offsets,
                entry_hashes,
                chained,
                chain_offsets,
            )
            if entry >= num_words or (entry < 0 and _starts_as_label(buffer, begin, position)):
                continue
            word_hashes[num_hashes] = state
            num_hashes += 1
            if entry >= 0:
                found[num_found] = entry
                num_found += 1
            if entry == end_of_line:
                break
            num_found = _find_character_ngrams(
                word,
                starts,
                num_characters,
                min_characters,
                max_characters,
                num_buckets,
                has_row,
                first_rows,
                found,
                num_found,
            )
        num_found = _find_word_ngrams(
            word_hashes, num_hashes, max_words, num_buckets, has_row, first_rows, found, num_found
        )
        _mean(rows, found, num_found, hidden)
        labels[text], score = _best_leaf(children, nodes, node_scales, hidden, pending, scores)
        probabilities[text] = math.exp(score)
    return labels, probabilities


@njit(cache=True, nogil=True, error_model="numpy")
def _mark_word(buffer, begin, end, word, starts):
    """Write the word that begins here between marks to `word`, and where its characters start to `starts`.

    Returns its length with marks, its characters with marks, and its hash without.
    """
    state = FNV_OFFSET_32
    word[0] = _BEGIN
    starts[0] = 0
    length = 1
    num_characters = 1
    position = begin
    while position < end and not _is_space(buffer[position]):
        byte = buffer[position]
        if byte & 0xC0 != 0x80:
            starts[num_characters] = length
            num_characters += 1
        signed = np.uint32(np.int8(byte))
        word[length] = signed
        state = np.uint32((state ^ signed) * FNV_PRIME_32)
        length += 1
        position += 1
    word[length] = _END
    starts[num_characters] = length
    starts[num_characters + 1] = length + 1
    return length + 1, num_characters + 1, state


@njit(cache=True, nogil=True, error_model="numpy")
def _is_space(byte):
    """What parts words for fastText: NUL, blank, and the controls from tab to carriage return."""
    return byte == 32 or byte == 0 or 9 <= byte <= 13


@njit(cache=True, nogil=True, error_model="numpy")
def _starts_as_label(buffer, begin, end):
    """Whether fastText would take a word that it does not know for a label, and pass over it."""
    same = 0
    while same < len(_LABEL_PREFIX) and begin + same < end and buffer[begin + same] == _LABEL_PREFIX[same]:
        same += 1
    return same == len(_LABEL_PREFIX)


@njit(cache=True, nogil=True, error_model="numpy")
def _find_entry(buffer, begin, end, state, entry_bytes, entry_offsets, entry_hashes, chained, chain_offsets):
    """The entry of a word with this hash, or -1."""
    chain = np.int64(state) & (len(chain_offsets) - 2)
    for place in range(chain_offsets[chain], chain_offsets[chain + 1]):
        entry = chained[place]
        start = entry_offsets[entry]
        if entry_hashes[entry] != state or entry_offsets[entry + 1] - start != end - begin:
            continue
        same = 0
        while same < end - begin and entry_bytes[start + same] == buffer[begin + same]:
            same += 1
        if same == end - begin:
            return np.int64(entry)
    return np.int64(-1)


@njit(cache=True, nogil=True, error_model="numpy")
def _find_character_ngrams(
    word,
    starts,
    num_characters,
    min_characters,
    max_characters,
    num_buckets,
    has_row,
    first_rows,
    found,
    num_found,
):
    """Add the rows of a word's n-grams to `found`: by where they begin, then by length."""
    for first in range(num_characters):
        state = FNV_OFFSET_32
        position = starts[first]
        for after in range(first + 1, min(first + max_characters, num_characters) + 1):
            while position < starts[after]:
                state = np.uint32((state ^ word[position]) * FNV_PRIME_32)
                position += 1
            size = after - first
            is_lone_mark = size == 1 and (first == 0 or after == num_characters)
            if size >= min_characters and not is_lone_mark:
                row = _ngram_row(state % np.uint32(num_buckets), has_row, first_rows)
                if row >= 0:
                    found[num_found] = row
                    num_found += 1
    return num_found


@njit(cache=True, nogil=True, error_model="numpy")
def _find_word_ngrams(word_hashes, num_hashes, max_words, num_buckets, has_row, first_rows, found, num_found):
    """Add the rows of the n-grams of two and more words to `found`."""
    if max_words < 2:
        return num_found
    for first in range(num_hashes):
        # fastText keeps a hash in a signed number, which widens with its sign.
        state = np.uint64(np.int32(word_hashes[first]))
        for last in range(first + 1, min(first + max_words, num_hashes)):
            state = state * np.uint64(116049371) + np.uint64(np.int32(word_hashes[last]))
            row = _ngram_row(state % np.uint64(num_buckets), has_row, first_rows)
            if row >= 0:
                found[num_found] = row
                num_found += 1
    return num_found


@njit(cache=True, nogil=True, error_model="numpy")
def _ngram_row(bucket, has_row, first_rows):
    """The row of the n-grams in a bucket, or -1."""
    place = bucket >> np.uint64(6)
    bits = has_row[place]
    bit = np.uint64(1) << (bucket & np.uint64(63))
    if bits & bit == 0:
        return -1
    return first_rows[place] + _count_bits(bits & (bit - np.uint64(1)))


@njit(cache=True, nogil=True, error_model="numpy")
def _count_bits(bits):
    """In ever wider fields (Wegner 1960; Warren, "Hacker's Delight", 5-1)."""
    bits -= (bits >> np.uint64(1)) & np.uint64(0x5555555555555555)
    bits = (bits & np.uint64(0x3333333333333333)) + ((bits >> np.uint64(2)) & np.uint64(0x3333333333333333))
    bits = (bits + (bits >> np.uint64(4))) & np.uint64(0x0F0F0F0F0F0F0F0F)
    return np.int64((bits * np.uint64(0x0101010101010101)) >> np.uint64(56))


@njit(cache=True, nogil=True, error_model="numpy")
def _mean(rows, found, num_found, mean):
    """Mean of the first `num_found` of the found rows, added one by one in float32."""
    mean[:] = 0
    for i in range(num_found):
        row = found[i]
        for d in range(len(mean)):
            mean[d] += rows[row, d]
    scale = np.float32(1.0 / num_found)
    for d in range(len(mean)):
        mean[d] *= scale


@njit(cache=True, nogil=True, error_model="numpy")
def _best_leaf(children, nodes, node_scales, hidden, pending, scores):
    """The leaf of the greatest sum of log-probabilities on its path, and the sum; depth first, left first.

    Of equal leaves the last one wins. `pending` and `scores` are scratch.
    """
    num_leaves = (len(children) + 1) // 2
    best, best_score = -1, np.float32(-np.inf)
    pending[0] = len(children) - 1
    scores[0] = 0
    num_pending = 1
    while num_pending > 0:
        num_pending -= 1
        node, score = pending[num_pending], scores[num_pending]
        if score < _LEAST_SCORE or (best >= 0 and score < best_score):
            continue
        if node < num_leaves:
            best, best_score = node, score
            continue
        product = np.float32(0)
        for d in range(len(hidden)):
            product += nodes[node - num_leaves, d] * hidden[d]
        product *= node_scales[node - num_leaves]
        right = np.float32(1.0 / np.float64(np.float32(1) + math.exp(-product)))
        left = np.float32(1.0 - np.float64(right))
        pending[num_pending], scores[num_pending] = children[node, 1], score + _log(right)
        pending[num_pending + 1], scores[num_pending + 1] = children[node, 0], score + _log(left)
        num_pending += 2
    return best, best_score


@njit(cache=True, nogil=True, error_model="numpy")
def _log(probability):
    return np.float32(math.log(np.float64(probability) + _TINY))
