"""The model card: front matter that parses, tables that are tables, code that runs."""

import re
import shutil
from datetime import UTC, datetime
from pathlib import Path

import pytest
import yaml
from export_world import RECIPE, run_small

from bessemer.export.card import _data, model_card
from bessemer.export.view import view_of_folder
from bessemer.inference.chat import answer_once
from bessemer.runner.manifest import read_manifest


@pytest.fixture
def card(small_run: Path) -> str:
    return (small_run / "export/README.md").read_text(encoding="utf-8")


def front_matter(card: str) -> dict[str, object]:
    _, block, _ = card.split("---\n", 2)
    return yaml.safe_load(block)


def section(card: str, title: str) -> str:
    return card.split(f"\n## {title}\n")[1].split("\n## ")[0]


def table(text: str) -> list[list[str]]:
    """Cells of the one Markdown table in a text, as GitHub reads it: `\\|` is a bar inside a cell."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]


def test_the_front_matter_is_what_the_hub_reads(card: str) -> None:
    assert front_matter(card) == {
        "language": ["en"],
        "library_name": "transformers",
        "pipeline_tag": "text-generation",
        "tags": ["bessemer", "text-generation", "conversational"],
    }


def test_a_license_is_named_only_when_one_was_chosen(small_run: Path, card: str) -> None:
    assert "License: none was chosen" in card
    view = view_of_folder(small_run)
    model = view.last("model")
    assert model is not None
    licensed = model_card(view, model, "apache-2.0", "float32")
    assert front_matter(licensed)["license"] == "apache-2.0"
    assert "License: apache-2.0." in licensed


@pytest.mark.parametrize("title", ["Evaluation", "Stages", "Cost", "Lineage"])
def test_every_row_of_a_table_has_as_many_cells_as_its_heading(card: str, title: str) -> None:
    rows = table(section(card, title))
    assert len(rows) > 3
    assert {len(row) for row in rows} == {len(rows[0])}
    assert set(rows[1]) == {"---"}


def test_figures_stand_with_their_intervals_and_the_final_model_is_marked(card: str) -> None:
    rows = table(section(card, "Evaluation"))
    assert rows[0][:3] == ["model", "bits per byte", "right, taught objects"]
    assert rows[2][:3] == ["base", "2.500 (2.250 to 2.750)", "0.0% (0.0% to 32.4%)"]
    assert rows[3][0] == "**sft** (this model)"
    assert rows[3][2].startswith("50.0% (")


def test_the_lineage_holds_the_digests_of_the_manifests(small_run: Path, card: str) -> None:
    rows = {row[0]: row for row in table(section(card, "Lineage"))}
    for stage in ("collect", "curate", "tokenizer", "base", "sft", "evaluate"):
        assert rows[stage][2] == f"`{read_manifest(small_run / stage).digest}`"
    assert rows["sft"][3] == "tokenizer, base"


def test_the_cutoff_is_the_date_of_the_newest_file(small_run: Path, card: str) -> None:
    changed = datetime.fromtimestamp((small_run.parents[1] / "pages.jsonl").stat().st_mtime, UTC)
    assert f"Knowledge cutoff: {changed:%Y-%m-%dT%H:%M:%SZ}" in card
    assert f"It knows nothing newer than {changed:%Y-%m-%d}" in card
    assert "4 entered curation, 3 were kept" in card


def test_data_without_dates_has_no_made_up_cutoff(tmp_path: Path) -> None:
    run_small(tmp_path, overrides=["collect.fetched_at=1970-01-01T00:00:00Z"], until="curate")
    told = _data(view_of_folder(tmp_path / "runs/small"))
    assert "Knowledge cutoff: unknown" in told


def test_a_base_model_is_not_called_an_assistant(tmp_path: Path) -> None:
    run_small(tmp_path, text=RECIPE.replace("  - sft\n", "").replace("  - evaluate\n", ""))
    card = (tmp_path / "runs/small/export/README.md").read_text()
    assert "it was not tuned to chat" in card
    assert "apply_chat_template" not in card
    assert "## Evaluation" not in card
    assert "How often it makes things up was not measured" in card


def test_the_snippet_runs_and_answers_as_we_do(
    small_run: Path,
    card: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    code = card.split("```python\n")[1].split("```")[0]
    question = re.search(r'"content": "(.*?)"', code)
    assert question is not None
    ours = answer_once(small_run / "export", question[1], max_new_tokens=64)
    monkeypatch.chdir(shutil.copytree(small_run / "export", tmp_path / "model"))
    exec(compile(code, "README.md", "exec"), {})
    assert capsys.readouterr().out.strip() == ours


def test_documentation_without_dates_is_no_newer_than_its_installation(small_run: Path) -> None:
    """What the built-in corpus says of itself in its manifest stands in for the dates of its pages."""
    view = view_of_folder(small_run)
    [pages] = view.of_kind("pages")
    pages.manifest.metrics["no_newer_than"] = "2999-01-02T03:04:05Z"
    assert "Knowledge cutoff: 2999-01-02T03:04:05Z" in _data(view)
