"""Local processes of a stage: what they say, and what is said of those that die, hang or disagree."""

import atexit
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from parallel_helpers import run_ranks

from bessemer import cli
from bessemer.errors import BessemerError, RaisedElsewhere
from bessemer.recipe import StagePlan
from bessemer.runner.identity import identify
from bessemer.training.config import TrainingConfig
from bessemer.training.parallel.launch import on_ranks
from bessemer.training.parallel.layout import ParallelConfig, build_layout
from bessemer.training.parallel.process import (
    check_agreement,
    config_facts,
    context_of_rank,
    join,
    leave_groups,
    ranks_folder,
)
from bessemer.training.parallel.together import Together
from bessemer.training.pretrain import PretrainConfig
from stage_helpers import said, stage_context

TWO = TrainingConfig(parallel=ParallelConfig(data=2, timeout_s=120))
"""On a busy machine one process may start many seconds after the other."""
IMPATIENT = TrainingConfig(parallel=ParallelConfig(data=2, timeout_s=10))


def speak(config, context, ranks):
    context.say(f"of {ranks.share.of}")
    with context.progress("working", 2, "steps") as progress:
        progress.advance(1)
        progress.set(2, loss="1.0")
    (context.output / "written").write_text(str(ranks.share.place))
    return {"sum": ranks.sums([1.0 + ranks.share.place])[0]}


def be_killed(config, context, ranks):
    ranks.wait()
    if not ranks.is_main:
        os.kill(os.getpid(), signal.SIGKILL)
    ranks.wait()


def hang(config, context, ranks):
    ranks.wait()
    if not ranks.is_main:
        time.sleep(600)
    ranks.wait()


def refuse(config, context, ranks):
    if not ranks.is_main:
        raise BessemerError("lower the flame")
    ranks.wait()


def err(config, context, ranks):
    if not ranks.is_main:
        raise KeyError("the missing key")
    ranks.wait()


def kill_the_run(config, context, ranks):
    ranks.wait()
    if not ranks.is_main:
        os.kill(os.getppid(), signal.SIGKILL)
    time.sleep(60)


def run_and_be_killed(folder: str) -> None:
    on_ranks(kill_the_run, TWO, stage_context(Path(folder)))


def test_processes_meet_in_a_run_folder_that_is_given_from_here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert on_ranks(speak, TWO, stage_context(Path("run"))) == {"sum": 3.0}


@pytest.mark.slow
def test_a_killed_run_leaves_nothing_but_what_its_next_start_removes(tmp_path):
    work, temporary = tmp_path / "work", tmp_path / "temporary"
    temporary.mkdir()
    here = [str(Path(__file__).parent), str(Path(__file__).parent.parent)]
    paths = [*here, *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "TMPDIR": str(temporary), "PYTHONPATH": os.pathsep.join(paths)}
    code = f"import test_launch; test_launch.run_and_be_killed({str(work)!r})"
    found = subprocess.run([sys.executable, "-c", code], env=environment, timeout=120, check=False)
    assert found.returncode == -signal.SIGKILL
    assert not list(temporary.glob("*bessemer*"))
    assert (work / "scratch" / "ranks" / "rank-1" / "output").is_dir()
    context = stage_context(work)
    assert on_ranks(speak, TWO, context) == {"sum": 3.0}
    assert not list(context.scratch.iterdir())


def test_what_a_process_keeps_to_itself_is_empty_at_its_start(tmp_path):
    context = stage_context(tmp_path)
    for _ in range(2):
        own = context_of_rank(context, 1, ranks_folder(context))
        assert not list(own.output.iterdir())
        assert not own.metrics_path.exists()
        (own.output / "left").touch()
        own.metrics_path.touch()


def abort_at_the_end(config, context, ranks):
    atexit.register(os.abort)
    return {"sum": ranks.sums([1.0])[0]}


def test_a_process_that_has_done_its_work_has_not_failed_whatever_libraries_do_at_its_end(tmp_path):
    assert on_ranks(abort_at_the_end, TWO, stage_context(tmp_path)) == {"sum": 2.0}


def threads_before_and_after(rank: int, world_size: int) -> tuple[int, int]:
    ranks = Together(build_layout(ParallelConfig(data=world_size), world_size))
    ranks.wait()
    before = len(os.listdir("/proc/self/task"))
    del ranks
    leave_groups()
    return before, len(os.listdir("/proc/self/task"))


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="lists threads as Linux does")
def test_the_threads_of_a_layout_end_with_its_groups():
    for before, after in run_ranks(2, threads_before_and_after):
        assert before > after + 10
        assert after <= 3


def test_the_first_process_speaks_writes_and_gives_the_metrics(tmp_path):
    context = stage_context(tmp_path)
    assert on_ranks(speak, TWO, context) == {"sum": 3.0}
    assert said(context) == "2 processes on this machine\nof 2"
    assert (context.output / "written").read_text() == "0"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("work", "config", "error", "message"),
    [
        (
            be_killed,
            TWO,
            BessemerError,
            r"process 1 of 2 was killed by SIGKILL; the others were ended\. If memory",
        ),
        (
            hang,
            IMPATIENT,
            BessemerError,
            r"process 1 of 2 hangs: the others waited for it for parallel\.timeout_s = 10 s",
        ),
        (refuse, TWO, BessemerError, "^training process 1 of 2: lower the flame$"),
        (err, TWO, RaisedElsewhere, r"(?s)process 1 of 2 raised.*the missing key"),
    ],
)
def test_the_process_at_fault_is_named_and_the_others_end(tmp_path, work, config, error, message):
    started_s = time.monotonic()
    with pytest.raises(error, match=message):
        on_ranks(work, config, stage_context(tmp_path))
    assert time.monotonic() - started_s < 110, "sooner than what waits for 120 s or sleeps for 600 s"


@pytest.mark.slow
def test_the_command_line_shows_the_traceback_of_the_process_that_raised_and_no_other(
    tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(cli, "app", lambda: on_ranks(err, TWO, stage_context(tmp_path)))
    with pytest.raises(SystemExit, match="1"):
        cli.main()
    told = capsys.readouterr().err
    assert told.startswith("bessemer: training process 1 of 2 raised\nTraceback (most recent call last):\n")
    assert told.count("Traceback") == 1
    assert told.endswith("KeyError: 'the missing key'\n")


def test_one_process_works_here_and_starts_none(tmp_path):
    context = stage_context(tmp_path)
    assert on_ranks(speak, TrainingConfig(), context) == {"sum": 1.0}
    assert said(context) == "of 1"


def disagree(rank: int, world_size: int) -> str:
    try:
        check_agreement({"digest of tokens": f"digest {rank}", "seed": "3"})
    except BessemerError as error:
        return str(error)
    return ""


def test_a_process_with_other_data_is_refused_with_both_values():
    message = (
        "process 1 has another digest of tokens than process 0: digest 1, not digest 0; give all the same"
    )
    assert run_ranks(2, disagree) == [message, message]


def given_other(rank: int, world_size: int, folder) -> str:
    """Each process is given a config and a seed of its own, and sent those of the first."""
    config, context = TrainingConfig(), stage_context(folder / str(rank))
    own = TrainingConfig(batch_tokens=2048 * (1 + rank))
    try:
        join(None, config, context, "cpu", config_facts(own, 7))
    except BessemerError as error:
        return str(error)
    return ""


def test_a_process_that_was_given_another_config_is_refused_with_both_values(tmp_path):
    message = "process 1 has another config batch_tokens than process 0: 4096, not 2048; give all the same"
    assert run_ranks(2, given_other, tmp_path) == [message, message]


def look_for(rank: int, world_size: int, folders) -> str:
    ranks = Together(build_layout(ParallelConfig(data=world_size), world_size))
    try:
        ranks.check_shared(folders[rank])
    except BessemerError as error:
        return str(error)
    return ""


def test_a_process_that_does_not_see_the_run_folder_is_named(tmp_path):
    """It would write its part of each checkpoint where nobody looks for it."""
    here, there = tmp_path / "here", tmp_path / "there"
    here.mkdir()
    there.mkdir()
    assert run_ranks(2, look_for, [here, here]) == ["", ""]
    for folder, error in zip([here, there], run_ranks(2, look_for, [here, there]), strict=True):
        assert "training process 1 (on " in error
        assert f"of 2 does not see the folder {folder} of process 0" in error
    assert not [*here.iterdir(), *there.iterdir()]


def test_fewer_rows_than_processes_are_refused_by_the_config():
    with pytest.raises(ValueError, match=r"a step has 8 rows, fewer than the 16 processes"):
        TrainingConfig(sequence_length=256, batch_tokens=2048, parallel=ParallelConfig(data=16))


def test_the_layout_is_no_part_of_what_decides_the_result():
    from bessemer.stages import STAGES

    plan = StagePlan(name="base", stage=STAGES["pretrain"], config=PretrainConfig(), inputs={})
    two = replace(plan, config=PretrainConfig(parallel=ParallelConfig(data=2)))
    assert identify(plan, 0, {}).key == identify(two, 0, {}).key


def test_gradients_in_bfloat16_decide_the_result_and_are_recorded():
    """Other numbers, beyond rounding: a model that was made with them is not up to date without."""
    from bessemer.stages import STAGES

    plan = StagePlan(name="base", stage=STAGES["pretrain"], config=PretrainConfig(), inputs={})
    narrow = ParallelConfig(data=2, gradient_dtype="bfloat16")
    two = replace(plan, config=PretrainConfig(parallel=narrow))
    assert identify(plan, 0, {}).key != identify(two, 0, {}).key
    assert identify(two, 0, {}).config["parallel"] == {"gradient_dtype": "bfloat16"}
    four = replace(plan, config=PretrainConfig(parallel=narrow.model_copy(update={"data": 4})))
    assert identify(two, 0, {}).key == identify(four, 0, {}).key
    assert "parallel" not in identify(plan, 0, {}).config
