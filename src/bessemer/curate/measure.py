"""From texts to the values of every rule, column by column. The words it hashes also make the shingles."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from bessemer.curate.kernels import lines, repetition, words
from bessemer.curate.kernels.characters import character_tables

STOP_WORDS = ("the", "be", "to", "of", "and", "that", "have", "with")
"""Rae et al. 2021, appendix A.1.1."""

Column = NDArray[np.float64]


@dataclass(frozen=True)
class Words:
    """Words of a batch: normalised hashes, lengths in code points, offsets by document."""

    hashes: NDArray[np.uint64]
    lengths: NDArray[np.int32]
    offsets: NDArray[np.int64]


@dataclass(frozen=True)
class Measured:
    """Rule values by name, each [documents], and the words they came from."""

    values: dict[str, Column]
    words: Words


def pack(texts: Sequence[str]) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Texts as one UTF-8 buffer and byte offsets [documents + 1]."""
    encoded = [text.encode() for text in texts]
    offsets = np.zeros(len(encoded) + 1, np.int64)
    np.cumsum([len(text) for text in encoded], out=offsets[1:])
    return np.frombuffer(b"".join(encoded), np.uint8), offsets


@lru_cache(maxsize=1)
def _stop_word_hashes() -> NDArray[np.uint64]:
    return split(" ".join(STOP_WORDS)).hashes


def split(*texts: str) -> Words:
    """The words of some texts."""
    buffer, offsets = pack(texts)
    tables = character_tables()
    hashes, lengths, word_offsets, _ = words.split_words(
        buffer, offsets, tables.classes, tables.lower, np.zeros(0, np.uint64)
    )
    return Words(hashes, lengths, word_offsets)


def measure(texts: Sequence[str]) -> Measured:
    """Values of every dropping rule for each text. A ratio over nothing is 0."""
    buffer, offsets = pack(texts)
    tables = character_tables()
    hashes, lengths, word_offsets, word_counts = words.split_words(
        buffer, offsets, tables.classes, tables.lower, _stop_word_hashes()
    )
    line_counts = lines.count_lines(buffer, offsets, tables.classes)
    coverage = repetition.ngram_coverage(hashes, lengths, word_offsets)
    values = _word_values(texts, word_counts)
    values |= _line_values(line_counts)
    for column, n in enumerate(range(repetition.MIN_TOP, repetition.MAX_DUPLICATE + 1)):
        name = f"gopher.top_{n}_gram" if n <= repetition.MAX_TOP else f"gopher.duplicate_{n}_grams"
        values[name] = coverage[:, column]
    values |= _phrase_values(texts, word_counts[:, words.NUM_WORDS])
    return Measured(values, Words(hashes, lengths, word_offsets))


def _word_values(texts: Sequence[str], counts: NDArray[np.int64]) -> dict[str, Column]:
    num_words = counts[:, words.NUM_WORDS]
    return {
        "gopher.word_count": num_words.astype(np.float64),
        "gopher.mean_word_length": _ratio(counts[:, words.NUM_WORD_CHARACTERS], num_words),
        "gopher.hash_ratio": _ratio(_count(texts, "#"), num_words),
        "gopher.ellipsis_ratio": _ratio(_count(texts, "...") + _count(texts, "…"), num_words),
        "gopher.alphabetic_words": _ratio(counts[:, words.NUM_ALPHABETIC], num_words),
        "gopher.stop_words": counts[:, words.NUM_STOP_WORDS].astype(np.float64),
        "c4.sentences": counts[:, words.NUM_SENTENCES].astype(np.float64),
    }


def _line_values(counts: NDArray[np.int64]) -> dict[str, Column]:
    num_lines, characters = counts[:, lines.NUM_LINES], counts[:, lines.NUM_LINE_CHARACTERS]
    duplicate_characters = _ratio(counts[:, lines.NUM_DUPLICATE_CHARACTERS], characters)
    return {
        "gopher.bullet_lines": _ratio(counts[:, lines.NUM_BULLET], num_lines),
        "gopher.ellipsis_lines": _ratio(counts[:, lines.NUM_ELLIPSIS], num_lines),
        "gopher.duplicate_lines": _ratio(counts[:, lines.NUM_DUPLICATE], num_lines),
        "gopher.duplicate_paragraphs": _ratio(
            counts[:, lines.NUM_DUPLICATE_PARAGRAPHS], counts[:, lines.NUM_PARAGRAPHS]
        ),
        "gopher.duplicate_line_characters": duplicate_characters,
        "gopher.duplicate_paragraph_characters": _ratio(
            counts[:, lines.NUM_DUPLICATE_PARAGRAPH_CHARACTERS], characters
        ),
        "fineweb.terminal_lines": _ratio(counts[:, lines.NUM_TERMINAL], num_lines),
        "fineweb.duplicate_line_characters": duplicate_characters,
        "fineweb.short_lines": _ratio(counts[:, lines.NUM_SHORT], num_lines),
    }


def _phrase_values(texts: Sequence[str], num_words: NDArray[np.int64]) -> dict[str, Column]:
    return {
        "c4.curly_bracket": _count(texts, "{"),
        "c4.lorem_ipsum": _count([text.lower() for text in texts], "lorem ipsum"),
        "fineweb.newlines_per_word": _ratio(_count(texts, "\n"), num_words),
    }


def _count(texts: Sequence[str], phrase: str) -> Column:
    return np.array([text.count(phrase) for text in texts], np.float64)


def _ratio(numerator: NDArray, denominator: NDArray) -> Column:
    result = np.zeros(len(numerator), np.float64)
    return np.divide(numerator, denominator, out=result, where=denominator > 0)
