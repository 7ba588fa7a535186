"""Executors: results in the order of the tasks, faults that pass through, workers that die."""

import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import executor_tasks
import pytest

from bessemer.errors import BessemerError, ConfigError
from bessemer.runner.executors import (
    Executor,
    InProcess,
    ProcessPool,
    check_place,
    in_order,
    open_executor,
)


@pytest.fixture(scope="module", params=[False, True], ids=["others", "with this process"])
def pool(request: pytest.FixtureRequest) -> Iterator[Executor]:
    with ProcessPool(2, takes_part=request.param) as executor:
        yield executor


def test_results_come_in_the_order_of_the_tasks(pool: Executor) -> None:
    for executor in (InProcess(), pool):
        assert list(executor.map(executor_tasks.square, range(50))) == [i * i for i in range(50)]
        assert list(executor.map(executor_tasks.square, [])) == []


def test_a_slow_task_holds_up_nobody(pool: Executor, tmp_path: Path) -> None:
    tasks = [(number, str(tmp_path), 12) for number in range(12)]
    results = list(pool.map(executor_tasks.first_waits, tasks))
    assert [number for number, _ in results] == list(range(12))
    busy = results[0][1]
    assert sum(process == busy for _, process in results) == 1, "the other worker did all the rest"


def test_a_process_that_takes_part_works_while_the_others_start() -> None:
    with ProcessPool(2, takes_part=True) as executor:
        processes = [process for _, process in executor.map(executor_tasks.process_of, range(200))]
    assert processes.count(os.getpid()) > 1
    assert len(set(processes)) == 2


def test_what_a_task_raises_passes_through(pool: Executor) -> None:
    for executor in (InProcess(), pool):
        with pytest.raises(executor_tasks.Fault, match="three is not allowed"):
            list(executor.map(executor_tasks.fail_at_three, range(10)))


def test_a_worker_that_dies_is_an_error_that_names_a_task_and_says_what_to_do() -> None:
    with ProcessPool(2) as executor:
        with pytest.raises(BessemerError, match=r"a worker process died while \d .*Run again"):
            list(executor.map(executor_tasks.die_at_three, range(10)))
        # What is handed out after the death ends with the same words, whichever comes first.
        with pytest.raises(BessemerError, match=r"a worker process died while \d .*Run again"):
            list(executor.map(executor_tasks.die_at_three, range(10)))


def test_leaving_early_does_not_wait_for_tasks_that_have_not_begun() -> None:
    started = time.monotonic()
    with ProcessPool(1) as executor:
        next(executor.map(time.sleep, [0.0, *[0.4] * 1000]))
    assert time.monotonic() - started < 200, "all of them take 400 s"


@pytest.mark.parametrize("pick", [min, max])
def test_tasks_are_handed_out_only_a_few_at_a_time(pick: Callable) -> None:
    """However they finish: oldest first or newest first."""
    out: set[int] = set()
    most = 0

    def submit(task: int) -> int:
        nonlocal most
        out.add(task)
        most = max(most, len(out))
        return task

    def result(handle: int, task: int) -> int:
        out.remove(handle)
        return -task

    results = in_order(range(100), 3, submit, lambda handles: [pick(handles)], result)
    assert list(results) == [-number for number in range(100)]
    assert most == 3


def test_no_more_workers_start_than_there_are_tasks() -> None:
    with open_executor("local", 8, 1) as one, open_executor("local", 3, 2) as two:
        assert (type(one), one.num_workers) == (InProcess, 1)
        assert (type(two), two.num_workers) == (ProcessPool, 2)


@pytest.mark.parametrize("place", ["local", "ray", "ray:auto", "ray:10.0.0.1:6379", "ray:ray://head:10001"])
def test_places_to_run_are_known_by_name(place: str) -> None:
    assert check_place(place) == place


@pytest.mark.parametrize("place", ["", "rey", "ray:", "local:2", "slurm", "rays:auto"])
def test_an_unknown_place_is_an_error_with_the_known_ones(place: str) -> None:
    with pytest.raises(ConfigError, match=r"`ray:ADDRESS`"):
        check_place(place)


def test_without_ray_the_error_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(BessemerError, match=r"cannot be imported .*pip install 'bessemer\[ray\]'"):
        with open_executor("ray"):
            pass
