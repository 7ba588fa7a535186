"""The export stage: the same model, the same bytes each time, and proof before it is called done."""

from pathlib import Path

import pytest
import torch
from export_world import run_small
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from bessemer.errors import BessemerError
from bessemer.export.samples import examples, questions_shown, verdict_text
from bessemer.export.stage import prove_equal
from bessemer.export.summary import summary_text
from bessemer.export.view import view_of_folder
from bessemer.model import check_reload, load_model
from bessemer.runner.manifest import open_artifact


def test_the_exported_model_is_the_last_one_logit_for_logit(small_run: Path) -> None:
    assert check_reload(load_model(small_run / "sft"), small_run / "export", seed=3) == 0.0
    for name in ("config.json", "generation_config.json", "model.safetensors", "tokenizer.json"):
        assert (small_run / "export" / name).read_bytes() == (small_run / "sft" / name).read_bytes()
    assert "chat_template" in (small_run / "export/tokenizer_config.json").read_text()


def test_two_runs_export_the_same_bytes_but_for_what_was_measured(small_run: Path, tmp_path: Path) -> None:
    run_small(tmp_path)
    first, second = (open_artifact(run / "export") for run in (small_run, tmp_path / "runs/small"))
    assert first.manifest.digest == second.manifest.digest
    measured = {entry.path for entry in first.manifest.files if entry.measured}
    assert measured == {"README.md", "report.html"}


def test_bfloat16_weights_are_the_rounded_ones_and_transformers_loads_them(tmp_path: Path) -> None:
    run_small(tmp_path, overrides=["export.dtype=bfloat16"])
    run = tmp_path / "runs/small"
    ours, source = load_file(run / "export/model.safetensors"), load_file(run / "sft/model.safetensors")
    assert all(torch.equal(ours[name], source[name].to(torch.bfloat16)) for name in source)
    model = AutoModelForCausalLM.from_pretrained(run / "export")
    assert model.dtype == torch.bfloat16
    manifest = open_artifact(run / "export").manifest
    assert 0 < manifest.metrics["reload_logit_difference"] < 0.1
    assert "before rounding to bfloat16" in (run / "export/README.md").read_text()


def test_a_folder_with_other_weights_is_not_taken_for_the_model(small_run: Path) -> None:
    with pytest.raises(BessemerError, match="logits that differ"):
        prove_equal(load_model(small_run / "sft"), torch.float32, small_run / "base")


def test_the_summary_holds_the_table_and_examples_but_no_times(small_run: Path) -> None:
    text = (small_run / "export/summary.txt").read_text()
    assert text == summary_text(view_of_folder(small_run), "sft")
    assert text.startswith("model  bits per byte")
    marks = [line.strip() for line in text.splitlines() if line.startswith("     [")]
    assert marks == ["[right]", "[right]", "[right]", "[right: declines]", "[wrong]"]


def test_control_characters_of_an_answer_do_not_reach_the_terminal(small_run: Path) -> None:
    view = view_of_folder(small_run)
    row = {**view.answers["sft"][0], "answer": "\x1b[2Jgone\r\x07 \u202e"}
    shown = summary_text(type(view)(view.name, view.stages, view.results, "", {"sft": [row]}), "sft")
    assert "[2Jgone" in shown
    assert all(character.isprintable() or character == "\n" for character in shown)


def row(kind: str, group: str, verdict: str, answer: str = "words") -> dict[str, str]:
    return {
        "text": f"{kind} {group} {verdict}",
        "kind": kind,
        "group": group,
        "verdict": verdict,
        "answer": answer,
    }


def test_examples_prefer_right_answers_of_different_kinds_and_always_show_a_wrong_one() -> None:
    rows = [
        row("purpose", "trained", "right"),
        row("purpose", "trained", "right", "second"),
        row("module", "trained", "wrong"),
        row("returns", "trained", "right"),
        row("purpose", "nonexistent", "wrong"),
    ]
    assert examples(rows) == [rows[0], rows[3], rows[1], rows[4], rows[2]]
    assert [verdict_text(each) for each in examples(rows)] == ["right", "right", "right", "made up", "wrong"]
    assert examples([]) == []


def test_questions_shown_are_the_first_of_each_kind_and_group() -> None:
    groups = ["trained"] * 4 + ["held_out_objects"] * 3 + ["nonexistent"] * 5
    rows = [row(("purpose", "module")[i % 2], group, "wrong") for i, group in enumerate(groups)]
    assert questions_shown(rows) == [0, 1, 4, 5, 7, 8, 9]
