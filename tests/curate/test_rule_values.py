"""Rule values against the slow reference, on real languages and on adversarial strings."""

import sys
import unicodedata

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from rule_reference import normalise, reference_values

from bessemer.curate.kernels.characters import (
    LETTER,
    PUNCTUATION,
    SPACE,
    character_tables,
)
from bessemer.curate.measure import ALWAYS_MEASURED, measure, split

TEXTS = {
    "english": "The cat sat on the mat. It is...\n\n- one\n- two\n\nThe cat sat on the mat. It is...",
    "german": "„Größe“ ist relativ – sagt Ärger über Öl. ÄRGER über Öl! Straße und STRASSE sind zwei.",
    "russian": "Привет, мир! Это ПРИВЕТ мир. Привет, мир! Это привет мир, и снова привет мир.",
    "japanese": "吾輩は猫である。名前はまだ無い。\n吾輩は猫である。名前はまだ無い。",
    "hindi": "नमस्ते दुनिया। यह एक वाक्य है। नमस्ते दुनिया।",
    "code": "def f(x):\n    return {x: 1}\n\ndef f(x):\n    return {x: 1}\n# --- ### ...",
    "emoji": "Great 👍🏽 👍🏽 👍🏽 job 𝒳 𝒳 𝒳 İstanbul İSTANBUL",
    "dots": "wait. . . what.... (really...)\nend of it…",
    "empty": "",
    "blank": " \n\t\n ",
    "one word": "word",
}
words_and_gaps = st.lists(
    st.tuples(
        st.sampled_from(
            ["a", "The", "the,", "«Ärger»", "###", "...", "…", "-", "x.", "猫。", "1", "𝒳", "{", "b.)"]
        ),
        st.sampled_from([" ", " ", " ", "\n", "\n\n", "\n \n", "\t", "\u2003"]),
    ),
    max_size=60,
).map(lambda pairs: "".join(word + gap for word, gap in pairs))
any_text = st.text(max_size=60).map(lambda text: text.encode("utf-8", "ignore").decode())


def assert_agrees(texts: list[str]) -> None:
    values = measure(texts).values
    assert set(values) == ALWAYS_MEASURED
    for i, text in enumerate(texts):
        expected = reference_values(text)
        measured = {name: column[i] for name, column in values.items()}
        assert measured == pytest.approx(expected, abs=1e-12), text


def test_every_value_agrees_with_the_reference_on_many_scripts_in_one_batch():
    assert_agrees(list(TEXTS.values()))


@settings(max_examples=150, deadline=None, derandomize=True)
@given(st.lists(words_and_gaps, min_size=1, max_size=3))
@example(["a a a a", "", "the the the the the the the the the the the the"])
def test_every_value_agrees_with_the_reference_on_repetitive_text(texts: list[str]):
    assert_agrees(texts)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(any_text)
def test_every_value_agrees_with_the_reference_on_any_unicode(text: str):
    assert_agrees([text])


@settings(max_examples=100, deadline=None, derandomize=True)
@given(any_text)
def test_words_hash_equal_exactly_when_their_normal_forms_are_equal(text: str):
    forms = [normalise(word) for word in text.split()]
    hashes = split(text).hashes.tolist()
    assert len(hashes) == len(forms)
    assert len(set(hashes)) == len(set(forms))
    assert len(set(zip(forms, hashes, strict=True))) == len(set(forms))


def test_character_tables_agree_with_python_on_every_code_point():
    tables = character_tables()
    characters = [chr(code_point) for code_point in range(sys.maxunicode + 1)]
    for bit, is_kind in ((LETTER, str.isalpha), (SPACE, str.isspace)):
        assert np.array_equal((tables.classes & bit) != 0, [is_kind(c) for c in characters])
    punctuation = [unicodedata.category(c)[0] in "PS" for c in characters]
    assert np.array_equal((tables.classes & PUNCTUATION) != 0, punctuation)
    lower = [ord(c.lower()[0]) for c in characters]
    assert np.array_equal(tables.lower, lower)


def test_a_repeated_bigram_covers_each_character_once_however_it_overlaps():
    values = measure(["spam spam spam spam"]).values
    assert values["gopher.top_2_gram"][0] == 1.0
    assert values["gopher.duplicate_5_grams"][0] == 0.0


def test_the_values_of_a_document_do_not_depend_on_its_neighbours():
    texts = list(TEXTS.values())
    together = measure(texts).values
    for i, text in enumerate(texts):
        for name, column in measure([text]).values.items():
            assert column[0] == together[name][i]
