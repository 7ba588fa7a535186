"""Tasks on a Ray cluster, or on a Ray of their own on this machine (extra `ray`).

A worker that dies is replaced and its task given out again, so the nodes may come and go. Results must be
files on a file system that every node mounts at the same path; only small values travel through Ray.
"""

from collections.abc import Callable, Collection, Iterable, Iterator
from typing import Any, TypeVar

from bessemer.runner.executors import in_order, worker_died
from bessemer.runner.ray_cluster import RayCluster

Task = TypeVar("Task")
Result = TypeVar("Result")

_MAX_RETRIES = 4
"""How often a task is given out again after its worker died: a page that kills workers must end the run."""
_TASKS_PER_WORKER = 2


class RayExecutor:
    """Connects when it is entered; leaves a cluster as it was, stops a Ray of its own."""

    def __init__(self, address: str | None, num_workers: int | None) -> None:
        self._wanted = num_workers
        self._cluster = RayCluster(address, num_workers)

    @property
    def num_workers(self) -> int:
        """At most the CPUs that the cluster has now; it may grow."""
        cpus = max(1, int(self._cluster.ray.cluster_resources().get("CPU", 1)))
        return min(self._wanted or cpus, cpus)

    def __enter__(self) -> "RayExecutor":
        self._cluster.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self._cluster.__exit__(*error)

    def map(self, function: Callable[[Task], Result], tasks: Iterable[Task]) -> Iterator[Result]:
        ray = self._cluster.ray
        # SPREAD: by default Ray fills one node before it uses the next, which then lacks memory.
        remote = ray.remote(num_cpus=1, max_retries=_MAX_RETRIES, scheduling_strategy="SPREAD")(_call)
        # Sent once, not with every task.
        shared = ray.put(function)

        def any_finished(handles: Collection[Any]) -> Collection[Any]:
            return ray.wait(list(handles), num_returns=1, fetch_local=False)[0]

        def result(handle: Any, task: Task) -> Result:
            try:
                return ray.get(handle)
            except ray.exceptions.RayTaskError as error:
                raise (error.cause or error) from error
            except ray.exceptions.RayError as error:
                raise worker_died(task) from error

        max_waiting = _TASKS_PER_WORKER * self.num_workers
        return in_order(tasks, max_waiting, lambda task: remote.remote(shared, task), any_finished, result)


def _call(function: Callable[[Task], Result], task: Task) -> Result:
    return function(task)
