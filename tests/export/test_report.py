"""The report page and its JSON, of whole, partial and broken runs."""

import json
import shutil
from dataclasses import replace
from html import escape
from html.parser import HTMLParser
from pathlib import Path

import pytest
from export_world import ATTACK, answer_rows, run_small

from bessemer.errors import BessemerError
from bessemer.export import report as report_module
from bessemer.export.report import follow_report, report_json, write_report

_VOID = {"meta", "br", "hr", "img", "link"}


class Page(HTMLParser):
    """Reads a page and checks that elements close in order; collects what a browser would act on."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.addresses: list[str] = []
        self.handlers: list[str] = []
        self.ids: list[str] = []
        self.source = path.read_text(encoding="utf-8")
        self.feed(self.source)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        for name, value in attrs:
            if name in ("href", "src", "action", "data", "srcset", "xlink:href"):
                self.addresses.append(value or "")
            if name.startswith("on"):
                self.handlers.append(name)
            if name == "id":
                self.ids.append(value or "")
        if tag not in _VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


@pytest.fixture
def run_copy(small_run: Path, tmp_path: Path) -> Path:
    """A run of its own to change."""
    return Path(shutil.copytree(small_run, tmp_path / "small"))


def test_a_whole_run_has_every_section(run_copy: Path) -> None:
    path = write_report(run_copy)
    assert path == run_copy / "report.html"
    expected = ["flow", "evaluation", "answers", "training", "curation", "documents"]
    assert Page(path).ids == [*expected, "cost", "lineage", "versions"]


@pytest.mark.parametrize("name", ["report.html", "export/report.html"])
def test_no_text_of_documents_questions_or_answers_becomes_markup(run_copy: Path, name: str) -> None:
    write_report(run_copy)
    page = Page(run_copy / name)
    assert ATTACK not in page.source
    assert page.source.count(escape(ATTACK)) > 10
    assert "script" not in page.tags
    assert page.handlers == []


def test_the_page_asks_nobody_for_anything(run_copy: Path) -> None:
    page = Page(write_report(run_copy))
    assert all(address.startswith("#") for address in page.addresses)
    assert {address[1:] for address in page.addresses} == set(page.ids)
    assert "url(" not in page.source
    assert "@import" not in page.source


def test_dropped_documents_are_shown_with_rule_value_and_threshold(run_copy: Path) -> None:
    source = write_report(run_copy).read_text()
    assert "gopher.word_count" in source
    assert "5 below the least, 50 (words)" in source
    assert escape("Too short to keep.") in source


def test_answers_stand_side_by_side_with_their_verdicts(run_copy: Path) -> None:
    source = write_report(run_copy).read_text()
    assert "✓ right" in source
    assert "✗ made up" in source
    assert "○ declines, though documented" in source
    assert "no words, counted as wrong" in source
    assert source.count(escape(answer_rows("sft")[0]["text"])) == 1, (
        "a question stands once, over all answers"
    )


def test_equal_runs_give_equal_pages(run_copy: Path) -> None:
    first = write_report(run_copy).read_bytes()
    assert write_report(run_copy).read_bytes() == first


def test_a_run_that_stopped_after_curation_has_a_page_of_what_there_is(tmp_path: Path) -> None:
    run_small(tmp_path, until="curate")
    page = Page(write_report(tmp_path / "runs/small"))
    assert page.ids == ["flow", "curation", "documents", "cost", "lineage", "versions"]
    assert "not begun" in page.source
    assert report_json(tmp_path / "runs/small")["models"] == {}


def test_a_run_that_made_nothing_yet_has_a_page(tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text("name: fresh\nstages:\n- collect: {name: collect}\n")
    assert Page(write_report(tmp_path)).ids == ["flow"]


def test_the_curve_of_a_stage_at_work_is_shown_up_to_its_last_whole_line(run_copy: Path) -> None:
    shutil.rmtree(run_copy / "sft")
    partial = run_copy / ".sft.partial"
    partial.mkdir()
    rows = [json.dumps({"step": step, "loss": 9.0 / step, "tokens": step * 8}) + "\n" for step in (1, 2, 3)]
    (partial / "metrics.jsonl").write_text("".join(rows) + '{"step": 4, "lo')
    source = write_report(run_copy).read_text()
    assert "Instruction tuning: loss" in source
    assert "24 tokens: nats 3" in source
    assert "cut short" in source


def test_a_followed_page_reloads_itself_until_nothing_is_at_work(
    run_copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    view = report_module.view_of_folder(run_copy)
    at_work = replace(view, stages=[replace(view.stages[0], status="running"), *view.stages[1:]])
    views = iter([at_work, view, at_work, view, view])
    monkeypatch.setattr(report_module, "view_of_folder", lambda folder: next(views, view))
    pages = []
    path = follow_report(
        run_copy, 5, sleep=lambda s: pages.append((s, Page(run_copy / "report.html").source))
    )
    assert [seconds for seconds, _ in pages] == [5, 5, 5, 5]
    assert all('http-equiv="refresh" content="5"' in page for _, page in pages)
    assert 'http-equiv="refresh"' not in Page(path).source


def test_a_damaged_stage_is_named_and_the_rest_is_shown(run_copy: Path) -> None:
    (run_copy / "tokenizer/manifest.json").write_text("{")
    page = Page(write_report(run_copy))
    assert "damaged" in page.source
    assert "evaluation" in page.ids


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BessemerError, match=r"recipe\.yaml"):
        write_report(tmp_path)


def test_unreadable_results_are_an_error_that_says_how_to_mend(run_copy: Path) -> None:
    (run_copy / "evaluate/results.json").write_text("{")
    with pytest.raises(BessemerError, match="--from evaluate"):
        write_report(run_copy)


def test_the_json_holds_stages_and_models_as_promised(small_run: Path) -> None:
    document = json.loads(json.dumps(report_json(small_run), allow_nan=False))
    kinds = ["collect", "curate", "tokenizer", "pretrain", "sft", "evaluate", "export"]
    assert [stage["kind"] for stage in document["stages"]] == kinds
    for stage in document["stages"]:
        assert set(stage) == {"name", "kind", "status", "wall_s", "digest"}
        assert stage["status"] == "done"
        assert len(stage["digest"]) == 64
        assert stage["wall_s"] > 0
    assert list(document["models"]) == ["base", "sft"]
    for figures in document["models"].values():
        assert {"bits_per_byte", "answer_accuracy", "made_up_rate", "stop_rate"} <= set(figures)
        assert all(set(figure) == {"value", "low", "high", "n"} for figure in figures.values())
    assert document["models"]["sft"]["answer_accuracy"]["value"] == 0.5
    assert document["models"]["sft"]["answer_accuracy_module"] == {"value": None, "low": 0, "high": 1, "n": 0}
