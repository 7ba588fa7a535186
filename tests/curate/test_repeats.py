"""What the fast paths of the kernels rest on: repeated n-grams against plain code, marks against str."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bessemer.curate.kernels import marks
from bessemer.curate.kernels.c4 import PHRASES, may_mention
from bessemer.curate.kernels.characters import NUM_CODE_POINTS
from bessemer.curate.measure import measure

WORDS = st.lists(st.sampled_from(["a", "b", "ab", "the", "river", "mountain"]), max_size=60)


def within(words: list[str], starts: list[int], n: int) -> int:
    """Characters of the words that lie in any of the n-grams."""
    covered = {i for start in starts for i in range(start, start + n)}
    return sum(len(words[i]) for i in covered)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(WORDS)
def test_repeated_ngrams_are_those_that_plain_code_counts(words: list[str]):
    values = measure([" ".join(words)]).values
    total = max(1, sum(map(len, words)))
    for n in range(2, 11):
        grams = [tuple(words[i : i + n]) for i in range(len(words) - n + 1)]
        counts = Counter(grams)
        top = max(counts.values(), default=0)
        if n <= 4:
            expected = max(
                (
                    within(words, [i for i, gram in enumerate(grams) if gram == wanted], n)
                    for wanted, count in counts.items()
                    if count == top > 1
                ),
                default=0,
            )
        else:
            expected = within(words, [i for i, gram in enumerate(grams) if counts[gram] > 1], n)
        name = f"gopher.top_{n}_gram" if n <= 4 else f"gopher.duplicate_{n}_grams"
        assert values[name][0] == pytest.approx(expected / total)


def test_marks_agree_with_str_on_every_code_point():
    table = marks.character_marks()
    characters = [chr(code) for code in range(NUM_CODE_POINTS)]
    for bit, holds in (
        (marks.SPACE, str.isspace),
        (marks.LETTER, str.isalpha),
        (marks.UPPERCASE, str.isupper),
        (marks.DIGIT, str.isdigit),
        (marks.DECIMAL, str.isdecimal),
    ):
        assert np.array_equal((table & bit) != 0, np.fromiter(map(holds, characters), np.bool_))


@pytest.mark.parametrize("phrase", PHRASES)
def test_a_text_that_mentions_a_phrase_in_any_case_is_looked_at(phrase: str):
    spellings = [phrase, phrase.upper(), phrase.title(), phrase.replace("k", "\u212a").replace("i", "\u0130")]
    for spelling in spellings:
        for text in (spelling, f"x{spelling}", f"We {spelling}."):
            assert may_mention(np.array([ord(sign) for sign in text], np.uint32))
    assert not may_mention(np.array([ord(sign) for sign in "Nothing of the kind."], np.uint32))
