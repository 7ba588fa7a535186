"""The Ray executor on a real Ray of this machine: the same contract as the local ones, and dead workers."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import executor_tasks
import pytest

from bessemer.errors import BessemerError
from bessemer.runner import ray_cluster
from bessemer.runner.executors import Executor, open_executor

pytest.importorskip("ray")
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def ray_workers() -> Iterator[Executor]:
    """A Ray of three workers, which find the module of tasks."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", ":".join(str(Path(path).absolute()) for path in sys.path if path))
        with open_executor("ray", 3) as executor:
            yield executor


def test_results_come_in_the_order_of_the_tasks(ray_workers: Executor) -> None:
    assert ray_workers.num_workers == 3
    assert list(ray_workers.map(executor_tasks.square, range(40))) == [i * i for i in range(40)]


def test_a_task_whose_worker_was_killed_is_given_to_another(ray_workers: Executor, tmp_path: Path) -> None:
    marker = tmp_path / "killed"
    tasks = [(number, str(marker)) for number in range(10)]
    assert list(ray_workers.map(executor_tasks.die_once, tasks)) == list(range(10))
    assert marker.exists()


def test_a_task_that_kills_every_worker_is_named(ray_workers: Executor) -> None:
    with pytest.raises(BessemerError, match="a worker process died while 3 "):
        list(ray_workers.map(executor_tasks.die_at_three, range(10)))


def test_what_a_task_raises_passes_through(ray_workers: Executor) -> None:
    with pytest.raises(executor_tasks.Fault, match="three is not allowed"):
        list(ray_workers.map(executor_tasks.fail_at_three, range(10)))


def test_a_node_with_other_versions_is_named(ray_workers: Executor, monkeypatch: pytest.MonkeyPatch) -> None:
    versions = ray_cluster.package_versions()
    monkeypatch.setattr(ray_cluster, "package_versions", lambda: versions | {"numpy": "0.1"})
    with pytest.raises(BessemerError, match=r"other versions \(numpy .*, here 0.1\)"):
        with open_executor("ray", 3):
            pass


def test_an_address_where_no_cluster_is_gives_an_error_that_names_it() -> None:
    code = "from bessemer.runner.executors import open_executor; open_executor('ray:127.0.0.1:9').__enter__()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "BessemerError: Ray could not connect to 127.0.0.1:9" in done.stderr
