"""Near duplicates against comparing every pair, on random corpora, with any memory, threads and shards."""

import random
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from dedup_world import (
    ONLY_NEAR,
    altered,
    find,
    plain_jaccard,
    plain_set,
    random_text,
    roots_of_all_pairs,
    verdicts,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from bessemer.curate.dedup import banding, external_sort
from bessemer.curate.dedup.config import DuplicateConfig
from bessemer.curate.dedup.resolve import NEAR, Duplicates

CERTAIN = {"bands": 64, "rows": 1, "min_similarity": 0.5} | ONLY_NEAR
"""With 64 bands of one hash, a pair of similarity 0.5 is overlooked with p = 2^-64."""


def corpus(seed: int, num_texts: int, num_originals: int, most_changes: int) -> list[str]:
    """Texts of about 120 words, some of them altered copies of others."""
    random_ = random.Random(seed)
    originals = [random_text(random_, random_.randrange(80, 160)) for _ in range(num_originals)]
    texts = [
        " ".join(altered(random_.choice(originals), random_.randrange(most_changes), random_))
        for _ in range(num_texts)
    ]
    return [*(" ".join(words) for words in originals), *texts]


def same(left: Duplicates, right: Duplicates) -> bool:
    """Whether all verdicts and all evidence are equal."""
    assert left.pairs is not None
    assert right.pairs is not None
    arrays = ("rule", "survivor", "partner", "similarity")
    return (
        all(np.array_equal(getattr(left, name), getattr(right, name), equal_nan=True) for name in arrays)
        and left.metrics == right.metrics
        and pair_rows(left) == pair_rows(right)
    )


def pair_rows(duplicates: Duplicates) -> list[tuple]:
    assert duplicates.pairs is not None
    return [
        row
        for some in duplicates.pairs.read()
        for row in zip(
            *(column.tolist() for column in (some.low, some.high, some.num_shared_bands, some.similarity)),
            strict=True,
        )
    ]


WORDS = st.sampled_from(["the", "cat", "sat", "on", "a", "mat", "and", "dog", "ran"])


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(WORDS, max_size=12), min_size=1, max_size=14))
def test_any_small_corpus_keeps_what_comparing_every_pair_keeps(tmp_path_factory, texts: list[list[str]]):
    joined = [" ".join(words) for words in texts]
    found = find(joined, tmp_path_factory.mktemp("corpus"), 3, shingle_words=2, **CERTAIN)
    roots = roots_of_all_pairs(joined, 0.5, num_words=2)
    assert found.survivor.tolist() == roots


def test_five_hundred_texts_keep_what_comparing_every_pair_keeps_but_for_rare_misses(tmp_path: Path):
    texts = corpus(3, 350, 150, 8)
    found = find(texts, tmp_path, 64, **ONLY_NEAR)
    wanted = {row for row, root in enumerate(roots_of_all_pairs(texts, 0.8)) if root != row}
    dropped = set(np.flatnonzero(found.rule).tolist())
    assert len(wanted) > 100
    assert dropped <= wanted, "an exact check decides, so precision is 1"
    assert len(dropped) >= 0.97 * len(wanted), "recall"


@pytest.mark.slow
def test_five_thousand_texts_are_found_with_99_percent_recall_and_no_mistake(tmp_path: Path):
    texts = corpus(5, 3000, 2000, 5)
    found = find(texts, tmp_path, 500, **ONLY_NEAR)
    sets = [plain_set(text) for text in texts]
    holders: dict[tuple[str, ...], list[int]] = {}
    for row, words in enumerate(sets):
        for shingle in words:
            holders.setdefault(shingle, []).append(row)
    candidates = {pair for rows in holders.values() for pair in combinations(rows, 2)}
    exact = {(a, b) for a, b in candidates if len(sets[a] & sets[b]) >= 0.8 * len(sets[a] | sets[b])}
    roots = list(range(len(texts)))

    def root(row: int) -> int:
        while roots[row] != row:
            row = roots[row]
        return row

    for a, b in sorted(exact):
        low, high = sorted((root(a), root(b)))
        roots[high] = low
    wanted = {row for row in range(len(texts)) if root(row) != row}
    dropped = set(np.flatnonzero(found.rule).tolist())
    assert {pair[:2] for pair in pair_rows(found)} <= exact
    assert dropped <= wanted
    assert len(dropped) >= 0.99 * len(wanted) > 1000


def test_the_result_depends_on_nothing_but_the_texts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    texts = corpus(1, 600, 20, 5)
    expected = find(texts, tmp_path / "one", 200, num_threads=1, **ONLY_NEAR)
    assert len(pair_rows(expected)) > 50
    assert same(find(texts, tmp_path / "shards", 3, num_threads=1, **ONLY_NEAR), expected)
    assert same(find(texts, tmp_path / "threads", 50, num_threads=3, **ONLY_NEAR), expected)
    monkeypatch.setattr(external_sort, "_LEAST_BLOCK", 5)
    monkeypatch.setattr(banding, "_PIECE", 7)
    runs = []
    write_run = external_sort.ExternalSorter._write_run
    monkeypatch.setattr(
        external_sort.ExternalSorter, "_write_run", lambda self: (runs.append(self), write_run(self))
    )
    assert same(find(texts, tmp_path / "little", 50, 2, duplicate_memory=1 << 16, **ONLY_NEAR), expected)
    assert runs, "nothing was sorted on disk"


def test_bands_that_do_not_fit_together_are_read_in_several_passes(tmp_path: Path):
    texts = corpus(2, 60, 200, 6)
    memory = 1 << 16
    assert 14 * 16 * len(texts) > memory // 4, "one pass would do"
    small = find(texts, tmp_path / "small", 40, duplicate_memory=memory, **ONLY_NEAR)
    assert same(small, find(texts, tmp_path / "large", 40, **ONLY_NEAR))


def test_the_evidence_is_the_most_similar_confirmed_pair_with_its_exact_similarity(tmp_path: Path):
    texts = corpus(7, 80, 30, 8)
    found = find(texts, tmp_path, **ONLY_NEAR)
    pairs = pair_rows(found)
    assert pairs == sorted(pairs)
    for low, high, num_shared_bands, similarity in pairs:
        assert similarity == pytest.approx(plain_jaccard(texts[low], texts[high]), abs=1e-12)
        assert similarity >= 0.8
        assert 1 <= num_shared_bands <= DuplicateConfig().minhash_parameters.bands
    dropped = np.flatnonzero(found.rule == NEAR).tolist()
    assert len(dropped) > 25
    for row in dropped:
        known = [(s, -(a + b - row)) for a, b, _, s in pairs if row in (a, b)]
        assert (found.similarity[row], -found.partner[row]) == max(known)


def nominated(found: Duplicates) -> int:
    return found.metrics["near.nominated"]


def near_copies(num_copies: int) -> list[str]:
    random_ = random.Random(0)
    words = random_text(random_, 60)
    return [" ".join(altered(words, 1, random_)) for _ in range(num_copies)]


def test_many_near_copies_of_one_text_are_one_cluster_without_comparing_every_pair(tmp_path: Path):
    num_copies = 3000
    found = find(near_copies(num_copies), tmp_path, 500, **ONLY_NEAR)
    assert (found.survivor == 0).all()
    assert nominated(found) <= 17 * 14 * num_copies < num_copies**2 / 4


@pytest.mark.slow
def test_of_a_hundred_thousand_near_copies_of_one_text_hardly_any_stay(tmp_path: Path):
    found = find(near_copies(100_000), tmp_path, 5000, max_cluster=200_000, **ONLY_NEAR)
    assert len(np.unique(found.survivor)) < 20


def test_a_hundred_thousand_equal_texts_are_settled_by_their_keys(tmp_path: Path):
    text = " ".join(random_text(random.Random(0), 20))
    found = find([text] * 100_000, tmp_path, 10_000)
    assert (found.survivor == 0).all()
    assert nominated(found) == 0
    assert found.metrics["clusters.largest"] == 100_000


def test_texts_that_share_only_a_template_are_not_duplicates(tmp_path: Path):
    random_ = random.Random(4)
    template = random_text(random_, 60)
    texts = [" ".join(template + random_text(random_, 40)) for _ in range(60)]
    found = find(texts, tmp_path, **ONLY_NEAR)
    assert nominated(found) > 0, "the template makes them look alike"
    assert verdicts(found) == {}


def test_empty_texts_join_nothing_and_short_ones_only_their_equals(tmp_path: Path):
    texts = ["", "  \n", "one two", "One, two!", "one", "two", "", "§ § §", "§ § §"]
    found = find(texts, tmp_path, **ONLY_NEAR)
    assert verdicts(found) == {3: ("duplicates.near", 2), 8: ("duplicates.near", 7)}
    assert verdicts(find([], tmp_path / "none")) == {}
    assert verdicts(find([""], tmp_path / "empty")) == {}


SCRIPTS = {
    "zh": "我们在北京的学校里学习中文和历史，每天早上八点开始上课，下午四点放学回家。",
    "ja": "今日は天気がとても良いので、友達と一緒に公園へ散歩に行くことにしました。",
    "th": "วันนี้อากาศดีมากเราจึงไปเดินเล่นในสวนสาธารณะกับเพื่อนหลายคนตั้งแต่เช้าจนเย็น",
    "ar": "ذهبنا إلى السوق في الصباح الباكر واشترينا الخبز والجبن والزيتون ثم عدنا إلى البيت",
    "hi": "हम सुबह जल्दी उठकर बाज़ार गए और वहाँ से ताज़ी सब्ज़ियाँ और फल खरीदकर घर लौट आए",
    "ru": "Мы рано утром пошли на рынок, купили свежий хлеб и сыр, а потом вернулись домой.",
}


@pytest.mark.parametrize("language", SCRIPTS)
def test_character_shingles_find_near_duplicates_in_any_script(tmp_path: Path, language: str):
    text = SCRIPTS[language]
    changed = text[:20] + "x" + text[21:]
    other = SCRIPTS["ru" if language != "ru" else "ar"]
    found = find([text, other, changed], tmp_path, shingle_characters=3, min_similarity=0.7, bands=40, rows=4)
    a, b = ({t[i : i + 3] for i in range(len(t) - 2)} for t in (text.lower(), changed.lower()))
    assert verdicts(found) == {2: ("duplicates.near", 0)}
    assert found.similarity[2] == pytest.approx(len(a & b) / len(a | b))


@pytest.mark.parametrize(("left", "right"), [("Straße ÇA  va", "straße ça\nVA"), ("ÅB cd", "åb CD")])
def test_case_and_whitespace_do_not_matter_in_any_unit(tmp_path: Path, left: str, right: str):
    for number, unit in enumerate(({"shingle_characters": 2}, {"shingle_words": 2})):
        found = find([left, right], tmp_path / str(number), **unit, **ONLY_NEAR)
        assert found.similarity[1] == 1.0


def test_the_index_nominates_as_often_as_its_formula_says(tmp_path: Path):
    """Pairs of known similarity: nominated with 1 - (1 - s^r)^b, within four standard errors."""
    random_ = random.Random(11)
    num_pairs, num_words, bands, rows = 1500, 104, 6, 5
    texts = []
    for number in range(num_pairs):
        words = [f"w{number}x{i}" for i in range(num_words)]
        changed = [*words[:90], *(f"v{random_.random()}" for _ in range(num_words - 90))]
        texts += [" ".join(words), " ".join(changed)]
    exact = plain_jaccard(texts[0], texts[1])
    expected = 1 - (1 - exact**rows) ** bands
    found = find(texts, tmp_path, 1000, bands=bands, rows=rows, min_similarity=0.5, **ONLY_NEAR)
    observed = len(pair_rows(found)) / num_pairs
    assert 0.5 < expected < 0.98, "a probability that can be missed on either side"
    assert abs(observed - expected) < 4 * np.sqrt(expected * (1 - expected) / num_pairs)
