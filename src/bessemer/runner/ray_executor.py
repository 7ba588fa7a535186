"""Tasks on a Ray cluster, or on a Ray of their own on this machine (extra `ray`).

A worker that dies is replaced and its task given out again, so the nodes may come and go. Results must be
files on a file system that every node mounts at the same path; only small values travel through Ray.
"""

import importlib
import os
import socket
from collections.abc import Callable, Collection, Iterable, Iterator
from typing import Any, TypeVar
from urllib.parse import urlsplit

from bessemer.errors import BessemerError
from bessemer.runner.executors import available_cpus, in_order, worker_died
from bessemer.runner.versions import package_versions

Task = TypeVar("Task")
Result = TypeVar("Result")

_MAX_RETRIES = 4
"""How often a task is given out again after its worker died: a page that kills workers must end the run."""
_TASKS_PER_WORKER = 2
_CONNECT_S = 10.0


class RayExecutor:
    """Connects when it is entered; leaves a cluster as it was, stops a Ray of its own."""

    def __init__(self, address: str | None, num_workers: int | None) -> None:
        self._address = address
        self._wanted = num_workers
        self._ray: Any = None
        self._is_ours = False

    @property
    def num_workers(self) -> int:
        """At most the CPUs that the cluster has now; it may grow."""
        cpus = max(1, int(self._ray.cluster_resources().get("CPU", 1)))
        return min(self._wanted or cpus, cpus)

    def __enter__(self) -> "RayExecutor":
        self._ray = _import_ray()
        self._is_ours = not self._ray.is_initialized()
        if self._is_ours:
            self._connect()
        try:
            self._check_versions()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        if self._is_ours:
            self._ray.shutdown()

    def map(self, function: Callable[[Task], Result], tasks: Iterable[Task]) -> Iterator[Result]:
        ray = self._ray
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

    def _connect(self) -> None:
        # Ray would otherwise report to its makers; a data pipeline has no business to.
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        options: dict[str, Any] = {"log_to_driver": False, "logging_level": "error"}
        if self._address is None:
            options |= {"num_cpus": self._wanted or available_cpus(), "include_dashboard": False}
            # Never join a cluster that happens to run here: `ray:auto` is there to say so.
            options["address"] = "local"
        else:
            options["address"] = self._address
            _check_reachable(self._address)
        try:
            self._ray.init(**options)
        except Exception as error:  # Ray raises whatever its connection raised
            where = "start on this machine" if self._address is None else f"connect to {self._address}"
            raise BessemerError(
                f"Ray could not {where}: {type(error).__name__}: {error}. Check the address with `ray status`"
            ) from error

    def _check_versions(self) -> None:
        """Other versions of the libraries would write other bytes. Raises BessemerError that names them."""
        ray, ours = self._ray, package_versions()
        pinned = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy
        asked = {
            node["NodeManagerHostname"]: ray.remote(num_cpus=0)(_versions)
            .options(scheduling_strategy=pinned(node["NodeID"], soft=False))
            .remote()
            for node in ray.nodes()
            if node["Alive"]
        }
        for node, handle in asked.items():
            try:
                theirs = ray.get(handle)
            except ray.exceptions.RayError as error:
                raise BessemerError(
                    f"node {node} cannot run bessemer ({error}): install the same version there"
                ) from error
            wrong = [
                f"{name} {theirs.get(name)}, here {version}"
                for name, version in ours.items()
                if _release(theirs.get(name)) != _release(version)
            ]
            if wrong:
                raise BessemerError(
                    f"node {node} has other versions ({'; '.join(wrong)}), which may write other bytes: "
                    "install the same ones on every node"
                )


def _check_reachable(address: str) -> None:
    """Raises BessemerError at once where nothing listens: Ray itself tries for a quarter of an hour."""
    parts = urlsplit(address if "://" in address else f"ray://{address}")
    if parts.port is None:  # `auto`, or a name that Ray knows how to look up
        return
    try:
        socket.create_connection((parts.hostname or "", parts.port), _CONNECT_S).close()
    except OSError as error:
        raise BessemerError(
            f"Ray could not connect to {address}: {error}. `ray status` on its head node tells the address"
        ) from error


def _import_ray() -> Any:
    try:
        ray = importlib.import_module("ray")
        importlib.import_module("ray.util.scheduling_strategies")
    except ImportError as error:
        raise BessemerError(
            f"--on ray needs Ray, which cannot be imported ({error}): pip install 'bessemer[ray]'"
        ) from error
    return ray


def _call(function: Callable[[Task], Result], task: Task) -> Result:
    return function(task)


def _release(version: str | None) -> str | None:
    """`2.13.0+cpu` and `2.13.0+cu130` are one release for what runs on CPUs."""
    return version and version.partition("+")[0]


def _versions() -> dict[str, str]:
    return package_versions()
