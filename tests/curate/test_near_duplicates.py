"""Near-duplicate detection against brute force and against datasketch."""

import random
from collections.abc import Sequence
from itertools import combinations, pairwise

import numpy as np
import pytest
from curate_helpers import prose

from bessemer.curate.deduplicate import Settings, find_duplicates, text_key
from bessemer.curate.kernels.shingles import jaccard, minhash_signatures, shingle_sets
from bessemer.curate.measure import split
from bessemer.curate.near_duplicates import find_near_duplicates, hash_family
from bessemer.errors import BessemerError

BANDS, ROWS, THRESHOLD = 14, 8, 0.8
SETTINGS = Settings(
    by_url=True,
    by_text=True,
    by_similarity=True,
    num_bands=BANDS,
    min_similarity=THRESHOLD,
    max_duplicate_share=0.9,
)


def sets_of(texts: list[str], num_words: int = 5) -> list[np.ndarray]:
    words = split(*texts)
    shingles, offsets = shingle_sets(words.hashes, words.offsets, num_words)
    return [shingles[start:end] for start, end in pairwise(offsets)]


def signatures_of(sets: list[np.ndarray], num_hashes: int = BANDS * ROWS) -> np.ndarray:
    offsets = np.concatenate(([0], np.cumsum([len(s) for s in sets]))).astype(np.int64)
    return minhash_signatures(np.concatenate(sets), offsets, *hash_family(num_hashes))


def python_shingles(text: str, num_words: int = 5) -> set[tuple[str, ...]]:
    words = [word.lower().strip(".,") for word in text.split()]
    width = min(num_words, len(words))
    return {tuple(words[i : i + width]) for i in range(len(words) - width + 1)} if words else set()


def python_jaccard(left: str, right: str) -> float:
    a, b = python_shingles(left), python_shingles(right)
    return len(a & b) / len(a | b) if a | b else 0.0


def corpus_with_planted_duplicates() -> list[str]:
    """300 documents: 150 of their own, 150 copies of some with a few sentences exchanged."""
    random_ = random.Random(7)
    originals = [prose(seed, num_sentences=30) for seed in range(150)]
    copies = []
    for number in range(150):
        sentences = list(originals[random_.randrange(40)])
        for place in random_.sample(range(30), random_.randrange(0, 4)):
            sentences[place] = prose(10_000 + 100 * number + place, 1)[0]
        copies.append(sentences)
    texts = [" ".join(sentences) for sentences in originals + copies]
    random_.shuffle(texts)
    return texts


def brute_force_roots(texts: list[str]) -> list[int]:
    """The first member of each text's cluster, by comparing every pair."""
    roots = list(range(len(texts)))
    shingles = [python_shingles(text) for text in texts]
    for i, j in combinations(range(len(texts)), 2):
        if len(shingles[i] & shingles[j]) >= THRESHOLD * len(shingles[i] | shingles[j]):
            low, high = sorted((roots[i], roots[j]))
            roots = [low if root == high else root for root in roots]
    return roots


def test_the_kept_set_is_that_of_comparing_every_pair():
    texts = corpus_with_planted_duplicates()
    sets = sets_of(texts)
    forest = find_near_duplicates(signatures_of(sets), sets, BANDS, THRESHOLD)
    roots = [forest.root(document) for document in range(len(texts))]
    expected = brute_force_roots(texts)
    dropped = {i for i, root in enumerate(roots) if root != i}
    wanted = {i for i, root in enumerate(expected) if root != i}
    assert len(wanted) > 80
    assert dropped <= wanted, "an exact check decides, so precision is 1"
    assert len(dropped) >= 0.99 * len(wanted), "recall"


def test_the_evidence_is_a_pair_with_its_exact_similarity_above_the_threshold():
    texts = corpus_with_planted_duplicates()
    sets = sets_of(texts)
    forest = find_near_duplicates(signatures_of(sets), sets, BANDS, THRESHOLD)
    assert forest.partner
    for member, (similarity, partner) in forest.partner.items():
        assert similarity == pytest.approx(python_jaccard(texts[member], texts[partner]), abs=1e-12)
        assert similarity >= THRESHOLD
        assert forest.root(member) == forest.root(partner)


def test_shingle_sets_have_the_size_of_the_plain_ones_and_short_texts_have_one():
    texts = [*corpus_with_planted_duplicates()[:20], "too short", "", "one two three four five"]
    assert [len(s) for s in sets_of(texts)] == [len(python_shingles(text)) for text in texts]


def test_minhash_estimates_jaccard_as_well_as_datasketch_does():
    datasketch = pytest.importorskip("datasketch")
    base = prose(1, 60)
    errors, oracle_errors = [], []
    num_hashes = 256
    for exchanged in range(0, 60, 6):
        other = prose(2, exchanged) + base[exchanged:]
        texts = [" ".join(base), " ".join(other)]
        sets = sets_of(texts)
        exact = jaccard(sets[0], sets[1])
        assert exact == pytest.approx(python_jaccard(*texts))
        ours = signatures_of(sets, num_hashes)
        errors.append(float((ours[0] == ours[1]).mean()) - exact)
        oracles = [datasketch.MinHash(num_perm=num_hashes) for _ in texts]
        for oracle, text in zip(oracles, texts, strict=True):
            oracle.update_batch([" ".join(shingle).encode() for shingle in sorted(python_shingles(text))])
        oracle_errors.append(oracles[0].jaccard(oracles[1]) - exact)
    # The standard error of one estimate is at most 0.5 / sqrt(256) = 0.031.
    assert np.sqrt(np.mean(np.square(errors))) < 0.035
    assert np.sqrt(np.mean(np.square(oracle_errors))) < 0.035


def test_documents_that_share_only_a_template_are_not_duplicates():
    template = prose(3, 20)
    texts = [" ".join(template + prose(100 + i, 20)) for i in range(30)]
    sets = sets_of(texts)
    assert find_near_duplicates(signatures_of(sets), sets, BANDS, THRESHOLD).clusters() == {}


def run(texts: list[str], urls: Sequence[str | None] = (), settings: Settings = SETTINGS):
    sets = sets_of(texts)
    urls = urls or [None for _ in texts]
    names = [f"page {i}" for i in range(len(texts))]
    return find_duplicates(names, urls, [text_key(t) for t in texts], signatures_of(sets), sets, settings)


def test_url_then_text_then_similarity_and_the_first_survives_throughout():
    a, b = " ".join(prose(1)), " ".join(prose(2))
    near = " ".join(prose(1)[:-1] + prose(9, 1))
    found = run([a, b, a.upper() + "\n", b, near], ["u1", "u2", "u3", "u1", "u4"])
    assert {row: (each.rule, each.survivor) for row, each in found.items()} == {
        2: ("duplicates.exact", 0),
        3: ("duplicates.url", 0),
        4: ("duplicates.near", 0),
    }
    assert found[4].similarity == pytest.approx(python_jaccard(a, near))


def test_a_survivor_that_is_itself_dropped_later_hands_over_to_the_last_survivor():
    a, b = " ".join(prose(1)), " ".join(prose(2))
    found = run([a, a, b], [None, "u", "u"])
    assert found[2].survivor == 0
    assert found[2].partner == 1


def test_the_brake_stops_the_run_and_names_the_biggest_cluster():
    texts = [" ".join(prose(1))] * 9 + [" ".join(prose(2))] * 2
    strict = Settings(True, True, True, BANDS, THRESHOLD, max_duplicate_share=0.5)
    with pytest.raises(BessemerError, match=r"9 of 11 documents .* 9 documents and keeps only page 0"):
        run(texts, settings=strict)
    assert len(run(texts)) == 9
