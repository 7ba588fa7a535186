"""What one training process does on Ray: an actor that works in one thread, and tells news in another."""

import importlib
import os
import queue
import socket
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch._C._distributed_c10d import PrefixStore, TCPStore

from bessemer.runner.context import Metrics
from bessemer.training.parallel.endings import Failure, failure_of
from bessemer.training.parallel.interfaces import prefer_interface_of, prefer_loopback
from bessemer.training.parallel.message import unpacked
from bessemer.training.parallel.process import context_of_rank, join, leave_groups, pick_device
from bessemer.training.parallel.reporters import Message, SentReporter

END: Message = ("end",)
"""The last of the news."""
_WAIT_S = 1.0
"""How long a question for news waits for some."""
_GATHER_S = 0.1
"""News of that time come together: a hundred steps a second are no reason for as many messages."""


@dataclass(frozen=True)
class Place:
    """Where an actor runs."""

    address: str
    """IP address of its machine, as Ray knows it."""
    hostname: str
    pid: int

    def __str__(self) -> str:
        return f"{self.hostname}, pid {self.pid}"


@dataclass(frozen=True)
class Seat:
    """One process's part in a group."""

    rank: int
    addresses: tuple[str, ...]
    """Of the machines of all processes, by rank."""
    port: int
    """Where the first process's store listens."""
    num_threads: int

    @property
    def num_here(self) -> int:
        """Processes on the same machine."""
        return self.addresses.count(self.addresses[self.rank])


class RayRank:
    """Takes two calls at a time: `train`, and `news` beside it."""

    def __init__(self, has_gpu: bool) -> None:
        if not has_gpu:
            # Ray leaves GPUs that it was told not to count in sight of its workers.
            os.environ["CUDA_VISIBLE_DEVICES"] = ""
        self._news: queue.SimpleQueue[Message] = queue.SimpleQueue()
        self._store: Any = None

    def place(self) -> Place:
        address = importlib.import_module("ray").util.get_node_ip_address()
        return Place(address, socket.gethostname(), os.getpid())

    def unseen(self, paths: Sequence[str]) -> list[str]:
        """Those that are not there, or may not be written."""
        return [path for path in paths if not os.access(path, os.W_OK)]

    def listen(self, address: str, world_size: int, timeout_s: float) -> int:
        """Open the store through which the processes find one another; its port. For the first process."""
        # Port 0: the system picks one that is free, and nobody can take it in between.
        self._store = TCPStore(
            address,
            0,
            world_size,
            is_master=True,
            timeout=timedelta(seconds=timeout_s),
            wait_for_workers=False,
        )
        return self._store.port

    def train(self, message: bytes, seat: Seat) -> Metrics | Failure:
        """Do the stage's work with the others."""
        try:
            return self._train(message, seat)
        except BaseException as error:  # whatever it is, the driver weighs it against the others' ends
            return failure_of(error)
        finally:
            self._news.put(END)

    def news(self) -> list[Message]:
        """What the process has said and shown since it was last asked; waits a while for the first."""
        try:
            found = [self._news.get(timeout=_WAIT_S)]
        except queue.Empty:
            return []
        time.sleep(_GATHER_S)
        with suppress(queue.Empty):
            while True:
                found.append(self._news.get_nowait())
        return found

    def _train(self, message: bytes, seat: Seat) -> Metrics:
        os.environ["LOCAL_WORLD_SIZE"] = str(seat.num_here)
        torch.set_num_threads(seat.num_threads)
        world_size, here = len(seat.addresses), seat.addresses[seat.rank]
        if seat.num_here == world_size:
            prefer_loopback()
        else:
            prefer_interface_of(here)
        work, config, context = unpacked(message)
        device_type = pick_device(0, 1)  # Ray shows each process its own GPU alone
        timeout = timedelta(seconds=config.parallel.timeout_s)
        store = self._store or TCPStore(seat.addresses[0], seat.port, world_size, timeout=timeout)
        dist.init_process_group(
            "nccl" if device_type == "cuda" else "gloo",
            store=PrefixStore("group", store),
            rank=seat.rank,
            world_size=world_size,
            timeout=timeout,
        )
        with tempfile.TemporaryDirectory(prefix="bessemer-rank-") as folder:
            own = context_of_rank(context, seat.rank, Path(folder))
            reporter = SentReporter(self._news.put) if seat.rank == 0 else context.reporter
            metrics = join(work, config, replace(own, reporter=reporter), device_type)
        leave_groups()
        return metrics
