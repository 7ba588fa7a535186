"""Training stages on a real Ray: the bytes of local processes, and what is said of those that die or hang."""

import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from test_launch import IMPATIENT, TWO, be_killed, err, hang, refuse, speak
from test_torchrun import losses, run_folder
from test_training_stages import PRETRAIN, inputs  # noqa: F401

from bessemer.doctor_parallel import examine_parallel
from bessemer.errors import BessemerError, RaisedElsewhere
from bessemer.runner.context import StageContext
from bessemer.runner.manifest import Artifact, read_manifest
from bessemer.runner.ray_cluster import RayCluster
from bessemer.training.config import TrainingConfig
from bessemer.training.parallel import on_ray, restarts
from bessemer.training.parallel.endings import ProcessesFailed
from bessemer.training.parallel.equivalence import cases
from bessemer.training.parallel.launch import on_ranks
from bessemer.training.parallel.layout import ParallelConfig
from bessemer.training.parallel.reporters import Silent
from bessemer.training.pretrain import PretrainConfig, pretrain, train_base
from stage_helpers import contents, said, stage_context

pytest.importorskip("ray")
pytestmark = pytest.mark.slow

MANY_STEPS = PRETRAIN.model_copy(update={"parallel": ParallelConfig(data=2), "tokens": 128 * 40})


@pytest.fixture(scope="module", autouse=True)
def search_path() -> Iterator[None]:
    """Ray's workers find the modules of tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", ":".join(str(Path(path).absolute()) for path in sys.path if path))
        yield


@pytest.fixture(scope="module")
def calm(inputs, tmp_path_factory) -> Path:  # noqa: F811
    """A pretraining in two local processes."""
    folder = run_folder(tmp_path_factory.mktemp("calm"), inputs)
    pretrain(MANY_STEPS, context_in(folder))
    return folder


@pytest.fixture(scope="module")
def two_cpus(search_path) -> Iterator[RayCluster]:
    """A Ray that stands for a cluster: stages join it, and leave it as it was."""
    with RayCluster(None, 2) as cluster:
        yield cluster


def context_in(folder: Path, on: str = "local") -> StageContext:
    paths = [folder / "inputs" / name for name in ("tokens", "tokenizer")]
    artifacts = [Artifact(path, read_manifest(path)) for path in paths if path.exists()]
    return replace(stage_context(folder, *artifacts), on=on)


def written(folder: Path) -> dict[str, bytes]:
    """All but the times in the metrics."""
    found = contents(folder / "output")
    assert "model.safetensors" in found
    return {name: value for name, value in found.items() if name != "metrics.jsonl"}


def train_and_die_once(config: PretrainConfig, context: StageContext, ranks: Any) -> dict[str, Any]:
    """Pretraining of which a process is killed when the first checkpoint is there."""
    marker = context.scratch / "killed"

    def wait_and_die() -> None:
        while not list((context.scratch / "checkpoints").glob("step-*")):
            time.sleep(0.001)
        marker.touch()
        os.kill(os.getpid(), signal.SIGKILL)

    if not ranks.is_main and not marker.exists():
        threading.Thread(target=wait_and_die, daemon=True).start()
    return train_base(config, context, ranks)


def test_a_pretraining_on_a_ray_of_its_own_writes_the_bytes_of_local_processes(
    calm: Path,
    inputs,  # noqa: F811
    tmp_path: Path,
):
    context = context_in(run_folder(tmp_path, inputs), "ray")
    pretrain(MANY_STEPS, context)
    assert said(context).splitlines()[0] == "2 processes on Ray, each with 1 CPU"
    assert losses(tmp_path) == losses(calm)
    assert written(tmp_path) == written(calm)
    assert not list(context.scratch.glob(".seen-*"))
    assert not (context.scratch / "ray-train").exists()


def test_after_a_killed_process_all_start_again_and_write_the_bytes_of_an_undisturbed_run(
    calm: Path,
    inputs,  # noqa: F811
    tmp_path: Path,
    two_cpus: RayCluster,
):
    context = context_in(run_folder(tmp_path, inputs), "ray")
    on_ranks(train_and_die_once, MANY_STEPS, context)
    assert (context.scratch / "killed").exists()
    (restart,) = [text for text in context.reporter.said if "restart" in text]
    assert restart.startswith("training process 1 of 2 (")
    assert "; the others were ended; all start again from step-0" in restart
    assert restart.endswith("(1 of 3 restarts)")
    assert losses(tmp_path) == losses(calm)
    assert written(tmp_path) == written(calm)


def test_the_first_process_speaks_writes_and_gives_the_metrics(tmp_path: Path, two_cpus: RayCluster):
    context = context_in(tmp_path, "ray")
    assert on_ranks(speak, TWO, context) == {"sum": 3.0}
    assert said(context) == "2 processes on Ray, each with 1 CPU\nof 2"
    assert (context.output / "written").read_text() == "0"


@pytest.mark.parametrize(
    ("work", "config", "error", "message"),
    [
        (
            be_killed,
            TWO,
            ProcessesFailed,
            r"process 1 of 2 \(.*, pid \d+\) died \(killed, out of .*\); the others were ended\. If",
        ),
        (
            hang,
            IMPATIENT,
            ProcessesFailed,
            r"process 1 \(.*, pid \d+\) of 2 hangs: .* parallel\.timeout_s = 10 s",
        ),
        (refuse, TWO, BessemerError, r"^training process 1 \(.*, pid \d+\) of 2: lower the flame$"),
        (err, TWO, RaisedElsewhere, r"(?s)process 1 of 2 \(.*, pid \d+\) raised.*the missing key"),
    ],
)
def test_the_process_at_fault_is_named_and_the_others_end(
    tmp_path: Path, two_cpus: RayCluster, monkeypatch: pytest.MonkeyPatch, work, config, error, message
):
    monkeypatch.setattr(restarts, "MAX_RESTARTS", 0)
    started_s = time.monotonic()
    with pytest.raises(error, match=message):
        on_ranks(work, config, context_in(tmp_path, "ray"))
    assert time.monotonic() - started_s < 110, "sooner than what waits for 120 s or sleeps for 600 s"
    wait_for_free_cpus(two_cpus, 2)


def test_an_interrupted_command_leaves_no_process(tmp_path: Path, two_cpus: RayCluster):
    context = context_in(tmp_path, "ray")

    def interrupt() -> None:
        while not (context.scratch / "pid-0").exists():
            time.sleep(0.05)
        signal.raise_signal(signal.SIGINT)

    threading.Thread(target=interrupt, daemon=True).start()
    with pytest.raises(KeyboardInterrupt):
        on_ranks(tell_and_hang, TWO, context)
    for told in context.scratch.glob("pid-*"):
        with pytest.raises(ProcessLookupError):
            os.kill(int(told.read_text()), 0)
    wait_for_free_cpus(two_cpus, 2)


def tell_and_hang(config: TrainingConfig, context: StageContext, ranks: Any) -> None:
    ranks.wait()
    (context.scratch / f"pid-{ranks.share.place}").write_text(str(os.getpid()))
    time.sleep(60)


def wait_for_free_cpus(cluster: RayCluster, count: int) -> None:
    """Nothing is held any more."""
    deadline_s = time.monotonic() + 30
    while cluster.ray.available_resources().get("CPU", 0) != count:
        assert time.monotonic() < deadline_s, cluster.ray.available_resources()
        time.sleep(0.1)


def test_more_processes_than_cpus_are_refused_at_once(tmp_path: Path, two_cpus: RayCluster):
    config = TrainingConfig(parallel=ParallelConfig(data=3))
    with pytest.raises(BessemerError, match=r"3 training processes take a CPU each .* Ray cluster has 2 \("):
        on_ranks(speak, config, context_in(tmp_path, "ray"))


def test_a_cluster_whose_cpus_are_taken_is_waited_for_and_then_named(
    tmp_path: Path, two_cpus: RayCluster, monkeypatch: pytest.MonkeyPatch
):
    ray = two_cpus.ray
    taken = ray.util.placement_group([{"CPU": 1}])
    assert taken.wait(30)
    monkeypatch.setattr(on_ray, "_LOOK_S", 1)
    monkeypatch.setattr(on_ray, "_PLACE_S", 1)
    context = context_in(tmp_path, "ray")
    try:
        with pytest.raises(
            BessemerError, match=r"no room for 2 processes with 1 CPU each: 1 CPUs and 0 GPUs"
        ):
            on_ranks(speak, TWO, context)
    finally:
        ray.util.remove_placement_group(taken)
    assert "waiting up to 1 s for room" in said(context)


def test_a_node_that_does_not_see_the_run_folder_is_named(
    tmp_path: Path, two_cpus: RayCluster, monkeypatch: pytest.MonkeyPatch
):
    context = context_in(tmp_path, "ray")

    @contextmanager
    def unseen(scratch: Path) -> Iterator[Path]:
        yield scratch / ".seen-elsewhere"

    monkeypatch.setattr(on_ray, "_token", unseen)
    with pytest.raises(
        BessemerError, match=f"does not see the run folder .* {context.scratch} is missing, an"
    ):
        on_ranks(speak, TWO, context)


def test_inputs_that_a_node_does_not_see_are_named(
    inputs,  # noqa: F811
    tmp_path: Path,
    two_cpus: RayCluster,
):
    context = context_in(run_folder(tmp_path, inputs), "ray")
    shutil.rmtree(tmp_path / "inputs" / "tokens")
    with pytest.raises(BessemerError, match=r"inputs/tokens.*manifest\.json"):
        pretrain(MANY_STEPS, context)


def test_the_doctor_compares_the_layouts_on_ray(tmp_path: Path, two_cpus: RayCluster):
    runs = tmp_path / "runs"
    found = examine_parallel(2, Silent(), "ray", runs)
    assert len(found) == len(cases(2)) >= 19
    assert {check.outcome for check in found} == {"ok"}, [str(check) for check in found]
    assert list(runs.iterdir()) == [], "what the processes met in is gone"
