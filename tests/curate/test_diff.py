"""Two runs side by side."""

import json
from pathlib import Path

import pytest
from curate_helpers import html_page, prose, stage_context, write_pages

from bessemer.curate.config import CurateConfig
from bessemer.curate.diff import compare
from bessemer.curate.diff_text import format_comparison
from bessemer.curate.stage import curate

PAGES = [
    ("https://a.org/long", "text/html", html_page("Long", prose(1))),
    ("https://a.org/short", "text/html", html_page("Short", prose(2, 7))),
    ("https://a.org/changed", "text/html", html_page("Changed", prose(3))),
    ("https://a.org/gone", "text/html", html_page("Gone", prose(4))),
]
LATER = [*PAGES[:2], ("https://a.org/changed", "text/html", html_page("Changed", prose(5)))]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folders = []
    for name, pages, rules in (("a", PAGES, {}), ("b", LATER, {"gopher.word_count": {"min": 100}})):
        work = tmp_path_factory.mktemp(name)
        write_pages(work / "pages", pages)
        config = CurateConfig.model_validate({"workers": 1, "rules": rules})
        curate(config, stage_context(work / "pages", work))
        folders.append(work / "output")
    return folders[0], folders[1]


def test_documents_of_one_run_only_say_why_the_other_has_them_not(runs: tuple[Path, Path]):
    answer = compare(*runs)
    assert answer["records"] == {"before": 4, "after": 3}
    assert answer["kept"] == {"before": 4, "after": 2}
    reasons = {row["url"]: row["reason"] for row in answer["kept_only_before"]["listed"]}
    assert reasons == {
        "https://a.org/short": "gopher.word_count",
        "https://a.org/changed": "content changed",
        "https://a.org/gone": "not collected",
    }
    assert [row["url"] for row in answer["kept_only_after"]["listed"]] == ["https://a.org/changed"]
    assert answer["funnel"]["gopher.word_count"] == {"before": 0, "after": 1}
    assert list(answer["rules"]) == ["gopher.word_count"]
    assert answer["settings"] == {}, "rules are compared as they took effect"
    assert (answer["compared"], answer["values"]) == (2, {})


def test_a_run_does_not_differ_from_itself(runs: tuple[Path, Path]):
    answer = compare(runs[0], runs[0])
    assert answer["kept_only_before"]["documents"] == answer["kept_only_after"]["documents"] == 0
    assert (answer["rules"], answer["settings"], answer["values"], answer["not_in_both"]) == ({}, {}, {}, [])


def test_the_comparison_is_one_json_document_and_a_text(runs: tuple[Path, Path]):
    answer = compare(*runs)
    assert json.loads(json.dumps(answer)) == answer
    text = format_comparison(answer, ("first", "second"))
    assert "3 documents only first keeps" in text
    assert "min 50 max 100,000 → min 100 max 100,000" in text
