"""The desk through the public commands: why, whatif, diff and review of runs that went up to tokens."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from curate_helpers import html_page, prose, write_pages
from rule_reference import normalise, reference_values
from typer.testing import CliRunner

from bessemer.cli import app
from bessemer.curate.rules import RULES
from bessemer.errors import BessemerError
from bessemer.formats.ledger import scan_ledger
from bessemer.tokenization.tokenizer import load_tokenizer

RECIPE = """
name: {name}
stages:
  - collect: {{path: "{pages}"}}
  - curate: {{workers: 1, rules: {rules}}}
  - tokenizer: {{vocab_size: 400}}
  - tokens: {{validation_share: 0.3}}
"""
NUM_PAGES = 30
COOKIES = "We use cookies to remember you."
SETTINGS = ["gopher.word_count.min=250", "c4.curly_bracket.max=9"]


def invoke(*arguments: object) -> str:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if isinstance(result.exception, BessemerError):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.stdout


def lines_of(page: int) -> list[str]:
    """Paragraphs of a page; some pages have one that an edit takes, or a curly bracket."""
    lines = prose(page, 15 + page)
    if page % 5 == 0:
        lines.insert(3, COOKIES)
    if page % 7 == 3:
        lines[5] = "{ " + lines[5]
    return lines


def text_of(page: int) -> str:
    """What is kept of a page: paragraphs parted by a blank line; a line goes with the newline behind it."""
    return "\n\n".join(lines_of(page)).replace(COOKIES + "\n", "")


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs `before`, by the defaults, and `after`, with SETTINGS: of the same pages."""
    folder = tmp_path_factory.mktemp("desk")
    near = [*lines_of(20)[:-1], *prose(999, 1)]
    pages = [
        *(
            (f"https://a{i % 3}.org/{i}", "text/html", html_page(f"{i}", lines_of(i)))
            for i in range(NUM_PAGES)
        ),
        ("https://b.org/near", "text/html", html_page("Near", near)),
        ("https://b.org/copy", "text/html", html_page("Copy", lines_of(21))),
        ("https://b.org/image", "image/png", b"\x89PNG"),
    ]
    write_pages(folder / "pages", pages)
    (folder / "pages" / "scan ä.xyz").write_bytes(b"?")
    after = "{gopher.word_count: {min: 250}, c4.curly_bracket: {max: 9}}"
    for name, rules in (("before", "{}"), ("after", after)):
        recipe = folder / f"{name}.yaml"
        recipe.write_text(RECIPE.format(name=name, pages=folder / "pages", rules=rules))
        invoke("run", recipe, "--runs-folder", folder)
    return folder


def why(runs: Path, document: str, run: str = "before") -> dict[str, Any]:
    [record] = json.loads(invoke("why", run, document, "--json", "--runs-folder", runs))["records"]
    return record


def test_a_page_is_found_by_another_spelling_of_its_url(runs: Path):
    assert why(runs, "HTTPS://B.org:443/near?utm_source=mail#part")["url"] == "https://b.org/near"


def test_what_gave_no_page_is_answered_with_the_reason_of_the_collect_stage(runs: Path):
    for name in ("file:pages/scan%20%C3%A4.xyz", "file:pages/scan ä.xyz"):
        with pytest.raises(BessemerError, match=r"stage 'collect' gave no page of it: unknown kind"):
            why(runs, name)


def test_why_holds_the_value_of_every_rule_as_the_definitions_give_it(runs: Path):
    record = why(runs, "https://a1.org/1")
    assert [rule["name"] for rule in record["rules"]] == [rule.name for rule in RULES]
    values = {rule["name"]: rule["value"] for rule in record["rules"]}
    expected = reference_values(text_of(1))
    assert {name: values[name] for name in expected} == pytest.approx(expected)
    unmeasured = {name for name, value in values.items() if value is None}
    assert unmeasured == {rule.name for rule in RULES if rule.is_on_demand}


def test_why_finds_the_document_where_it_says(runs: Path):
    record = why(runs, "https://a2.org/5")
    [place] = record["documents"]
    row = pl.read_parquet(runs / "before/curate" / place["file"]).row(place["row"], named=True)
    assert (row["id"], row["url"]) == (record["id"], "https://a2.org/5")
    assert row["text"] == text_of(5)


@pytest.mark.parametrize("page", [1, 2, 5, 8, 29])
def test_the_tokens_that_why_names_are_the_document(runs: Path, page: int):
    url = f"https://a{page % 3}.org/{page}"
    [place] = why(runs, url)["tokens"]
    tokens = np.memmap(runs / "before" / place["stage"] / place["file"], "<u2")
    ids = tokens[place["start"] : place["end"]].tolist()
    tokenizer = load_tokenizer(runs / "before/tokenizer")
    assert ids[-1] == tokenizer.end_of_text_id
    assert tokenizer.decode(ids[:-1]) == text_of(page)
    assert place["split"] == place["file"].partition("-")[0]


def test_both_splits_hold_some_of_the_documents_that_why_was_asked_for(runs: Path):
    places = [why(runs, f"https://a{page % 3}.org/{page}")["tokens"] for page in (1, 2, 5, 8, 29)]
    assert {place["split"] for [place] in places} == {"train", "validation"}


def test_why_names_the_partner_of_a_duplicate_with_their_exact_similarity(runs: Path):
    duplicate = why(runs, "https://b.org/near")["duplicate"]
    assert duplicate["partner_url"] == duplicate["survivor_url"] == "https://a2.org/20"

    def shingles(lines: list[str]) -> set[tuple[str, ...]]:
        words = [normalise(word) for line in lines for word in line.split()]
        return {tuple(words[i : i + 5]) for i in range(len(words) - 4)}

    text = [line for line in lines_of(20) if line != COOKIES]
    one, other = shingles(text), shingles([*text[:-1], *prose(999, 1)])
    assert duplicate["similarity"] == pytest.approx(len(one & other) / len(one | other))
    stands_for = why(runs, "https://a2.org/20")["stands_for"]
    assert [row["url"] for row in stands_for["listed"]] == ["https://b.org/near"]
    copy = why(runs, "https://b.org/copy")
    assert (copy["dropped_rule"], copy["duplicate"]["similarity"]) == ("duplicates.exact", 1.0)
    assert copy["tokens"] == copy["documents"] == []


def test_why_shows_the_text_of_edits_as_read_again_from_the_page(runs: Path):
    record = why(runs, "https://a2.org/5")
    assert [edit["text"] for edit in record["edits"]] == [COOKIES + "\n"]
    assert record["original"] == "read again from the page; it agrees with the ledger"
    told = invoke("why", "before", "https://a2.org/5", "--runs-folder", runs)
    assert "c4.policy_lines" in told
    assert "tokens     tokens: " in told


def test_whatif_predicts_the_run_that_was_made_with_the_settings(runs: Path):
    answer = json.loads(invoke("whatif", "before", *SETTINGS, "--limit", 0, "--json", "--runs-folder", runs))
    dropped = {
        name: dict(
            scan_ledger(runs / name / "curate")
            .filter(pl.col("dropped_stage") == "rules")
            .select("url", "dropped_rule")
            .collect()
            .rows()
        )
        for name in ("before", "after")
    }
    assert {row["url"] for row in answer["newly_passing"]["listed"]} == (
        dropped["before"].keys() - dropped["after"].keys()
    )
    now = {row["url"]: row["rule"] for row in answer["newly_dropped"]["listed"]}
    assert now == {
        url: rule for url, rule in dropped["after"].items() if url not in dropped["before"] and url in now
    }
    assert now
    kept = scan_ledger(runs / "after/curate").filter(pl.col("verdict") == "kept").select(pl.len()).collect()
    assert answer["kept"]["at_least"] <= kept.item() <= answer["kept"]["at_most"]
    assert answer["tokens_measured"]
    assert "documents kept:" in invoke("whatif", "before", *SETTINGS, "--runs-folder", runs)


def test_diff_tells_what_whatif_predicted(runs: Path):
    answer = json.loads(invoke("diff", "before", "after", "--limit", 0, "--json", "--runs-folder", runs))
    assert set(answer["rules"]) == {"gopher.word_count", "c4.curly_bracket"}
    predicted = json.loads(
        invoke("whatif", "before", *SETTINGS, "--limit", 0, "--json", "--runs-folder", runs)
    )
    newly_dropped = {row["url"] for row in predicted["newly_dropped"]["listed"]}
    assert {row["url"] for row in answer["kept_only_before"]["listed"]} == newly_dropped
    assert answer["values"] == {}
    assert "documents only before keeps" in invoke("diff", "before", "after", "--runs-folder", runs)


def test_review_writes_one_page_that_shows_every_part(runs: Path):
    path = Path(invoke("review", "before", "--runs-folder", runs).strip())
    assert path == runs / "before/review.html"
    page = path.read_text(encoding="utf-8")
    for part in ("funnel", "languages", "sources", "values", "samples", "edits", "duplicates"):
        assert f'<section id="{part}"' in page
    for rule in RULES:
        assert (f"<b>{rule.name}</b>" in page) != rule.is_on_demand, "all that was measured"
    assert "<del>" in page
