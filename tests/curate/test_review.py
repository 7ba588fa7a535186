"""The review page: escaped, self-contained, deterministic, and bounded."""

from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from curate_helpers import html_page, prose, stage_context, write_pages

from bessemer.curate.config import CurateConfig
from bessemer.curate.review.histogram import count_values
from bessemer.curate.review.write import render_review, write_review
from bessemer.curate.stage import curate

ATTACK = "<script>alert(1)</script>"
ESCAPED = "&lt;script&gt;alert(1)&lt;/script&gt;"
_VOID = {"meta", "br", "hr", "img", "link"}


class Page(HTMLParser):
    """What a browser would act on; asserts that elements close in order."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.scripts = 0
        self.samples = 0
        self.policy = ""
        self.ids: list[str] = []
        self.links: list[str] = []
        self.feed(source)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.scripts += tag == "script"
        for name, value in attrs:
            assert not name.startswith("on")
            assert name not in ("src", "action", "srcset")
            if name == "content" and ("http-equiv", "Content-Security-Policy") in attrs:
                self.policy = value or ""
            if name == "href":
                self.links.append(value or "")
            if name == "id":
                self.ids.append(value or "")
            self.samples += name == "class" and "sample" in (value or "").split()
        if tag not in _VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    work = tmp_path_factory.mktemp("review")
    attack = ATTACK.replace("<", "&lt;")
    pages = [
        (
            f"https://a.org/{seed}{ATTACK}",
            "text/html",
            html_page(attack, [attack, *prose(seed, 1 + seed)]),
        )
        for seed in range(20)
    ]
    pages.append(
        ("https://a.org/copy", "text/html", html_page("Copy", [attack, *prose(19, 20), "One more line."]))
    )
    write_pages(work / "pages", pages)
    curate(CurateConfig(workers=1), stage_context(work / "pages", work))
    return work / "output"


def test_no_text_of_a_page_becomes_markup_and_nothing_is_loaded(artifact: Path):
    source = render_review(artifact)
    page = Page(source)
    assert page.scripts == 1
    assert ATTACK not in source
    assert ESCAPED in source
    assert page.policy.startswith("default-src 'none'; ")
    assert "script-src 'sha256-" in page.policy
    assert "unsafe-inline" not in page.policy.split("script-src")[1]
    assert page.samples > 5
    assert all(link.startswith("#") for link in page.links)
    assert {link[1:] for link in page.links} <= set(page.ids)
    assert len(page.ids) == len(set(page.ids))


def test_equal_seeds_give_equal_pages(artifact: Path):
    assert render_review(artifact, seed=3) == render_review(artifact, seed=3)
    assert render_review(artifact, seed=3) != render_review(artifact, seed=4)


def test_the_page_lies_beside_the_report(artifact: Path):
    path = write_review(artifact)
    assert path.parent == artifact.parent
    assert path.read_text(encoding="utf-8") == render_review(artifact)


def test_samples_lie_on_both_sides_of_a_threshold(artifact: Path):
    source = render_review(artifact)
    assert "Just below the least, 50" in source
    assert "Kept, just within min 50" in source


def test_a_duplicate_cluster_stands_side_by_side(artifact: Path):
    source = render_review(artifact)
    assert "Duplicate clusters" in source
    assert "dropped: similarity 0.9" in source


def test_a_histogram_counts_every_value_once_whatever_its_range():
    for values in ([0.0], [1.0, 1.0, 5.0], [0.0, 1e6, 3.0], [-5.0, 0.5, 2.5], list(range(1000))):
        histogram = count_values(np.array(values), np.zeros(len(values), np.int64), [2.0])
        assert histogram is not None
        assert histogram.counts.sum() == len(values)
    assert count_values(np.array([np.nan]), np.zeros(1, np.int64), []) is None
