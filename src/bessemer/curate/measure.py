"""From texts to the values of rules, column by column. The words it hashes also make the shingles."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from bessemer.curate.edits import EDIT_VALUES
from bessemer.curate.kernels import lines, repetition, signs, words
from bessemer.curate.kernels.characters import character_tables
from bessemer.curate.rules import RULES
from bessemer.curate.rules.gopher import STOP_WORDS
from bessemer.curate.texts import Column, pack, ratio

__all__ = ["ALWAYS_MEASURED", "Column", "Measured", "Words", "measure", "pack", "split"]

ALWAYS_MEASURED = frozenset(
    rule.name
    for rule in RULES
    if rule.action == "drop" and not rule.is_on_demand and rule.name not in EDIT_VALUES
)
"""Rules whose values `measure` gives without being asked."""


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


def measure(texts: Sequence[str], on_demand: Collection[str] = (), bad_words: Sequence[str] = ()) -> Measured:
    """Values for each text of every rule that is always measured, and of those `on_demand`.

    A ratio over nothing is 0. `bad_words` is the list that `c4.bad_words` counts by.
    """
    buffer, offsets = pack(texts)
    tables = character_tables()
    hashes, lengths, word_offsets, word_counts = words.split_words(
        buffer, offsets, tables.classes, tables.lower, _stop_word_hashes()
    )
    split_words = Words(hashes, lengths, word_offsets)
    sign_counts = signs.count_signs(buffer, offsets)
    values = _word_values(word_counts, sign_counts)
    values |= _line_values(lines.count_lines(buffer, offsets, tables.classes))
    coverage = repetition.ngram_coverage(hashes, lengths, word_offsets)
    for column, n in enumerate(range(repetition.MIN_TOP, repetition.MAX_DUPLICATE + 1)):
        values[ngram_rule(n)] = coverage[:, column]
    if on_demand:
        from bessemer.curate import measure_variants  # its many kernels take 20 ms to import

        wanted = measure_variants.Batch(texts, buffer, offsets, hashes, word_offsets, tuple(bad_words))
        values |= measure_variants.measure_on_demand(wanted, on_demand)
    return Measured(values, split_words)


def ngram_rule(n: int) -> str:
    """Name of the rule about n-grams of n words."""
    return f"gopher.top_{n}_gram" if n <= repetition.MAX_TOP else f"gopher.duplicate_{n}_grams"


def _word_values(counts: NDArray[np.int64], sign_counts: NDArray[np.int64]) -> dict[str, Column]:
    num_words = counts[:, words.NUM_WORDS]
    num_sentences = counts[:, words.NUM_SENTENCES].astype(np.float64)
    return {
        "gopher.word_count": num_words.astype(np.float64),
        "gopher.mean_word_length": ratio(counts[:, words.NUM_WORD_CHARACTERS], num_words),
        "gopher.hash_ratio": ratio(sign_counts[:, signs.NUM_HASH_SIGNS], num_words),
        "gopher.ellipsis_ratio": ratio(sign_counts[:, signs.NUM_ELLIPSES], num_words),
        "gopher.alphabetic_words": ratio(counts[:, words.NUM_ALPHABETIC], num_words),
        "gopher.stop_words": counts[:, words.NUM_STOP_WORDS].astype(np.float64),
        "c4.sentences": num_sentences,
        "c4.sentences@v1": num_sentences,
        "c4.curly_bracket": sign_counts[:, signs.NUM_CURLY_BRACKETS].astype(np.float64),
        "c4.lorem_ipsum": sign_counts[:, signs.NUM_LOREM_IPSUM].astype(np.float64),
        "fineweb.newlines_per_word": ratio(sign_counts[:, signs.NUM_NEWLINES], num_words),
    }


def _line_values(counts: NDArray[np.int64]) -> dict[str, Column]:
    num_lines, characters = counts[:, lines.NUM_LINES], counts[:, lines.NUM_LINE_CHARACTERS]
    duplicate_characters = ratio(counts[:, lines.NUM_DUPLICATE_CHARACTERS], characters)
    return {
        "gopher.bullet_lines": ratio(counts[:, lines.NUM_BULLET], num_lines),
        "gopher.ellipsis_lines": ratio(counts[:, lines.NUM_ELLIPSIS], num_lines),
        "gopher.duplicate_lines": ratio(counts[:, lines.NUM_DUPLICATE], num_lines),
        "gopher.duplicate_paragraphs": ratio(
            counts[:, lines.NUM_DUPLICATE_PARAGRAPHS], counts[:, lines.NUM_PARAGRAPHS]
        ),
        "gopher.duplicate_line_characters": duplicate_characters,
        "gopher.duplicate_paragraph_characters": ratio(
            counts[:, lines.NUM_DUPLICATE_PARAGRAPH_CHARACTERS], characters
        ),
        "c4.long_lines": counts[:, lines.NUM_LONG].astype(np.float64),
        "fineweb.terminal_lines": ratio(counts[:, lines.NUM_TERMINAL], num_lines),
        "fineweb.duplicate_line_characters": duplicate_characters,
        "fineweb.duplicate_line_characters@appendix": duplicate_characters,
        "fineweb.short_lines": ratio(counts[:, lines.NUM_SHORT], num_lines),
    }
