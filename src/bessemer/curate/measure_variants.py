"""Values of the rules that are measured on demand: the variants, by the tool that they follow, and
BigScience's.

Each family shares its work (a tokenizer, above all), so that the first rule of a family costs most.
"""

import string
import unicodedata
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from bessemer.curate.kernels import bigscience, datatrove_lines, ngrams, plain_words, repetition, spacy_words
from bessemer.curate.kernels.marks import character_marks
from bessemer.curate.kernels.phrases import Automaton, build_automaton, count_words
from bessemer.curate.kernels.spacy_tables import polynomial_hash
from bessemer.curate.rules.gopher import STOP_WORDS
from bessemer.curate.texts import Column, pack, ratio

_NO_STOP_WORDS = np.zeros(0, np.uint64)
_WITHOUT_PUNCTUATION = str.maketrans("", "", string.punctuation)
_TOP = range(repetition.MIN_TOP, repetition.MAX_TOP + 1)
_DUPLICATE = range(repetition.MAX_TOP + 1, repetition.MAX_DUPLICATE + 1)


@dataclass(frozen=True)
class Batch:
    """Texts, as they are and as the kernels read them, and their normalised words."""

    texts: Sequence[str]
    buffer: NDArray[np.uint8]
    offsets: NDArray[np.int64]
    word_hashes: NDArray[np.uint64]
    word_offsets: NDArray[np.int64]
    bad_words: tuple[str, ...] = ()


def measure_on_demand(batch: Batch, wanted: Collection[str]) -> dict[str, Column]:
    """Values of the wanted rules, and of those that come with them at no further cost."""
    values: dict[str, Column] = {}
    for mark, family in _FAMILIES.items():
        if any(mark in name for name in wanted):
            values |= family(batch)
    return values


def _datatrove(batch: Batch) -> dict[str, Column]:
    """datatrove 0.10.1: Gopher quality and repetition, FineWeb."""
    tables = spacy_words.tokenizer_tables()
    hashes, lengths, heads, token_offsets, counts = spacy_words.split_tokens(
        batch.buffer, batch.offsets, tables, _datatrove_stop_words()
    )
    pieces = datatrove_lines.count_datatrove_lines(batch.buffer, batch.offsets, character_marks())
    grams = ngrams.datatrove_ngrams(hashes, lengths, heads, token_offsets, tables.powers)
    num_characters = counts[:, spacy_words.NUM_CODE_POINTS]
    values = _datatrove_quality(counts, pieces)
    values |= _datatrove_lines(pieces, num_characters)
    for column, n in enumerate((*_TOP, *_DUPLICATE)):
        values[_ngram_rule(n, "datatrove")] = ratio(grams[:, column], num_characters)
    values["fineweb.newlines_per_word@datatrove"] = ratio(
        pieces[:, datatrove_lines.NUM_NEWLINES], counts[:, spacy_words.NUM_TOKENS]
    )
    return values


@lru_cache(maxsize=1)
def _datatrove_stop_words() -> NDArray[np.uint64]:
    return np.array([polynomial_hash(word) for word in STOP_WORDS], np.uint64)


def _datatrove_quality(counts: NDArray[np.int64], pieces: NDArray[np.int64]) -> dict[str, Column]:
    num_tokens, num_words = counts[:, spacy_words.NUM_TOKENS], counts[:, spacy_words.NUM_WORDS]
    num_lines = pieces[:, datatrove_lines.NUM_LINES]
    return {
        "gopher.word_count@datatrove": num_words.astype(np.float64),
        "gopher.mean_word_length@datatrove": ratio(counts[:, spacy_words.NUM_WORD_CHARACTERS], num_words),
        "gopher.hash_ratio@datatrove": ratio(pieces[:, datatrove_lines.NUM_HASH_SIGNS], num_tokens),
        "gopher.ellipsis_ratio@datatrove": ratio(pieces[:, datatrove_lines.NUM_ELLIPSES], num_tokens),
        "gopher.bullet_lines@datatrove": ratio(pieces[:, datatrove_lines.NUM_BULLET], num_lines),
        "gopher.ellipsis_lines@datatrove": ratio(pieces[:, datatrove_lines.NUM_ELLIPSIS], num_lines),
        "gopher.alphabetic_words@datatrove": ratio(counts[:, spacy_words.NUM_ALPHABETIC], num_tokens),
        "gopher.stop_words@datatrove": counts[:, spacy_words.NUM_STOP_WORDS].astype(np.float64),
    }


def _datatrove_lines(pieces: NDArray[np.int64], num_characters: NDArray[np.int64]) -> dict[str, Column]:
    num_filled = pieces[:, datatrove_lines.NUM_FILLED]
    return {
        "gopher.duplicate_lines@datatrove": ratio(
            pieces[:, datatrove_lines.NUM_DUPLICATE], pieces[:, datatrove_lines.NUM_PIECES]
        ),
        "gopher.duplicate_paragraphs@datatrove": ratio(
            pieces[:, datatrove_lines.NUM_DUPLICATE_PARAGRAPHS], pieces[:, datatrove_lines.NUM_PARAGRAPHS]
        ),
        "gopher.duplicate_line_characters@datatrove": ratio(
            pieces[:, datatrove_lines.NUM_DUPLICATE_CHARACTERS], num_characters
        ),
        "gopher.duplicate_paragraph_characters@datatrove": ratio(
            pieces[:, datatrove_lines.NUM_DUPLICATE_PARAGRAPH_CHARACTERS], num_characters
        ),
        "fineweb.lines@datatrove": num_filled.astype(np.float64),
        "fineweb.terminal_lines@datatrove": ratio(pieces[:, datatrove_lines.NUM_STOPPED], num_filled),
        "fineweb.short_lines@datatrove": ratio(pieces[:, datatrove_lines.NUM_SHORT], num_filled),
        "fineweb.duplicate_line_characters@datatrove": ratio(
            pieces[:, datatrove_lines.NUM_DUPLICATE_FILLED_CHARACTERS],
            num_characters - pieces[:, datatrove_lines.NUM_NEWLINES],
        ),
    }


def _dolma(batch: Batch) -> dict[str, Column]:
    """dolma 1.2.1, tagger `gopher_v1`."""
    hashes, lengths, word_offsets, counts = plain_words.split_plain_words(
        batch.buffer, batch.offsets, character_marks(), _dolma_stop_words()
    )
    grams = ngrams.occurrence_ngrams(hashes, lengths, word_offsets)
    num_words, num_lines = counts[:, plain_words.NUM_WORDS], counts[:, plain_words.NUM_LINES]
    characters = counts[:, plain_words.NUM_WORD_CHARACTERS]
    values = {
        "gopher.word_count@dolma": num_words.astype(np.float64),
        "gopher.median_word_length@dolma": counts[:, plain_words.TWICE_MEDIAN_LENGTH] / 2,
        "gopher.symbol_ratio@dolma": ratio(counts[:, plain_words.NUM_SYMBOL_WORDS], num_words),
        "gopher.alphabetic_words@dolma": ratio(counts[:, plain_words.NUM_ALPHABETIC], num_words),
        "gopher.stop_words@dolma": counts[:, plain_words.NUM_STOP_WORDS].astype(np.float64),
        "gopher.bullet_lines@dolma": ratio(counts[:, plain_words.NUM_BULLET], num_lines),
        "gopher.ellipsis_lines@dolma": ratio(counts[:, plain_words.NUM_ELLIPSIS], num_lines),
        "gopher.duplicate_lines@dolma": ratio(counts[:, plain_words.NUM_REPEATED], num_lines),
        "gopher.duplicate_line_characters@dolma": counts[:, plain_words.NUM_REPEATED_CHARACTERS]
        / np.maximum(characters, 1),
    }
    for column, n in enumerate(_TOP):
        values[_ngram_rule(n, "dolma")] = ratio(grams[:, column], characters)
    for column, n in enumerate(_DUPLICATE, len(_TOP)):
        values[_ngram_rule(n, "dolma")] = ratio(grams[:, column], grams[:, column + len(_DUPLICATE)])
    return values


@lru_cache(maxsize=1)
def _dolma_stop_words() -> NDArray[np.uint64]:
    return _plain_words([" ".join(STOP_WORDS)])[0]


def _plain_words(texts: Sequence[str]) -> tuple[NDArray, NDArray, NDArray, NDArray]:
    return plain_words.split_plain_words(*pack(texts), character_marks(), _NO_STOP_WORDS)


def _redpajama(batch: Batch) -> dict[str, Column]:
    """RedPajama-Data v2, on its normalised text: no ASCII punctuation, lower case, NFD."""
    normal = [
        unicodedata.normalize("NFD", text.translate(_WITHOUT_PUNCTUATION).lower()) for text in batch.texts
    ]
    hashes, lengths, word_offsets, counts = _plain_words(normal)
    characters = counts[:, plain_words.NUM_WORD_CHARACTERS]
    grams = ngrams.occurrence_ngrams(hashes, lengths, word_offsets)
    coverage = repetition.ngram_coverage(hashes, lengths, word_offsets)
    values = {}
    num_repeats = grams[:, len(_TOP) + 2 * len(_DUPLICATE) :]
    for column, n in enumerate(_TOP):
        covered = np.where(num_repeats[:, column] > 1, grams[:, column], 0)
        values[_ngram_rule(n, "redpajama")] = ratio(covered, characters)
    for column, n in enumerate(_DUPLICATE, len(_TOP)):
        values[_ngram_rule(n, "redpajama")] = coverage[:, column]
    return values


def _bigscience(batch: Batch) -> dict[str, Column]:
    ratios = bigscience.character_ratios(batch.buffer, batch.offsets, bigscience.special_characters())
    repeated = bigscience.repeated_grams(batch.word_hashes, batch.word_offsets, bigscience.WORD_GRAM)
    return {
        "bigscience.character_repetition": ratios[:, 0],
        "bigscience.special_characters": ratios[:, 1],
        "bigscience.word_repetition": repeated,
    }


def _bad_words(batch: Batch) -> dict[str, Column]:
    if not batch.bad_words:
        return {}
    automaton = _bad_words_automaton(batch.bad_words)
    return {"c4.bad_words": count_words(batch.buffer, batch.offsets, automaton, character_marks())}


@lru_cache(maxsize=4)
def _bad_words_automaton(bad_words: tuple[str, ...]) -> Automaton:
    return build_automaton(bad_words)


def _ngram_rule(n: int, variant: str) -> str:
    stem = f"gopher.top_{n}_gram" if n in _TOP else f"gopher.duplicate_{n}_grams"
    return f"{stem}@{variant}"


_FAMILIES: dict[str, Callable[[Batch], dict[str, Column]]] = {
    "@datatrove": _datatrove,
    "@dolma": _dolma,
    "@redpajama": _redpajama,
    "bigscience.": _bigscience,
    "c4.bad_words": _bad_words,
}
"""By what the names of a family's rules have in common."""
