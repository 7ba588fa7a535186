"""What one training process does on Ray: the function that Ray Train calls in each."""

import importlib
import os
import queue
import socket
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch._C._distributed_c10d import PrefixStore, TCPStore

from bessemer.errors import BessemerError
from bessemer.runner.context import Metrics
from bessemer.training.parallel.endings import AGAIN, GRACE_S, failure_of
from bessemer.training.parallel.interfaces import prefer_interface_of, prefer_loopback
from bessemer.training.parallel.message import unpacked
from bessemer.training.parallel.process import context_of_rank, join, leave_groups, pick_device, ranks_folder
from bessemer.training.parallel.ray_places import Place
from bessemer.training.parallel.reporters import Message, SentReporter

NODE_GRACE_S = 60.0
"""Where connections broke: until Ray knows which node is gone (it asks each 5 times, 3 s apart and more)."""
_GATHER_S = 0.1
"""News of that time go together: a hundred steps a second are no reason for as many messages."""


def train_rank(told: dict[str, Any]) -> None:
    """Do the stage's work with the others.

    `told`: `message`, see `message`; `num_threads` and `has_gpu` of this process; `shared`, the paths that it
    must see; `attempt`, the actor that hears how it goes. Raises when it fails, so that Ray Train ends all.
    """
    ray, context = importlib.import_module("ray"), importlib.import_module("ray.train").get_context()
    attempt, rank = told["attempt"], context.get_world_rank()
    here = ray.util.get_node_ip_address()
    place = Place(here, socket.gethostname(), os.getpid(), ray.get_runtime_context().get_node_id())
    ray.get(attempt.started.remote(rank, place))
    threading.Thread(target=_end_when_stopped, args=(attempt,), daemon=True).start()
    if not told["has_gpu"]:
        # Ray leaves GPUs that it was told not to count in sight of its workers.
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    torch.set_num_threads(told["num_threads"])
    news = _News(lambda messages: ray.get(attempt.tell.remote(messages)))
    try:
        _check_seen(told["shared"], place)
        metrics = _train(told["message"], place, context, news)
    except BaseException as error:  # whatever it is, the command weighs it against the others' ends
        failure = failure_of(error)
        news.end()
        patience_s = NODE_GRACE_S if failure.kind == "lost" else GRACE_S
        ray.get(attempt.failed.remote(rank, failure, patience_s))
        raise RuntimeError("this process failed, as it has told the command") from error
    news.end()
    ray.get(attempt.ended.remote(rank, metrics if rank == 0 else None))


def _end_when_stopped(attempt: Any) -> None:
    ray = importlib.import_module("ray")
    with suppress(ray.exceptions.RayError):  # it is gone, and whoever asked for the work, too
        ray.get(attempt.stopped.remote())
    os._exit(1)


def _check_seen(paths: Sequence[str], place: Place) -> None:
    for path in paths:
        if not os.access(path, os.W_OK):
            raise BessemerError(
                f"node {place.hostname} does not see the run folder as the command's machine does: there, "
                f"{Path(path).parent} is missing, another, or may not be written. Keep runs on a file system "
                f"that every node mounts at the same path (--runs-folder); then {AGAIN}"
            )


def _train(message: bytes, place: Place, told: Any, news: "_News") -> Metrics:
    rank, world_size = told.get_world_rank(), told.get_world_size()
    os.environ["LOCAL_WORLD_SIZE"] = str(told.get_local_world_size())
    if told.get_local_world_size() == world_size:
        prefer_loopback()
    else:
        prefer_interface_of(place.address)
    work, config, context = unpacked(message)
    device_type = pick_device(0, 1)  # Ray shows each process its own GPU alone
    timeout = timedelta(seconds=config.parallel.timeout_s)
    dist.init_process_group(
        "nccl" if device_type == "cuda" else "gloo",
        store=PrefixStore("group", _store(rank, world_size, place.address, timeout)),
        rank=rank,
        world_size=world_size,
        timeout=timeout,
    )
    own = context_of_rank(context, rank, ranks_folder(context))
    reporter = SentReporter(news.put) if rank == 0 else context.reporter
    metrics = join(work, config, replace(own, reporter=reporter), device_type)
    leave_groups()
    return metrics


def _store(rank: int, world_size: int, address: str, timeout: timedelta) -> TCPStore:
    """Through which the processes find one another: the first one's, whose address Ray Train passes on."""
    own, where = None, None
    if rank == 0:
        # Port 0: the system picks one that is free, and nobody can take it in between.
        own = TCPStore(address, 0, world_size, is_master=True, timeout=timeout, wait_for_workers=False)
        where = (address, own.port)
    first, port = importlib.import_module("ray.train.collective").broadcast_from_rank_zero(where)
    return own or TCPStore(first, port, world_size, timeout=timeout)


class _News:
    """Messages on their way to the command: gathered, and sent by a thread so that no step waits."""

    def __init__(self, send: Any) -> None:
        self._send = send
        self._waiting: queue.SimpleQueue[Message | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def put(self, message: Message) -> None:
        self._waiting.put(message)

    def end(self) -> None:
        """Send the last ones."""
        self._waiting.put(None)
        self._thread.join()

    def _run(self) -> None:
        is_over = False
        while not is_over:
            found = [self._waiting.get()]
            time.sleep(_GATHER_S if found[0] is not None else 0)
            with suppress(queue.Empty):
                while True:
                    found.append(self._waiting.get_nowait())
            is_over = found[-1] is None
            if messages := [message for message in found if message is not None]:
                self._send(messages)
