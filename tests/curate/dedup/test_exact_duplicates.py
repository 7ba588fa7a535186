"""Documents with the same URL or the same text, and the order of the steps."""

import random
from pathlib import Path

import numpy as np
import pytest
from dedup_world import Document, find, random_text, verdicts
from hypothesis import given, settings
from hypothesis import strategies as st

from bessemer.curate.dedup import external_sort
from bessemer.curate.dedup.exact import repeats
from bessemer.curate.dedup.external_sort import ExternalSorter, bits_for, pack


def words(seed: int, num_words: int = 60) -> str:
    return " ".join(random_text(random.Random(seed), num_words))


def test_url_then_text_then_similarity_and_the_first_survives_throughout(tmp_path: Path):
    a, b = words(1), words(2)
    near = a.rsplit(" ", 1)[0] + " end"
    documents = [
        Document(a, "u1"),
        Document(b, "u2"),
        Document(a.upper() + "\n", "u3"),
        Document(b, "u1"),
        Document(near, "u4"),
    ]
    found = find(documents, tmp_path, 2)
    assert verdicts(found) == {
        2: ("duplicates.exact", 0),
        3: ("duplicates.url", 0),
        4: ("duplicates.near", 0),
    }
    assert np.isnan(found.similarity[3])
    assert found.similarity[2] == 1.0
    assert found.similarity[4] == pytest.approx(55 / 57)


def test_a_survivor_that_is_itself_dropped_later_hands_over_to_the_last_survivor(tmp_path: Path):
    a, b = words(1), words(2)
    found = find([Document(a), Document(a, "u"), Document(b, "u")], tmp_path)
    assert verdicts(found) == {1: ("duplicates.exact", 0), 2: ("duplicates.url", 0)}
    assert found.partner[2] == 1


def test_spellings_of_one_url_are_one_page_and_other_urls_are_not(tmp_path: Path):
    urls = [
        "http://example.org/a",
        "http://Example.ORG:80/a",
        "http://example.org/./a#part",
        "http://example.org/%61?utm_source=mail",
        "http://example.org/a/",
        "https://example.org/a",
        "http://example.org/a?page=2",
    ]
    found = find([Document(words(seed), url) for seed, url in enumerate(urls)], tmp_path)
    assert verdicts(found) == dict.fromkeys((1, 2, 3), ("duplicates.url", 0))


def test_documents_that_are_no_captures_of_a_page_have_no_url_in_common(tmp_path: Path):
    found = find([Document(words(seed), None) for seed in range(5)], tmp_path)
    assert verdicts(found) == {}


def test_each_step_can_be_switched_off(tmp_path: Path):
    a = words(1)
    documents = [
        Document(a, "u"),
        Document(words(2), "u"),
        Document(a.upper(), "v"),
        Document(a + " end", "w"),
    ]
    off = {"url_duplicates": False, "exact_duplicates": False, "near_duplicates": False}
    assert verdicts(find(documents, tmp_path / "none", **off)) == {}
    for step, dropped in (("url", 1), ("exact", 2)):
        found = find(documents, tmp_path / step, **off | {f"{step}_duplicates": True})
        assert verdicts(found) == {dropped: (f"duplicates.{step}", 0)}
    near = find(documents, tmp_path / "near", **off | {"near_duplicates": True})
    assert verdicts(near) == {2: ("duplicates.near", 0), 3: ("duplicates.near", 0)}


KEYS = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 2)), max_size=60)


@pytest.mark.parametrize("memory", [1, 1 << 20])
@settings(deadline=None)
@given(keys=KEYS)
def test_first_occurrences_are_those_of_a_dictionary(tmp_path_factory, memory: int, keys: list):
    """Keys of equal first words, which only the second tells apart, and runs of one or two values."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(external_sort, "_LEAST_BLOCK", 2)
        array = np.array(keys, np.uint64).reshape(-1, 2)
        array[:, 0] <<= np.uint64(60)
        bits = bits_for(len(array))
        sorter = ExternalSorter(tmp_path_factory.mktemp("keys"), "test", memory)
        sorter.add(pack(array[:, 0], np.arange(len(array)), bits))
        found = {
            int(later): int(first)
            for later_ones, first_ones in repeats(sorter, bits, lambda numbers: array[numbers])
            for later, first in zip(later_ones, first_ones, strict=True)
        }
    first_of: dict[tuple[int, int], int] = {}
    expected = {}
    for number, key in enumerate(keys):
        first = first_of.setdefault(key, number)
        if first != number:
            expected[number] = first
    assert found == expected
