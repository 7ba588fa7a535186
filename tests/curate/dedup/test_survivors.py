"""Who stays of a cluster, and how far a cluster reaches."""

import random
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from dedup_world import (
    ONLY_NEAR,
    Document,
    altered,
    find,
    plain_set,
    random_text,
    verdicts,
)

from bessemer.curate.dedup.config import DuplicateConfig

CERTAIN = {"bands": 64, "rows": 1, "min_similarity": 0.5} | ONLY_NEAR


def three_alike() -> list[Document]:
    text = " ".join(random_text(random.Random(0), 50))
    return [
        Document(text, fetched_at="2024-05-01T00:00:00Z", values={"language_score": 0.5}),
        Document(text + " more", fetched_at="2025-05-01T00:00:00+02:00", values={"language_score": 0.9}),
        Document(text + " end", fetched_at="2023-05-01T00:00:00", values={"language_score": 0.4}),
        Document("something else entirely", fetched_at="no date", values={"language_score": 1.0}),
    ]


@pytest.mark.parametrize(
    ("settings", "survivor"),
    [
        ({}, 0),
        ({"survivor": "longest"}, 1),
        ({"survivor": "newest"}, 1),
        ({"survivor": "oldest"}, 2),
        ({"survivor": "highest", "survivor_value": "language_score"}, 1),
        ({"survivor": "lowest", "survivor_value": "language_score"}, 2),
    ],
)
@pytest.mark.parametrize("linkage", ["connected", "direct"])
def test_the_chosen_document_of_a_cluster_stays(tmp_path: Path, settings: dict, survivor: int, linkage: str):
    found = find(three_alike(), tmp_path, 2, linkage=linkage, **settings)
    assert {s for _, s in verdicts(found).values()} == {survivor}
    assert sorted(verdicts(found)) == sorted({0, 1, 2} - {survivor})


def test_the_choice_holds_for_equal_urls_and_texts_too(tmp_path: Path):
    same = [Document("a b c", f"u{i}", fetched_at=f"202{i}-01-01T00:00:00Z") for i in range(3)]
    assert verdicts(find(same, tmp_path / "text", survivor="newest")) == {
        0: ("duplicates.exact", 2),
        1: ("duplicates.exact", 2),
    }
    captures = [Document(text, "u") for text in ("short", "a much longer page", "middling page")]
    assert verdicts(find(captures, tmp_path / "url", survivor="longest")) == {
        0: ("duplicates.url", 1),
        2: ("duplicates.url", 1),
    }


def test_of_equals_and_of_documents_without_a_value_the_first_stays(tmp_path: Path):
    same = [Document("a b c", fetched_at=None), Document("a b c", fetched_at="2024-01-01T00:00:00Z")] * 2
    assert set(verdicts(find(same, tmp_path / "a", survivor="newest"))) == {0, 2, 3}
    assert set(verdicts(find(same, tmp_path / "b", survivor="oldest"))) == {0, 2, 3}
    undated = [Document("a b c"), Document("a b c")]
    assert set(verdicts(find(undated, tmp_path / "c", survivor="newest"))) == {1}


def chain() -> list[str]:
    """Each is 0.6 like the next; those further apart are not alike."""
    words = [f"w{i}" for i in range(400)]
    return [" ".join(words[start : start + 100]) for start in range(0, 150, 25)]


def test_connected_clusters_run_along_chains_and_direct_ones_do_not(tmp_path: Path):
    texts = chain()
    assert set(verdicts(find(texts, tmp_path / "connected", **CERTAIN))) == {1, 2, 3, 4, 5}
    direct = find(texts, tmp_path / "direct", linkage="direct", **CERTAIN)
    assert {row: survivor for row, (_, survivor) in verdicts(direct).items()} == {1: 0, 3: 2, 5: 4}


@pytest.mark.parametrize("survivor", ["first", "longest"])
def test_direct_linkage_is_a_greedy_choice_among_all_pairs(tmp_path: Path, survivor: str):
    random_ = random.Random(2)
    originals = [random_text(random_, random_.randrange(10, 30)) for _ in range(6)]
    texts = [
        " ".join(altered(words, random_.randrange(4), random_)) for words in random_.choices(originals, k=60)
    ]
    found = find(texts, tmp_path, 9, linkage="direct", survivor=survivor, **CERTAIN)
    sets = [plain_set(text) for text in texts]
    alike = {
        frozenset((a, b))
        for a, b in combinations(range(len(texts)), 2)
        if len(sets[a] & sets[b]) >= 0.5 * len(sets[a] | sets[b])
    }
    order = sorted(range(len(texts)), key=lambda row: (-len(texts[row]) if survivor == "longest" else 0, row))
    expected = np.arange(len(texts))
    for keeper in order:
        if expected[keeper] == keeper:
            for other in order:
                if expected[other] == other != keeper and frozenset((keeper, other)) in alike:
                    expected[other] = keeper
    assert (expected != np.arange(len(texts))).sum() > 20
    # Pairs are only looked at near each other in large buckets, so ask for verdicts that are right, and most.
    dropped = np.flatnonzero(found.rule)
    assert all(frozenset((row, found.survivor[row])) in alike for row in dropped.tolist())
    assert all(found.rule[found.survivor[row]] == 0 for row in dropped)
    assert np.mean(found.survivor == expected) > 0.9


def test_containment_drops_fragments_of_longer_documents_and_keeps_the_whole(tmp_path: Path):
    words = [f"w{i}" for i in range(300)]
    whole, head, tail = " ".join(words), " ".join(words[:120]), " ".join(words[150:])
    settings = {
        "similarity": "containment",
        "survivor": "longest",
        "linkage": "direct",
        "bands": 80,
        "rows": 1,
    }
    found = find([head, whole, tail, " ".join(random_text(random.Random(0), 90))], tmp_path, **settings)
    assert verdicts(found) == {0: ("duplicates.near", 1), 2: ("duplicates.near", 1)}
    assert found.similarity[0] == 1.0
    jaccard = find([head, whole, tail], tmp_path / "jaccard", bands=80, rows=1)
    assert verdicts(jaccard) == {}


def test_settings_that_contradict_each_other_are_named():
    with pytest.raises(ValueError, match=r"survivor: highest .* go together"):
        DuplicateConfig(survivor="highest")
    with pytest.raises(ValueError, match=r"survivor is first and survivor_value is language_score"):
        DuplicateConfig(survivor_value="language_score")
    with pytest.raises(ValueError, match=r"containment needs survivor: longest and linkage: direct"):
        DuplicateConfig(similarity="containment")
    with pytest.raises(ValueError, match=r"shingle_words and shingle_characters"):
        DuplicateConfig(shingle_words=5, shingle_characters=20)
    with pytest.raises(ValueError, match=r"language_scores.*nearest: 'language_score'"):
        DuplicateConfig(survivor="highest", survivor_value="language_scores")


@pytest.mark.parametrize(
    ("name", "unit", "size", "bands", "rows"),
    [
        ("verified", "words", 5, 16, 7),
        ("fineweb", "words", 5, 14, 8),
        ("refinedweb", "words", 5, 450, 20),
        ("dclm", "words", 5, 93, 15),
        ("redpajama-0.7", "words", 13, 14, 9),
        ("redpajama-0.8", "words", 13, 9, 13),
        ("redpajama-0.9", "words", 13, 5, 25),
        ("nemo", "characters", 24, 20, 13),
        ("marin", "words", 5, 26, 11),
    ],
)
def test_parameter_sets_have_their_numbers_and_find_duplicates(
    tmp_path: Path, name: str, unit: str, size: int, bands: int, rows: int
):
    parameters = DuplicateConfig.model_validate({"minhash": name}).minhash_parameters
    assert (parameters.unit, parameters.shingle_size) == (unit, size)
    assert (parameters.bands, parameters.rows) == (bands, rows)
    random_ = random.Random(1)
    words = random_text(random_, 400)
    texts = [" ".join(words), " ".join(random_text(random_, 400)), " ".join([*words[:-3], "other", "end"])]
    found = find(texts, tmp_path, minhash=name)
    assert verdicts(found) == {2: ("duplicates.near", 0)}


def test_single_numbers_of_a_set_can_be_changed():
    config = DuplicateConfig(minhash="refinedweb", bands=20, shingle_words=3)
    parameters = config.minhash_parameters
    assert (parameters.shingle_size, parameters.bands, parameters.rows) == (3, 20, 20)
    assert DuplicateConfig(shingle_characters=10).minhash_parameters.unit == "characters"
    assert DuplicateConfig(minhash="nemo", shingle_words=5).minhash_parameters.unit == "words"


def test_the_curves_of_the_published_sets_are_those_in_the_literature():
    """FineWeb 2024, section 3.4, prints 56, 77, 92 and 98.8 % for similarities 0.7, 0.75, 0.8 and 0.85."""
    fineweb = DuplicateConfig(minhash="fineweb").minhash_parameters
    found = [fineweb.nomination_probability(s) for s in (0.7, 0.75, 0.8, 0.85)]
    assert found == pytest.approx([0.56, 0.77, 0.92, 0.988], abs=0.006)
    refinedweb = DuplicateConfig(minhash="refinedweb").minhash_parameters
    assert refinedweb.nomination_probability(0.8) > 0.99
