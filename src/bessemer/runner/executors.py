"""Where the parts of a stage run: in this process, in processes of this machine, or on a Ray cluster.

An executor maps a function over tasks and yields the results in the order of the tasks, wherever and in
whatever order they ran. Function, tasks and results travel between processes, so they are small: what a
task makes belongs into files in a folder that every worker sees.
"""

import multiprocessing
import os
from collections.abc import Callable, Collection, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, ThreadPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import AbstractContextManager
from typing import Protocol, TypeVar

from bessemer.errors import BessemerError, ConfigError
from bessemer.runner.workers import exit_with_parent

Task = TypeVar("Task")
Result = TypeVar("Result")
Handle = TypeVar("Handle")

LOCAL, RAY = "local", "ray"
_TASKS_PER_WORKER = 4
"""Tasks handed out at a time for each worker: enough that none waits, few enough to hold."""


class Executor(Protocol):
    """Runs tasks. Use it as a context manager: leaving it ends its workers."""

    @property
    def num_workers(self) -> int:
        """Tasks that run at the same time."""
        ...

    def map(self, function: Callable[[Task], Result], tasks: Iterable[Task]) -> Iterator[Result]:
        """`function(task)` for each task, in the order of the tasks.

        What the function raises passes through. Raises BessemerError when a worker dies and the task
        cannot be given to another; tasks are named by `str(task)`.
        """
        ...

    def __enter__(self) -> "Executor": ...
    def __exit__(self, *error: object) -> None: ...


def check_place(on: str) -> str:
    """`on` itself when it names a place to run: `local`, `ray` or `ray:ADDRESS`. Raises ConfigError."""
    kind, colon, address = on.partition(":")
    if on == LOCAL or (kind == RAY and bool(colon) == bool(address)):
        return on
    raise ConfigError(
        f"--on {on}: say `local` (processes of this machine), `ray` (a Ray of its own on this machine) or "
        "`ray:ADDRESS` (a Ray cluster, such as `ray:auto` on its head node or `ray:10.0.0.1:6379`)"
    )


def open_executor(
    on: str = LOCAL,
    num_workers: int | None = None,
    num_tasks: int | None = None,
    takes_part: bool = False,
) -> AbstractContextManager[Executor]:
    """The executor for a place that `check_place` knows.

    `num_workers`: by default the CPUs of the place. No more start than there are `num_tasks`. `takes_part`:
    this process is one of the local ones; for work that cannot bring it down.
    """
    kind, _, address = check_place(on).partition(":")
    if kind == RAY:
        from bessemer.runner.ray_executor import RayExecutor

        return RayExecutor(address or None, num_workers)
    wanted = num_workers or available_cpus()
    wanted = wanted if num_tasks is None else min(wanted, num_tasks)
    return ProcessPool(wanted, takes_part) if wanted > 1 else InProcess()


def available_cpus() -> int:
    """CPUs that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class InProcess:
    """One task after the other, here."""

    num_workers = 1

    def map(self, function: Callable[[Task], Result], tasks: Iterable[Task]) -> Iterator[Result]:
        yield from map(function, tasks)

    def __enter__(self) -> "InProcess":
        return self

    def __exit__(self, *error: object) -> None: ...


class ProcessPool:
    """Processes of this machine, which end with their parent however it ends."""

    def __init__(self, num_workers: int, takes_part: bool = False) -> None:
        """With `takes_part` one of the workers is a thread of this process: an interpreter less to start."""
        self.num_workers = num_workers
        # Spawned, not forked: the parent may hold threads (polars, pyarrow, a progress bar).
        spawn = multiprocessing.get_context("spawn")
        num_others = num_workers - takes_part
        self._others = ProcessPoolExecutor(num_others, mp_context=spawn, initializer=exit_with_parent)
        self._here = ThreadPoolExecutor(1) if takes_part else None
        self._is_idle = True

    def map(self, function: Callable[[Task], Result], tasks: Iterable[Task]) -> Iterator[Result]:
        under_way_here: Future[Result] | None = None

        def submit(task: Task) -> Future[Result]:
            nonlocal under_way_here
            if self._here is not None and (under_way_here is None or under_way_here.done()):
                under_way_here = self._here.submit(function, task)
                return under_way_here
            try:
                return self._others.submit(function, task)
            except BrokenProcessPool as error:  # by a task that was handed out before
                raise worker_died(task) from error

        def any_finished(futures: Collection[Future[Result]]) -> Collection[Future[Result]]:
            return wait(futures, return_when=FIRST_COMPLETED).done

        def result(future: Future[Result], task: Task) -> Result:
            try:
                return future.result()
            except BrokenProcessPool as error:
                raise worker_died(task) from error

        self._is_idle = False
        # Where this process takes part it is to have what the others have not begun while they start.
        per_worker = _TASKS_PER_WORKER if self._here is None else 1
        yield from in_order(tasks, per_worker * self.num_workers, submit, any_finished, result)
        self._is_idle = True

    def __enter__(self) -> "ProcessPool":
        return self

    def __exit__(self, *error: object) -> None:
        if self._here is not None:
            self._here.shutdown(cancel_futures=True)
        # Interpreters take a quarter of a second to end, which nobody need wait for when their work is done.
        self._others.shutdown(wait=not self._is_idle, cancel_futures=True)


def worker_died(task: object) -> BessemerError:
    """The error for a worker that ended without an answer."""
    return BessemerError(
        f"a worker process died while {task} or a task beside it was being worked on: killed, out of "
        "memory, or a page that the parser cannot bear. Run again: finished tasks are kept. If it happens "
        "again, give fewer `workers`, or a smaller max_page_bytes."
    )


def in_order(
    tasks: Iterable[Task],
    max_waiting: int,
    submit: Callable[[Task], Handle],
    any_finished: Callable[[Collection[Handle]], Collection[Handle]],
    result: Callable[[Handle, Task], Result],
) -> Iterator[Result]:
    """Results in the order of the tasks, at most `max_waiting` of which are handed out at a time.

    A slow task holds up nobody: others are handed out behind it, and their results wait for their turn.
    """
    numbered = enumerate(tasks)
    waiting: dict[Handle, tuple[int, Task]] = {}
    arrived: dict[int, Result] = {}
    turn = 0
    while True:
        while len(waiting) < max_waiting and (following := next(numbered, None)) is not None:
            waiting[submit(following[1])] = following
        if not waiting:
            return
        for handle in any_finished(waiting.keys()):
            number, task = waiting.pop(handle)
            arrived[number] = result(handle, task)
        while turn in arrived:
            yield arrived.pop(turn)
            turn += 1
