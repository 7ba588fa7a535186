"""The @datatrove variants against datatrove and spaCy themselves, and the other variants against plain
code."""

from collections import Counter
from functools import lru_cache
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bessemer.curate.edits import datatrove_c4_values, find_edits, remove_spans
from bessemer.curate.kernels.spacy_exceptions import exceptions
from bessemer.curate.kernels.spacy_tables import polynomial_hash
from bessemer.curate.kernels.spacy_words import split_tokens, tokenizer_tables
from bessemer.curate.measure import measure
from bessemer.curate.rules import RULES
from bessemer.curate.texts import pack

DATATROVE = [rule for rule in RULES if rule.name.endswith("@datatrove") and rule.action == "drop"]
TEXTS = [
    "It's don't (can't) U.S.A. e.g. http://a.com/b-c?d=e, foo@bar.com 10km 3.5kg, and/or co-op :) hey:) 9am",
    'US$5 C++ "quoted." ... wait.... 5+3 a,b a.B Mr. Smith\'s «Ärger» 8.8.8.8/abc 10.0.0.1/abc °F. x--y',
    "名前はまだ無い。吾輩は猫である。 नमस्ते दुनिया। Привет, мир! 👍🏽 ™ ½ °C a\u00a0b\u2028c\r\nd",
    "\n\n- one\n• two...\n\nThe cat sat.\n \nThe cat sat.\n\n",
    "The cat sat on the mat today. Is it so?\nWe use cookies on this site.\n"
    "A line with [12] a mark.[edit]\n{ x }.",
    "a b a b a b a b a b a b a b a b the the of\n" * 6,
]


def tokens_of(text: str) -> list[int]:
    no_words = np.zeros(0, np.uint64)
    return split_tokens(*pack([text]), tokenizer_tables(), no_words)[0].tolist()


@lru_cache(maxsize=1)
def _tokenizer(spacy: Any) -> Any:
    return spacy.blank("en").tokenizer


def spacy_tokens(text: str) -> list[int]:
    spacy = pytest.importorskip("spacy")
    tokens = [token.text for token in _tokenizer(spacy)(text)]
    return [polynomial_hash(token) for token in tokens if token.strip()]


@pytest.mark.parametrize("text", TEXTS)
def test_tokens_are_those_of_spacy(text: str):
    assert tokens_of(text) == spacy_tokens(text)


def test_every_listed_exception_of_spacy_is_known_and_splits_alike():
    spacy = pytest.importorskip("spacy")
    from spacy.symbols import ORTH

    rules = spacy.blank("en").tokenizer.rules
    theirs = {text: tuple(part[ORTH] for part in parts) for text, parts in rules.items() if text.strip()}
    assert exceptions() == theirs


@settings(max_examples=150, deadline=None, derandomize=True)
@given(st.lists(st.sampled_from([*"aB9.,:;'\"()-–/+*$%=… é中", "'s", "Mr.", "km", "://"]), max_size=14))
def test_tokens_are_those_of_spacy_on_one_line_of_signs(parts: list[str]):
    # Exceptions that lie across a gap are left to spaCy: `) :` hinders `:)` there and not here.
    text = "".join(parts).split(" ")[0]
    assert tokens_of(text) == spacy_tokens(text)


@pytest.mark.parametrize("text", [*TEXTS, " ".join(TEXTS) * 3])
def test_verdicts_of_all_four_filters_are_those_of_datatrove(text: str):
    filters = pytest.importorskip("datatrove.pipeline.filters")
    from datatrove.data import Document

    values = measure([text], [rule.name for rule in DATATROVE]).values | datatrove_c4_values(*pack([text]))
    failed = {rule.name for rule in DATATROVE if rule.fault(float(values[rule.name][0])) is not None}
    theirs = {
        "gopher": filters.GopherQualityFilter().filter(Document(text=text, id="")) is True
        and filters.GopherRepetitionFilter().filter(Document(text=text, id="")) is True,
        "c4": filters.C4QualityFilter().filter(Document(text=text, id="")) is True,
        "fineweb": filters.FineWebQualityFilter().filter(Document(text=text, id="")) is True,
    }
    ours = {name: not any(rule.startswith(name + ".") for rule in failed) for name in theirs}
    assert ours == theirs


def test_dolma_counts_every_occurrence_and_redpajama_every_character_once():
    text = "one two three four five six. " * 3
    words = text.split()
    grams = Counter(tuple(words[i : i + 5]) for i in range(len(words) - 4))
    total = sum(count * sum(map(len, gram)) for gram, count in grams.items())
    repeated = sum(count * sum(map(len, gram)) for gram, count in grams.items() if count > 1)
    names = ["gopher.duplicate_5_grams@dolma", "gopher.duplicate_5_grams@redpajama"]
    values = measure([text], names).values
    assert values[names[0]][0] == pytest.approx(repeated / total)
    assert values[names[1]][0] == 1.0


def test_refinedweb_takes_capitals_digits_counters_single_words_and_boilerplate():
    text = (
        "BUY NOW TODAY\n123\n1.2K Likes!\nHome\n"
        "Our story began long ago. Read more...\nA quiet line stays here.\n"
    )
    rules = [rule.name for rule in RULES if rule.name.startswith("refinedweb.") and rule.action == "edit"]
    left = "Our story began long ago.\nA quiet line stays here.\n"
    assert remove_spans(text, find_edits(text, rules)) == left
