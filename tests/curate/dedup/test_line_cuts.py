"""Repeated paragraphs and repeated runs of words, against plain Python; whole lines only, the first stays."""

import random
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from dedup_world import Document, find, plain_words, random_text
from hypothesis import given, settings
from hypothesis import strategies as st

from bessemer.curate.dedup import banding, cuts, external_sort
from bessemer.curate.dedup.cutting import Span, cut_lines, places_before_edits
from bessemer.curate.dedup.resolve import Duplicates
from bessemer.curate.edits import Edit, remove_spans
from bessemer.curate.kernels.substrings import winnow

OFF = {"url_duplicates": False, "exact_duplicates": False, "near_duplicates": False}
PARAGRAPHS = OFF | {"paragraph_duplicates": True}
SUBSTRINGS = OFF | {"substring_duplicates": True}


def cut(found: Duplicates) -> set[tuple[int, int]]:
    return set(zip(found.cuts.rows.tolist(), found.cuts.lines.tolist(), strict=True))


def repeated_lines(texts: Sequence[str], min_words: int) -> set[tuple[int, int]]:
    """Row and line of every long enough line whose words stood in a line before."""
    seen, repeated = set(), set()
    for row, text in enumerate(texts):
        for number, line in enumerate(text.split("\n")):
            words = tuple(plain_words(line))
            if len(words) >= min_words:
                if words in seen:
                    repeated.add((row, number))
                seen.add(words)
    return repeated


LINES = st.lists(st.lists(st.sampled_from(["a", "b", "c."]), max_size=4).map(" ".join), max_size=6)


@settings(max_examples=60, deadline=None)
@given(st.lists(LINES.map("\n".join), min_size=1, max_size=8))
def test_repeated_paragraphs_are_those_of_a_set_of_lines(tmp_path_factory, texts: list[str]):
    found = find(texts, tmp_path_factory.mktemp("p"), 3, min_paragraph_words=2, **PARAGRAPHS)
    assert cut(found) == repeated_lines(texts, 2)


def shared_runs(a: list[str], b: list[str], min_words: int) -> Iterator[tuple[int, int]]:
    """Maximal runs of `b` that `a` has too."""
    for at_a in range(len(a)):
        for at_b in range(len(b)):
            if a[at_a] != b[at_b] or (at_a and at_b and a[at_a - 1] == b[at_b - 1]):
                continue
            length = 0
            while at_a + length < len(a) and at_b + length < len(b) and a[at_a + length] == b[at_b + length]:
                length += 1
            if length >= min_words:
                yield at_b, at_b + length


def covered_lines(texts: Sequence[str], min_words: int) -> set[tuple[int, int]]:
    """Lines whose every word lies in a run that an earlier text has too, by comparing all pairs."""
    split = [plain_words(text) for text in texts]
    lines = set()
    for row, text in enumerate(texts):
        covered: set[int] = set()
        for earlier in range(row):
            for start, end in shared_runs(split[earlier], split[row], min_words):
                covered |= set(range(start, end))
        position = 0
        for number, line in enumerate(text.split("\n")):
            end = position + len(line.split())
            if end > position and set(range(position, end)) <= covered:
                lines.add((row, number))
            position = end
    return lines


FEW_WORDS = st.lists(st.sampled_from(["a", "b", "c", "d\n", "\n", "e"]), max_size=25).map(" ".join)


@settings(max_examples=100, deadline=None)
@given(st.lists(FEW_WORDS, min_size=2, max_size=4))
def test_lines_of_repeated_runs_are_those_of_comparing_all_texts(tmp_path_factory, texts: list[str]):
    folder = tmp_path_factory.mktemp("s")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cuts, "WINDOW", 10_000)
        found = find(texts, folder, 2, min_substring_words=5, **SUBSTRINGS)
    assert cut(found) == covered_lines(texts, 5)


def texts_with_shared_runs(num_texts: int = 60) -> list[str]:
    random_ = random.Random(3)
    runs = [random_text(random_, 70) for _ in range(5)]
    texts = []
    for _ in range(num_texts):
        words = random_text(random_, 40) + random_.choice(runs)[: random_.randrange(30, 70)]
        words += random_text(random_, 30) + random_.choice(runs)[random_.randrange(0, 40) :]
        lines, start = [], 0
        while start < len(words):
            length = random_.randrange(1, 12)
            lines.append(" ".join(words[start : start + length]))
            start += length
        texts.append("\n".join(lines))
    return texts


def test_longer_texts_lose_the_lines_that_comparing_all_of_them_finds(tmp_path: Path):
    texts = texts_with_shared_runs()
    expected = covered_lines(texts, 50)
    found = cut(find(texts, tmp_path, min_substring_words=50, **SUBSTRINGS))
    assert len(expected) > 100
    assert found <= expected
    assert len(found) >= 0.98 * len(expected), "in large buckets not every pair of texts is compared"


def test_cuts_depend_on_nothing_but_the_texts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    texts = texts_with_shared_runs()
    both = SUBSTRINGS | {"paragraph_duplicates": True, "min_paragraph_words": 4}
    expected = find(texts, tmp_path / "one", 100, **both)
    monkeypatch.setattr(external_sort, "_LEAST_BLOCK", 5)
    monkeypatch.setattr(banding, "_PIECE", 7)
    monkeypatch.setattr(cuts, "_PIECE", 7)
    small = find(texts, tmp_path / "two", 4, num_threads=3, duplicate_memory=1 << 16, **both)
    for name in ("rows", "lines", "is_paragraph"):
        assert np.array_equal(getattr(small.cuts, name), getattr(expected.cuts, name))
    assert expected.cuts.is_paragraph.any()
    assert not expected.cuts.is_paragraph.all()


def test_only_documents_that_stay_count_as_earlier_ones(tmp_path: Path):
    line = " ".join(random_text(random.Random(0), 12))
    own = ["\n".join(random_text(random.Random(i), 12)) for i in (1, 2)]
    documents = [Document("x", "u"), Document(f"{line}\n{own[0]}", "u"), Document(f"{line}\n{own[1]}", "v")]
    settings = {"paragraph_duplicates": True, "near_duplicates": False}
    assert cut(find(documents, tmp_path / "dropped", **settings)) == set()
    documents[1].url = "w"
    assert cut(find(documents, tmp_path / "kept", **settings)) == {(2, 0)}


def test_a_run_within_one_line_is_not_cut_mid_line(tmp_path: Path):
    run = " ".join(random_text(random.Random(0), 60))
    texts = [f"before {run}", f"{run} after", f"own line\n{run}\nown end"]
    assert cut(find(texts, tmp_path, **SUBSTRINGS)) == {(2, 1)}


def test_a_text_that_repeats_itself_is_no_matter_of_other_documents(tmp_path: Path):
    line = " ".join(random_text(random.Random(0), 60))
    assert cut(find([f"{line}\n{line}\n{line}"], tmp_path, **SUBSTRINGS)) == set()


@given(st.lists(st.integers(0, 3), max_size=80), st.integers(2, 5), st.integers(1, 6))
def test_every_window_holds_a_seed_and_equal_windows_hold_equal_ones(
    words: list[int], gram: int, window: int
):
    hashes = np.array(words, np.uint64)
    seeds, _, positions = winnow(hashes, np.array([0, len(words)]), gram, window)
    num_grams = len(words) - gram + 1
    for start in range(num_grams - window + 1):
        assert ((positions >= start) & (positions < start + window)).any()
    grams = {tuple(words[p : p + gram]): seed for p, seed in zip(positions.tolist(), seeds, strict=True)}
    for p, seed in zip(positions.tolist(), seeds, strict=True):
        assert grams[tuple(words[p : p + gram])] == seed
    assert (np.diff(positions) > 0).all()


def test_seeds_of_a_constant_text_stay_sparse():
    hashes = np.zeros(1000, np.uint64)
    seeds, _, _ = winnow(hashes, np.array([0, 1000]), 5, 10)
    assert len(seeds) <= 1000 / 10 + 1


TEXTS = st.text(st.sampled_from("ab \n"), max_size=30)


@settings(max_examples=300, deadline=None)
@given(
    TEXTS,
    st.lists(st.tuples(st.integers(0, 30), st.integers(0, 10)), max_size=4),
    st.sets(st.integers(0, 8)),
)
def test_cuts_are_recorded_as_edits_of_the_text_before_all_edits(
    original: str, removed: list[tuple[int, int]], lines: set[int]
):
    edits = [Edit("earlier", start, min(start + length, len(original))) for start, length in removed]
    edits = [edit for edit in edits if edit.start < edit.end]
    left = remove_spans(original, edits)
    text = left.strip("\n") if edits else left
    lead = len(left) - len(left.lstrip("\n")) if edits and text else 0
    wanted = [(line, "cut") for line in sorted(lines) if line <= text.count("\n")]
    result, spans = cut_lines(text, wanted)
    if not text:
        return
    recorded = places_before_edits(spans, [edit._asdict() for edit in edits], lead)
    replayed = remove_spans(original, [*edits, *(Edit(**each) for each in recorded)])
    assert replayed.strip("\n") == result


def test_a_cut_line_goes_with_its_newline():
    assert cut_lines("a\nbb\nc", [(1, "r")]) == ("a\nc", [Span("r", 2, 5)])
    assert cut_lines("a\nbb\nc", [(2, "r")]) == ("a\nbb", [Span("r", 5, 6)])
    assert cut_lines("a\nbb\nc", [(0, "r"), (1, "s"), (2, "t")])[0] == ""
