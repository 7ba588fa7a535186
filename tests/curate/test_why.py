"""What the ledger answers when asked about one document."""

import json
from pathlib import Path

import pytest
from curate_helpers import html_page, prose, stage_context, write_pages

from bessemer.curate.config import CurateConfig
from bessemer.curate.stage import curate
from bessemer.curate.why import explain
from bessemer.curate.why_text import format_explanation
from bessemer.errors import BessemerError


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    work = tmp_path_factory.mktemp("why")
    pages = [
        ("https://a.org/math", "text/html", html_page("Math", prose(1))),
        ("https://a.org/math-copy", "text/html", html_page("Copy", prose(1)[:-1] + prose(7, 1))),
        ("https://a.org/json", "text/html", html_page("Json", ["{ } " * 3, *prose(2)])),
    ]
    write_pages(work / "pages", pages)
    curate(CurateConfig(workers=1), stage_context(work / "pages", work))
    return work / "output"


def test_a_kept_document_passes_every_rule_and_is_found_by_url_id_and_prefix(artifact: Path):
    by_url = explain(artifact, "https://a.org/math")
    [record] = by_url["records"]
    assert record["verdict"] == "kept"
    assert all(rule["passed"] for rule in record["rules"] if rule["enabled"] and rule["action"] == "drop")
    for name in (record["id"], record["id"][:8]):
        assert explain(artifact, name)["records"] == by_url["records"]


def test_a_dropped_document_shows_value_threshold_and_the_failed_rule(artifact: Path):
    explanation = explain(artifact, "https://a.org/json")
    [record] = explanation["records"]
    failed = [rule["name"] for rule in record["rules"] if rule["enabled"] and rule["passed"] is False]
    assert failed == record["failed_rules"] == [record["dropped_rule"]] == ["c4.curly_bracket"]
    text = format_explanation(explanation)
    assert "dropped by c4.curly_bracket: 3 (max 0)" in text
    assert any("c4.curly_bracket" in line and line.endswith("FAIL") for line in text.splitlines())


def test_a_duplicate_names_its_survivor_and_the_similarity(artifact: Path):
    explanation = explain(artifact, "https://a.org/math-copy")
    duplicate = explanation["records"][0]["duplicate"]
    assert duplicate["survivor_url"] == duplicate["partner_url"] == "https://a.org/math"
    assert f"{duplicate['similarity']:.3f} similar to https://a.org/math" in format_explanation(explanation)


def test_an_explanation_is_one_json_document(artifact: Path):
    explanation = explain(artifact, "https://a.org/json")
    assert json.loads(json.dumps(explanation)) == explanation


def test_an_unknown_document_is_an_error_that_names_the_nearest_urls(artifact: Path):
    with pytest.raises(BessemerError, match=r"Nearest:\n  https://a.org/math"):
        explain(artifact, "https://a.org/maths")
    with pytest.raises(BessemerError, match="holds no ledger"):
        explain(artifact.parent, "https://a.org/math")
