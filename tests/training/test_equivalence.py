"""The equivalence matrix of docs/equivalence.md, measured again; and what the doctor makes of it."""

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from parallel_helpers import run_ranks
from typer.testing import CliRunner

from bessemer import doctor_parallel
from bessemer.cli import app
from bessemer.errors import BessemerError
from bessemer.model.kernels import torch_operations
from bessemer.training.parallel.equivalence import (
    Comparison,
    cases,
    compare_on_ranks,
    gradient_differences,
)
from bessemer.training.parallel.equivalence_page import bound, bounds, page
from bessemer.training.parallel.equivalence_step import (
    step_alone,
    tiny_batches,
    tiny_config,
    tiny_model,
    tiny_row_tokens,
)
from bessemer.training.parallel.layout import check_model, check_rows
from bessemer.training.parallel.process import Silent

PAGE = Path(__file__).parents[2] / "docs" / "equivalence.md"
CPU = torch.device("cpu")
SOUND = Comparison("DDP", "dense", 2, loss=3e-9, gradients=1e-7, own=2e-7, seconds=0.25)


class Quiet(Silent):
    """All that the matrix asks of a stage's context."""


def matrix(rank: int, world_size: int) -> list[Comparison]:
    found = compare_on_ranks(None, Quiet(), None)  # type: ignore[arg-type]
    return [Comparison(**row) for row in found["comparisons"]]


@pytest.mark.parametrize("processes", [2, 4])
def test_every_layout_computes_what_one_process_does_within_the_bounds_of_the_page(processes: int) -> None:
    written = bounds(PAGE.read_text())
    measured = run_ranks(processes, matrix, timeout_s=1800)[0]
    for row in measured:
        limits = written[row.layout, row.processes, row.model]
        found = (row.loss, row.gradients, row.own)
        assert all(value <= limit for value, limit in zip(found, limits, strict=True)), row
        assert row.is_equal


def test_the_page_has_a_row_for_every_layout_and_no_other() -> None:
    wanted = {
        (case.layout, processes, "experts" if case.has_experts else "dense")
        for processes in (2, 4)
        for case in cases(processes)
    }
    written = bounds(PAGE.read_text())
    assert written.keys() == wanted
    assert PAGE.read_text().startswith(page([]).strip())
    for loss, gradients, own in written.values():
        assert loss <= 1e-6
        assert gradients <= own <= 1e-5


def test_a_page_is_read_back_as_it_was_written() -> None:
    row = replace(SOUND, loss=0.0, gradients=1.2e-7, own=3.6e-6)
    assert bounds(page([row])) == {("DDP", 2, "dense"): (1e-7, 5e-7, 1e-5)}
    assert [bound(value) for value in (0.0, 5e-8, 5.1e-8, 1e-7, 0.9e-6, 2.6e-6)] == pytest.approx(
        [1e-7, 1e-7, 2e-7, 2e-7, 2e-6, 1e-5]
    )


def test_no_layout_is_named_twice_and_each_takes_all_processes() -> None:
    for processes in (2, 3, 4, 8):
        found = cases(processes)
        assert len({(case.layout, case.has_experts) for case in found}) == len(found)
        assert {case.parallel.world_size for case in found} == {processes}


@pytest.mark.parametrize("processes", range(2, 9))
def test_any_number_of_processes_can_divide_the_model_and_its_rows(processes: int) -> None:
    """`bessemer doctor --parallel --processes N` is for any N."""
    for case in cases(processes):
        check_model(case.parallel, tiny_config(processes, has_experts=case.has_experts))
        check_rows(case.parallel, 2 * processes, tiny_row_tokens(processes))


def test_a_step_of_wrong_scale_a_missing_gradient_and_a_nan_are_seen() -> None:
    batches = tiny_batches(2, CPU)
    with torch_operations():
        step = step_alone(tiny_model(tiny_config(2, has_experts=False), CPU), batches)
    assert gradient_differences(step.gradients, step.gradients) == (0.0, 0.0)
    name = next(iter(step.gradients))
    doubled = step.gradients | {name: 2 * step.gradients[name]}
    of_all, own = gradient_differences(doubled, step.gradients)
    assert own == pytest.approx(1.0)
    assert 0 < of_all <= own
    broken = step.gradients | {name: step.gradients[name] * math.nan}
    assert gradient_differences(broken, step.gradients) == (math.inf, math.inf)


def test_every_token_that_is_learnt_counts_once() -> None:
    """Rows differ in targets, and one has a single one: a mean of means would be another loss."""
    counts = [int((batch.targets_BT >= 0).sum()) for batch in tiny_batches(4, CPU)]
    assert len(counts) == 8
    assert counts[1] == 1
    assert len(set(counts)) > 2


def test_the_doctor_fails_when_a_layout_differs(monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = replace(SOUND, layout="tensor", own=1e-3)
    assert not wrong.is_equal
    monkeypatch.setattr(doctor_parallel, "compare_layouts", lambda *args: [SOUND, wrong])
    done = CliRunner().invoke(app, ["doctor", "--parallel", "--processes", "2", "--json"])
    assert done.exit_code == 1
    checks = {check["name"]: check for check in json.loads(done.stdout)}
    assert checks["parallel, 2 processes: DDP, dense"]["outcome"] == "ok"
    assert checks["parallel, 2 processes: tensor, dense"]["outcome"] == "fail"
    assert "train with another" in checks["parallel, 2 processes: tensor, dense"]["mend"]


def test_the_doctor_hands_on_where_the_processes_are_to_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = []
    monkeypatch.setattr(doctor_parallel, "compare_layouts", lambda *args: given.append(args) or [SOUND])
    for place in ("local", "ray:auto"):
        options = ["--parallel", "--processes", "2", "--on", place, "--runs-folder", str(tmp_path / place)]
        assert CliRunner().invoke(app, ["doctor", *options]).exit_code == 0
    (_, _, local, nowhere), (_, _, ray, shared) = given
    assert (local, nowhere) == ("local", None)
    assert (ray, shared) == ("ray:auto", tmp_path / "ray:auto"), "a folder that all nodes see"
    done = CliRunner().invoke(app, ["doctor", "--parallel", "--on", "mars"])
    assert "--on mars: say `local`" in str(done.exception)


def test_processes_that_die_are_a_failed_check_of_the_doctor(monkeypatch: pytest.MonkeyPatch) -> None:
    def die(*args):
        raise BessemerError("training process 1 of 2 was killed by SIGKILL")

    monkeypatch.setattr(doctor_parallel, "compare_layouts", die)
    found = doctor_parallel.examine_parallel(2, Quiet())
    assert [(check.outcome, check.detail) for check in found] == [
        ("fail", "training process 1 of 2 was killed by SIGKILL")
    ]


def test_processes_that_die_are_told_with_the_layout_at_which_they_did(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def die(processes, reporter, *args):
        with reporter.progress("2 processes", 3, "layouts") as progress:
            progress.set(0, now="DDP, dense")
            progress.set(1, now="tensor, experts")
            raise BessemerError("training process 1 of 2 was killed by SIGKILL")

    monkeypatch.setattr(doctor_parallel, "compare_layouts", die)
    (found,) = doctor_parallel.examine_parallel(2, Quiet())
    assert found.mend.startswith("it ended in the layout tensor, experts: run it again")


def test_results_stand_under_one_another_in_the_order_of_the_layouts(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [SOUND, replace(SOUND, layout="pipeline, interleaved", model="experts", processes=4)]
    monkeypatch.setattr(doctor_parallel, "compare_layouts", lambda *args: rows)
    lines = [str(check) for check in doctor_parallel.examine_parallel(2, Quiet())]
    assert len({line.index("loss") for line in lines}) == 1
    assert ["DDP, dense" in lines[0], "pipeline, interleaved, experts" in lines[1]] == [True, True]


@pytest.mark.slow
def test_the_doctor_prints_the_table_of_two_processes_once() -> None:
    done = CliRunner().invoke(app, ["doctor", "--parallel", "--processes", "2"])
    assert done.exit_code == 0, done.output
    lines = done.output.splitlines()
    assert sum(line.startswith("ok ") and "parallel, 2" in line for line in lines) == 21
    assert sum("gradients" in line for line in lines) == 21
    assert sum(line.startswith("2 processes: ") for line in lines) >= 2, "how far it is"
