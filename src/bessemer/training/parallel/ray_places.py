"""Which part of a Ray cluster each training process takes, and where it is: no Ray needed."""

import os
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

from bessemer.errors import BessemerError


@dataclass(frozen=True)
class Node:
    """What a node of the cluster has in all."""

    name: str
    cpus: int
    gpus: int


@dataclass(frozen=True)
class Part:
    """What one process takes."""

    cpus: int
    gpus: int

    @property
    def bundle(self) -> dict[str, int]:
        """As Ray's placement groups have it."""
        return {"CPU": self.cpus} | ({"GPU": self.gpus} if self.gpus else {})

    def __str__(self) -> str:
        return f"{self.cpus} CPU{'s' * (self.cpus > 1)}" + (" and a GPU" if self.gpus else "")


@dataclass(frozen=True)
class Place:
    """Where a process runs."""

    address: str
    """IP address of its machine, as Ray knows it."""
    hostname: str
    pid: int
    node_id: str
    """Ray's name of the node."""

    def __str__(self) -> str:
        return f"{self.hostname}, pid {self.pid}"


def part_of_process(nodes: Sequence[Node], free_cpus: int, world_size: int) -> Part:
    """The most CPUs that each of `world_size` processes can have, and a GPU where there are any.

    Beside a GPU no more CPUs than fall to each GPU of its node. `free_cpus`: of the whole cluster, now; where
    they are too few it is for others to end, so each process asks for one. Raises BessemerError when the
    cluster can never hold the processes.
    """
    gpus = sum(node.gpus for node in nodes)
    if 0 < gpus < world_size:
        raise BessemerError(
            f"{world_size} training processes take a GPU each, and the Ray cluster has {gpus} "
            f"({_listed(nodes, 'gpus')}): start nodes with more, make the product of `parallel` at most "
            f"{gpus}, or hide them to train on CPUs (CUDA_VISIBLE_DEVICES= , or ray start --num-gpus=0)"
        )
    most = _most_cpus(nodes, world_size)
    if most == 0:
        each = "a CPU beside its GPU" if gpus else "a CPU"
        raise BessemerError(
            f"{world_size} training processes take {each} each at least, and the Ray cluster has "
            f"{sum(node.cpus for node in nodes)} ({_listed(nodes, 'cpus')}): start more nodes, or make the "
            "product of `parallel` smaller"
        )
    return Part(max(1, min(most, free_cpus // world_size)), 1 if gpus else 0)


def _most_cpus(nodes: Sequence[Node], world_size: int) -> int:
    """The most CPUs a process with which all processes fit on the nodes; 0 when not even one does."""
    has_gpus = any(node.gpus for node in nodes)
    usable = [node for node in nodes if node.gpus] if has_gpus else nodes
    fair = [node.cpus // node.gpus for node in usable] if has_gpus else [node.cpus for node in usable]

    def processes(cpus: int) -> int:
        return sum(min(node.cpus // cpus, node.gpus or node.cpus) for node in usable)

    most = max([1, min(fair) if has_gpus else max(fair)]) if fair else 0
    return next((cpus for cpus in range(most, 0, -1) if processes(cpus) >= world_size), 0)


def _listed(nodes: Sequence[Node], what: str) -> str:
    return ", ".join(f"{node.name}: {getattr(node, what)}" for node in nodes)


def wait_for_end(pid: int, timeout_s: float) -> None:
    """Until no process of this machine has this number."""
    deadline_s = time.monotonic() + timeout_s
    with suppress(ProcessLookupError):
        while time.monotonic() < deadline_s:
            os.kill(pid, 0)
            time.sleep(0.05)
