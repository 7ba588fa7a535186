import json
import os
import shutil
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from test_training_stages import inputs  # noqa: F401

from bessemer.errors import BessemerError
from bessemer.recipe import parse_recipe
from bessemer.runner.manifest import write_manifest
from bessemer.training.config import TrainingConfig
from bessemer.training.parallel import torchrun
from bessemer.training.parallel.endings import Failure
from bessemer.training.parallel.layout import ParallelConfig
from bessemer.training.parallel.message import packed, unpacked
from bessemer.training.parallel.torchrun import ending_of
from bessemer.training.schedules import ScheduleConfig
from bessemer.training.sft import SftConfig, tune
from stage_helpers import stage_context

HERE = Path(__file__).parent


def agents(num_agents: int, folder: Path, kind: str, *options: str) -> list[subprocess.CompletedProcess]:
    """Two processes of `torchrun_child.py`, under one torchrun or under two that stand for two machines."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    paths = [str(HERE), str(HERE.parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    command = [
        sys.executable, "-m", "torch.distributed.run", "--nnodes", str(num_agents),
        "--nproc-per-node", str(2 // num_agents), "--rdzv-backend", "c10d", "--rdzv-id", "test",
        "--rdzv-endpoint", f"127.0.0.1:{port}", "--local-addr", "127.0.0.1", *options,
        str(HERE / "torchrun_child.py"), str(folder), kind,
    ]  # fmt: skip
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(paths),
        "OMP_NUM_THREADS": "1",
        "GLOO_SOCKET_IFNAME": "lo",
    }
    pipes: Any = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    started = [subprocess.Popen(command, env=environment, **pipes) for _ in range(num_agents)]
    try:
        with ThreadPoolExecutor() as pool:
            outputs = list(pool.map(lambda each: each.communicate(timeout=900), started))
    finally:
        for each in started:
            each.kill()
    return [
        subprocess.CompletedProcess(command, each.returncode, *output)
        for each, output in zip(started, outputs, strict=True)
    ]


@pytest.mark.slow
@pytest.mark.parametrize("num_agents", [1, 2])
def test_stages_are_led_by_the_first_process_that_torchrun_starts(tmp_path, num_agents):
    found = agents(num_agents, tmp_path, "speak")
    assert [each.returncode for each in found] == [0] * num_agents, found[0].stderr[-2000:]
    said = "".join(each.stdout for each in found)
    assert said.splitlines() == ["first {'sum': 3.0}", "second {'sum': 3.0}"]
    assert (tmp_path / "second" / "output" / "written").read_text() == "0"


@pytest.mark.slow
def test_a_process_that_hangs_under_torchrun_is_named(tmp_path):
    (found,) = agents(1, tmp_path, "hang")
    assert found.returncode != 0
    assert "bessemer: training process 1 of 2 hangs or is gone: process 0 waited for it" in found.stderr
    assert "parallel.timeout_s = 10 s" in found.stderr


def run_folder(folder: Path, inputs) -> Path:  # noqa: F811
    """A shared folder with the inputs of a pretraining, as artifacts with manifests."""
    for kind in ("tokens", "tokenizer"):
        shutil.copytree(inputs[kind].folder, folder / "inputs" / kind)
        write_manifest(folder / "inputs" / kind, inputs[kind].manifest)
    return folder


def losses(folder: Path) -> dict[int, set[float]]:
    """By step; a set of one where a step that was done twice gave the same."""
    found: dict[int, set[float]] = {}
    for line in (folder / "output" / "metrics.jsonl").read_text().splitlines():
        row = json.loads(line)
        if "loss" in row:
            found.setdefault(row["step"], set()).add(row["loss"])
    return found


@pytest.mark.slow
@pytest.mark.parametrize("num_agents", [1, 2])
def test_a_killed_worker_is_restarted_and_the_losses_are_those_of_an_undisturbed_run(
    tmp_path,
    inputs,  # noqa: F811
    num_agents,
):
    calm, disturbed = (run_folder(tmp_path / name, inputs) for name in ("calm", "disturbed"))
    (disturbed / "die").touch()
    for folder in (calm, disturbed):
        found = agents(num_agents, folder, "pretrain", "--max-restarts", "2")
        assert [each.returncode for each in found] == [0] * num_agents, found[0].stderr[-3000:]
    assert (disturbed / "killed").exists()
    assert losses(disturbed) == losses(calm)
    assert len(losses(calm)) == 40
    weights = [(folder / "output" / "model.safetensors").read_bytes() for folder in (calm, disturbed)]
    assert weights[0] == weights[1]


TIMED_OUT, CUT_OFF = Failure("timeout", "timed out"), Failure("lost", "connection closed")
REFUSED, RAISED = Failure("mendable", "lower the flame"), Failure("unexpected", "KeyError")


@pytest.mark.parametrize(
    ("failures", "speaker", "message"),
    [
        ({0: REFUSED, 1: REFUSED, 2: REFUSED}, 0, "^its own$"),
        ({0: CUT_OFF, 1: REFUSED, 2: CUT_OFF}, 1, "^training process 1 of 3: lower the flame$"),
        ({0: CUT_OFF, 1: RAISED, 2: CUT_OFF}, None, ""),
        (
            {0: TIMED_OUT, 2: CUT_OFF},
            0,
            "^training process 1 of 3 hangs or is gone: process 0 waited for it ",
        ),
        ({1: TIMED_OUT}, 1, "^training process 0, 2 of 3 hangs or is gone"),
        ({0: CUT_OFF, 1: CUT_OFF, 2: TIMED_OUT}, 0, "lost one another .* process 0 says:\nconnection closed"),
    ],
    ids=["all alike", "one", "a traceback tells", "one is gone", "two are gone", "nobody knows"],
)
def test_of_processes_that_give_up_under_torchrun_one_tells_who_is_at_fault(failures, speaker, message):
    for rank, failure in failures.items():
        if failure is RAISED:  # it raises what it has, with its number as a note
            continue
        told = ending_of(rank, 3, failures, BessemerError("its own"), 4.0)
        if rank != speaker:
            assert isinstance(told, SystemExit)
            assert told.code == 1
            continue
        with pytest.raises(BessemerError, match=message):
            raise told


@pytest.mark.slow
def test_an_error_of_one_process_under_torchrun_is_one_message_with_its_number(tmp_path):
    (found,) = agents(1, tmp_path, "refuse")
    assert found.returncode != 0
    said = [line for line in found.stderr.splitlines() if line.startswith("bessemer: ")]
    assert said == ["bessemer: training process 1 of 2: lower the flame"]
    assert "Connection closed" not in found.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "message"),
    [("refuse", "training process 1 of 2: lower the flame"), ("misconfigured", "give it a name")],
)
def test_what_only_the_user_can_mend_is_told_once_and_not_tried_again(tmp_path, kind, message):
    (found,) = agents(1, tmp_path, kind, "--max-restarts", "2")
    assert found.returncode != 0
    said = [line for line in found.stderr.splitlines() if line.startswith("bessemer: ")]
    again = f"of 2 is left out, for it would end as before: {message}"
    assert said == [f"bessemer: {message}", *(f"bessemer: torchrun's restart {n} {again}" for n in (1, 2))]


def test_a_layout_of_another_size_than_torchrun_started_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(torchrun, "_joined", lambda: (None, 0, 4))
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "any")
    monkeypatch.setenv("WORLD_SIZE", "4")
    config = TrainingConfig(parallel=ParallelConfig(data=2))
    told = (
        r"asks for 2 processes, and torchrun has started 4: set data x shard to 4, or have torchrun start 2$"
    )
    with pytest.raises(BessemerError, match=told):
        torchrun.lead(None, config, stage_context(tmp_path))
    recipe = {"stages": ["collect", "curate", "tokenizer", "tokens", {"pretrain": {"parallel": {"data": 2}}}]}
    with pytest.raises(BessemerError, match=told):
        parse_recipe(json.dumps(recipe), "recipe.yaml")
    monkeypatch.setenv("WORLD_SIZE", "2")
    parse_recipe(json.dumps(recipe), "recipe.yaml")


def test_a_stage_is_handed_on_as_json(tmp_path):
    config = SftConfig(epochs=1.5, parallel=ParallelConfig(data=2), schedule=ScheduleConfig(decay=0.6))
    context = replace(stage_context(tmp_path), seed=2**60 + 1, run={"name": "x"})
    message = packed(tune, config, context)
    json.loads(message)
    work, read_config, read_context = unpacked(message)
    assert work is tune
    assert read_config == config
    assert replace(read_context, reporter=context.reporter) == context
