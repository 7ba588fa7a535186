"""The connection to a Ray cluster, or to a Ray of its own on this machine (extra `ray`)."""

import importlib
import os
import socket
from typing import Any
from urllib.parse import urlsplit

from bessemer.errors import BessemerError
from bessemer.runner.executors import available_cpus
from bessemer.runner.versions import package_versions

_CONNECT_S = 10.0


class RayCluster:
    """Connects when it is entered; leaves a cluster as it was, stops a Ray of its own."""

    def __init__(self, address: str | None, num_cpus: int | None = None) -> None:
        """`address`: None for a Ray of its own, which counts `num_cpus`; default: those that are here."""
        self._address = address
        self._num_cpus = num_cpus
        self.is_own = False
        """Whether Ray was started here, and ends with this."""
        self.ray: Any = None
        """Ray's module, once this is entered."""

    def __enter__(self) -> "RayCluster":
        self.ray = _import_ray()
        self.is_own = not self.ray.is_initialized()
        if self.is_own:
            self._connect()
        try:
            self._check_versions()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        if self.is_own:
            self.ray.shutdown()

    def nodes(self) -> list[dict[str, Any]]:
        """What Ray tells of each node that is up."""
        return [node for node in self.ray.nodes() if node["Alive"]]

    def _connect(self) -> None:
        # Ray would otherwise report to its makers; a data pipeline has no business to.
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        options: dict[str, Any] = {"log_to_driver": False, "logging_level": "error"}
        if self._address is None:
            options |= {"num_cpus": self._num_cpus or available_cpus(), "include_dashboard": False}
            # Never join a cluster that happens to run here: `ray:auto` is there to say so.
            options["address"] = "local"
        else:
            options["address"] = self._address
            _check_reachable(self._address)
        try:
            self.ray.init(**options)
        except Exception as error:  # Ray raises whatever its connection raised
            where = "start on this machine" if self._address is None else f"connect to {self._address}"
            raise BessemerError(
                f"Ray could not {where}: {type(error).__name__}: {error}. Check the address with `ray status`"
            ) from error

    def _check_versions(self) -> None:
        """Other versions of the libraries would write other bytes. Raises BessemerError that names them."""
        ray, ours = self.ray, package_versions()
        pinned = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy
        asked = {
            node["NodeManagerHostname"]: ray.remote(num_cpus=0)(_versions)
            .options(scheduling_strategy=pinned(node["NodeID"], soft=False))
            .remote()
            for node in self.nodes()
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


def _release(version: str | None) -> str | None:
    """`2.13.0+cpu` and `2.13.0+cu130` are one release for what runs on CPUs."""
    return version and version.partition("+")[0]


def _versions() -> dict[str, str]:
    return package_versions()
