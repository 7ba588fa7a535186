"""How much of a page's body each extractor finds, and how much else: fifteen layouts with known bodies.

The measure is F1 over the multiset of words, and over the set of runs of five words, which sees order and
lost structure too. Thresholds are what the extractors reach, less 0.01 to 0.03.
"""

import re
from collections import Counter
from functools import lru_cache
from pathlib import Path

import pytest

from bessemer.curate.extraction import Extracted, extract_page
from bessemer.curate.extraction.config import ExtractionConfig

PAGES = Path(__file__).parent / "pages"
NAMES = sorted(path.stem for path in PAGES.glob("*.html"))
_WORD = re.compile(r"[\u3040-\u30ff\u3400-\u9fff]|[^\W\u3040-\u30ff\u3400-\u9fff]+")
_SHINGLE = 5


def words(text: str) -> list[str]:
    """Words; characters of Japanese."""
    return _WORD.findall(text)


def f1(found: Counter, wanted: Counter) -> float:
    common = (found & wanted).total()
    return 2 * common / (found.total() + wanted.total())


def word_f1(text: str, body: str) -> float:
    return f1(Counter(words(text)), Counter(words(body)))


def shingle_f1(text: str, body: str) -> float:
    return f1(Counter(shingles(text)), Counter(shingles(body)))


def shingles(text: str) -> set[tuple[str, ...]]:
    found = words(text)
    return {tuple(found[i : i + _SHINGLE]) for i in range(len(found) - _SHINGLE + 1)}


@lru_cache
def extract(name: str, extractor: str) -> tuple[Extracted, str]:
    """What the extractor makes of a page, and the page's body."""
    if extractor != "resiliparse":
        pytest.importorskip("trafilatura")
    config = ExtractionConfig.model_validate({"extractor": extractor})
    page, body = ((PAGES / f"{name}.{kind}").read_text(encoding="utf-8") for kind in ("html", "txt"))
    return extract_page(page, config), body


def test_the_measure_is_one_for_equal_texts_and_falls_with_what_is_lost_and_added():
    body = "one two three four five six seven eight"
    assert word_f1(body, body) == shingle_f1(body, body) == 1
    assert word_f1("one two three four", body) == pytest.approx(2 * 4 / 12)
    assert word_f1(f"{body} more", body) == pytest.approx(16 / 17)
    assert shingle_f1("eight seven six five four three two one", body) == 0
    assert words("古い橋 old") == ["古", "い", "橋", "old"]


LEAST = {
    "article": {"resiliparse": 0.98, "precise": 0.96, "union": 0.96},
    "code-listing": {"resiliparse": 0.98, "precise": 0.88, "union": 0.98},
    "data-table": {"resiliparse": 0.98, "precise": 0.98, "union": 0.98},
    "div-soup": {"resiliparse": 0.96, "precise": 0.98, "union": 0.98},
    "docs": {"resiliparse": 0.98, "precise": 0.98, "union": 0.98},
    "encyclopedia": {"resiliparse": 0.95, "precise": 0.95, "union": 0.95},
    "forum": {"resiliparse": 0.92, "precise": 0.96, "union": 0.96},
    "glossary": {"resiliparse": 0.98, "precise": 0.98, "union": 0.98},
    "hindi-article": {"resiliparse": 0.98, "precise": 0.98, "union": 0.98},
    "japanese-article": {"resiliparse": 0.98, "precise": 0.98, "union": 0.98},
    "minimal": {"resiliparse": 0.98, "precise": 0.98, "union": 0.98},
    "questions": {"resiliparse": 0.93, "precise": 0.96, "union": 0.96},
    "recipe": {"resiliparse": 0.97, "precise": 0.98, "union": 0.98},
    "russian-article": {"resiliparse": 0.97, "precise": 0.96, "union": 0.96},
    "table-layout": {"resiliparse": 0.93, "precise": 0.93, "union": 0.93},
}
"""F1 over words that each extractor must reach on each page."""
LEAST_MEAN = {
    "resiliparse": (0.975, 0.945),
    "precise": (0.975, 0.96),
    "union": (0.98, 0.965),
}
"""Means over all pages: of F1 over words, of F1 over runs of five words."""


@pytest.mark.parametrize("extractor", LEAST_MEAN)
@pytest.mark.parametrize("name", LEAST)
def test_each_extractor_finds_the_body_of_a_page_and_little_else(name: str, extractor: str):
    extracted, body = extract(name, extractor)
    assert word_f1(extracted.text, body) >= LEAST[name][extractor]


@pytest.mark.parametrize("extractor", LEAST_MEAN)
def test_the_means_over_all_layouts_hold_and_no_page_is_left_out(extractor: str):
    assert sorted(LEAST) == NAMES
    found = [extract(name, extractor) for name in NAMES]
    words_mean = sum(word_f1(extracted.text, body) for extracted, body in found) / len(found)
    shingles_mean = sum(shingle_f1(extracted.text, body) for extracted, body in found) / len(found)
    least_words, least_shingles = LEAST_MEAN[extractor]
    assert words_mean >= least_words
    assert shingles_mean >= least_shingles


def test_union_takes_the_text_that_keeps_code_and_paragraphs_and_else_the_one_with_less_around_it():
    chosen = {name: extract(name, "union")[0] for name in NAMES}
    assert {name for name, each in chosen.items() if each.extractor == "resiliparse"} == {
        "code-listing",
        "table-layout",
    }
    assert chosen["code-listing"].reason == "trafilatura keeps 0% of its lines of code"
    assert str(chosen["table-layout"].reason).startswith("trafilatura runs paragraphs together")
    assert chosen["forum"].notes == {
        "extractor": "precise",
        "extractor_reason": "trafilatura keeps 100% of the other's running text, rows and code",
    }


def test_rows_of_a_table_are_lines_and_code_keeps_its_indentation_and_loses_its_line_numbers():
    assert "Heron\t\t14\t\t11\t\t22\nKingfisher\t\t14" in extract("data-table", "resiliparse")[0].text
    documentation = extract("docs", "resiliparse")[0].text
    # Its cells hold paragraphs, which would each take a line.
    assert re.search(r"^hours\s+int\s+How far ahead to look, counted from now$", documentation, re.MULTILINE)
    assert "hours=6):\n    if level.height > 5.5:\n        print(" in documentation
    listing = extract("code-listing", "resiliparse")[0].text
    assert "    before = None\n    for level" in listing
    assert "1\n2\n3" not in listing
