"""Every run measures itself on planted copies, which change nothing of its result."""

import random
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from dedup_world import ONLY_NEAR, altered, find, plain_jaccard, random_text

from bessemer.curate.dedup import planted, resolve
from bessemer.curate.dedup.config import DuplicateConfig
from bessemer.curate.dedup.planted import choose_originals, grades, plain_shingles, plant
from bessemer.curate.kernels.shingles import jaccard

FINEWEB = DuplicateConfig().minhash_parameters


def texts(num_texts: int, num_words: int = 200) -> list[str]:
    return [" ".join(random_text(random.Random(seed), num_words)) for seed in range(num_texts)]


def test_a_run_prints_and_returns_measured_recall_and_precision(tmp_path: Path):
    said: list[str] = []
    found = find(texts(400, 600), tmp_path, 100, say=said.append)
    metrics = found.metrics
    names = ["0.60-0.80", "0.80-0.85", "0.85-0.90", "0.90-0.95", "0.95-1.00"]
    copies = [metrics[f"planted.{name}.copies"] for name in names]
    assert sum(copies) == 5 * 40
    assert min(copies) > 30
    assert metrics["planted.0.60-0.80.found"] == 0, "nothing below the threshold is taken"
    assert metrics["planted.precision"] == 1.0
    assert 0.95 < metrics["planted.recall"] <= 1
    for name in names[1:]:
        recall = metrics[f"planted.{name}.found"] / metrics[f"planted.{name}.copies"]
        assert recall >= metrics[f"planted.{name}.expected_recall"] - 0.15
    assert len(said) == 1
    assert "planted copies found 0/" in said[0]
    assert f"recall {metrics['planted.recall']:.1%}, precision 100.0%" in said[0]


def test_too_few_bands_show_as_low_recall(tmp_path: Path):
    found = find(texts(400), tmp_path, 100, bands=1, rows=8)
    assert found.metrics["planted.recall"] < 0.7
    assert found.metrics["planted.precision"] == 1.0


def test_a_check_that_confirms_too_much_shows_as_low_precision(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    verify = resolve.find_near_duplicates.__globals__["verify"]

    def careless(nominated, sets, is_containment, min_similarity, num_threads, memory):
        return verify(nominated, sets, is_containment, 0.1, num_threads, memory)

    monkeypatch.setitem(resolve.find_near_duplicates.__globals__, "verify", careless)
    assert find(texts(200), tmp_path, 100).metrics["planted.precision"] < 0.95


def test_planting_changes_no_verdict_and_no_evidence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    random_ = random.Random(0)
    originals = [random_text(random_, 100) for _ in range(30)]
    corpus = [
        " ".join(altered(words, random_.randrange(6), random_)) for words in random_.choices(originals, k=200)
    ]
    with_copies = find(corpus, tmp_path / "with", 30, **ONLY_NEAR)
    monkeypatch.setattr(planted, "MAX_ORIGINALS", 0)
    without = find(corpus, tmp_path / "without", 30, **ONLY_NEAR)
    assert without.metrics["planted.0.95-1.00.copies"] == 0 < with_copies.metrics["planted.0.95-1.00.copies"]
    for name in ("rule", "survivor", "partner", "similarity"):
        assert np.array_equal(getattr(with_copies, name), getattr(without, name), equal_nan=True)
    assert with_copies.metrics["near.nominated"] == without.metrics["near.nominated"]
    assert with_copies.metrics["near.confirmed"] == without.metrics["near.confirmed"] > 0


@pytest.mark.parametrize("unit", ["words", "characters"])
def test_copies_have_the_similarity_they_are_said_to_have(unit: str):
    settings = {"shingle_words": 5} if unit == "words" else {"shingle_characters": 10}
    parameters = DuplicateConfig.model_validate(settings).minhash_parameters
    some = texts(10)
    made = plant(np.arange(10), some, parameters, False, 0.8)
    assert len(made.original) == 50
    shingles, offsets = planted.shingle(some, planted.split(*some), parameters)
    for copy, original in enumerate(made.original):
        own = made.shingles[made.offsets[copy] : made.offsets[copy + 1]]
        other = shingles[offsets[original] : offsets[original + 1]]
        assert jaccard(own, other) == pytest.approx(made.similarity[copy], abs=1e-12)
    hits = [grades(0.8)[copy % 5].holds(s) for copy, s in enumerate(made.similarity)]
    assert np.mean(hits) > 0.8


def test_plain_shingles_are_those_of_the_kernels_on_any_script():
    some = ["Ünï “quoted” — dash… x", "我们 在 北京 的 学校 里", "a b c", "... ! § 1,5 €"]
    _, offsets = planted.shingle(some, planted.split(*some), FINEWEB)
    assert np.diff(offsets).tolist() == [len(plain_shingles(text, FINEWEB)) for text in some]
    assert plain_shingles(some[2], FINEWEB) == {("a", "b", "c")}
    assert plain_jaccard("a b c d e f", "a b c d e f") == 1


def test_grades_cover_what_is_around_the_threshold_without_gaps():
    for threshold in (0.5, 0.8, 0.95):
        parts = grades(threshold)
        assert [str(a)[-4:] for a in parts[:-1]] == [str(b)[:4] for b in parts[1:]]
        assert all(a.high == b.low for a, b in pairwise(parts))
        assert parts[0].high == threshold
        assert parts[-1].holds(1.0)


def test_a_corpus_without_long_documents_says_that_nothing_was_planted(tmp_path: Path):
    said: list[str] = []
    found = find(["too short", "for copies"], tmp_path, say=said.append)
    assert "planted.recall" not in found.metrics
    assert "no document is long enough to plant copies of" in said[0]


def test_originals_are_spread_evenly_over_the_rows_that_take_part():
    is_active = np.ones(1000, np.bool_)
    is_active[:500] = False
    rows = choose_originals(is_active)
    assert len(rows) == planted.MAX_ORIGINALS == len(set(rows.tolist()))
    assert (rows[0], rows[-1]) == (500, 999)
    assert len(choose_originals(np.zeros(5, np.bool_))) == 0
    assert choose_originals(np.ones(3, np.bool_)).tolist() == [0]
