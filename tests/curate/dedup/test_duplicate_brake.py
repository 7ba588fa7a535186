"""A run that would lose too much stops and names where; ordinary runs never notice."""

import random
from pathlib import Path

import pytest
from dedup_world import Document, altered, find, random_text

from bessemer.curate.dedup.config import DuplicateConfig
from bessemer.errors import BessemerError


def near_copies(source: str, num_copies: int, seed: int) -> list[Document]:
    random_ = random.Random(seed)
    words = random_text(random_, 200)
    return [
        Document(" ".join(altered(words, 1, random_)), f"https://{source}/{number}", source)
        for number in range(num_copies)
    ]


def own(source: str, num_documents: int, seed: int) -> list[Document]:
    random_ = random.Random(seed)
    return [
        Document(" ".join(random_text(random_, 80)), f"https://{source}/own{number}", source)
        for number in range(num_documents)
    ]


def test_the_overall_share_names_the_biggest_cluster_and_the_way_out(tmp_path: Path):
    documents = [*near_copies("a.org", 9, 1), *own("b.org", 2, 2)]
    with pytest.raises(
        BessemerError,
        match=r"8 of 11 documents \(72\.7%\), more than max_duplicate_share = 50%.*9 documents and keeps "
        r"only https://a\.org/0\. If that is right, raise curate\.max_duplicate_share",
    ):
        find(documents, tmp_path, max_duplicate_share=0.5)
    assert find(documents, tmp_path / "allowed", max_duplicate_share=0.9).rule.astype(bool).sum() == 8


def test_a_cluster_beyond_the_limit_stops_the_run_with_an_example_and_its_similarity(tmp_path: Path):
    documents = [*near_copies("a.org", 12, 1), *own("b.org", 30, 2), *near_copies("c.org", 11, 3)]
    with pytest.raises(BessemerError) as stopped:
        find(documents, tmp_path, max_cluster=10)
    message = str(stopped.value)
    assert "2 cluster(s) of more than max_cluster = 10 documents" in message
    assert "12 documents: https://a.org/0 stands for https://a.org/1, which is 0." in message
    assert message.index("12 documents") < message.index("11 documents: https://c.org/0")
    assert "raise curate.max_cluster or add their source to curate.allowed_sources" in message
    assert find(documents, tmp_path / "limit", max_cluster=12).rule.any()
    with pytest.raises(BessemerError, match=r"1 cluster\(s\).*\n.*11 documents"):
        find(documents, tmp_path / "one", max_cluster=10, allowed_sources=["a.org"])
    assert find(documents, tmp_path / "all", max_cluster=10, allowed_sources=["a.org", "c.org"]).rule.any()


def test_a_source_that_would_lose_too_much_stops_the_run(tmp_path: Path):
    documents = [*near_copies("a.org", 19, 1), *own("a.org", 1, 4), *own("b.org", 40, 2)]
    settings = {"min_source_documents": 20, "max_source_share": 0.8}
    with pytest.raises(
        BessemerError,
        match=r"more than max_source_share = 80% from 1 source\(s\):\n  a\.org: 18 of 20 documents \(90",
    ):
        find(documents, tmp_path, **settings)
    assert find(documents, tmp_path / "listed", allowed_sources=["a.org"], **settings).rule.any()
    assert find(documents, tmp_path / "small", **settings | {"min_source_documents": 21}).rule.any()


def test_equal_urls_and_texts_do_not_count_against_a_source(tmp_path: Path):
    """They lose nothing, whatever their number: a site crawled ten times has ten captures of a page."""
    page = own("a.org", 1, 1)[0]
    documents = [page] * 20 + [Document(page.text, f"u{i}", "a.org") for i in range(20)]
    settings = {"min_source_documents": 1, "max_source_share": 0.1, "max_cluster": 2}
    assert find(documents, tmp_path, **settings).rule.astype(bool).sum() == 39


def test_the_defaults_stop_no_small_run(tmp_path: Path):
    config = DuplicateConfig()
    assert config.min_source_documents >= 1000
    assert config.max_cluster >= 100_000
    documents = [*near_copies("a.org", 300, 1), *own("a.org", 40, 2)]
    assert find(documents, tmp_path, 50, max_duplicate_share=0.9).rule.astype(bool).sum() == 299
