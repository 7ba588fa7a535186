"""Functions on several ranks of one machine: gloo, a file for the rendezvous, one thread each.

    def mean(rank: int, world_size: int, factor: float) -> float: ...

    assert run_ranks(2, mean, 3.0) == [1.5, 1.5]

Ranks are forked from a clean server process that has imported torch once: a call takes about a second.
"""

import multiprocessing
import os
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable
from datetime import timedelta
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

COLLECTIVE_TIMEOUT_S = 300
"""After which a collective fails whose other ranks do not come: on a busy machine they come late."""
RUN_TIMEOUT_S = 600
"""After which the ranks of a call are ended."""
_GRACE_S = 5
"""Until the other ranks are ended after one has failed."""
_SERVED = (
    "torch.distributed.fsdp",
    "torch.distributed.tensor.parallel",
    "torch.distributed.pipelining",
    "bessemer.training.loop",
)


class RankFailed(AssertionError):
    """A rank raised or died; the message holds its traceback, or how it ended."""


class Collectives(TorchDispatchMode):
    """Counts what this rank sends while it is entered, by operation, such as `allreduce_`.

    As torch's CommDebugMode, which also follows modules and so takes none whose output is no tensor.
    """

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func.namespace in ("c10d", "_c10d_functional") and "wait" not in func.__name__:
            self.counts[func.overloadpacket.__name__] += 1
        return func(*args, **(kwargs or {}))


def run_ranks(
    world_size: int, function: Callable[..., Any], *args: Any, timeout_s: float = RUN_TIMEOUT_S
) -> list[Any]:
    """`function(rank, world_size, *args)` on every rank of a fresh gloo group; what each returned, by rank.

    `function` must be importable by name from a module (a top-level function of a test file is), and args
    and results must pickle. Raises RankFailed for the first rank that fails, once all are ended.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(_SERVED))
    with tempfile.TemporaryDirectory(prefix="ranks-") as name:
        folder = Path(name)
        processes = [
            context.Process(target=_rank, args=(rank, world_size, folder, function, args), daemon=True)
            for rank in range(world_size)
        ]
        for process in processes:
            process.start()
        try:
            _wait_for_all(processes, folder, timeout_s)
        finally:
            for process in processes:
                process.kill()
                process.join()
        return [torch.load(folder / f"result-{rank}", weights_only=False) for rank in range(world_size)]


def _wait_for_all(processes: list[Any], folder: Path, timeout_s: float) -> None:
    """Until every process has ended well. Raises RankFailed when one has not, or at the timeout."""
    deadline = time.monotonic() + timeout_s
    running, failed = dict(enumerate(processes)), {}
    while running:
        wait([process.sentinel for process in running.values()], timeout=deadline - time.monotonic())
        for rank, process in list(running.items()):
            if not process.is_alive():
                del running[rank]
                if process.exitcode:
                    failed[rank] = process
        if failed:  # the others may fail of the same cause, or of a rank that is gone: all are told
            deadline = min(deadline, time.monotonic() + _GRACE_S)
        if running and time.monotonic() > deadline:
            break
    if failed:
        ends = [f"rank {rank} {_how_it_ended(process, folder, rank)}" for rank, process in failed.items()]
        raise RankFailed("\n".join(ends))
    if running:
        raise RankFailed(f"ranks {sorted(running)} were still running after {timeout_s:g} s")


def _how_it_ended(process: Any, folder: Path, rank: int) -> str:
    error = folder / f"error-{rank}"
    if error.exists():
        return f"raised\n{error.read_text()}"
    return f"ended with exit code {process.exitcode}"


def _rank(
    rank: int, world_size: int, folder: Path, function: Callable[..., Any], args: tuple[Any, ...]
) -> None:
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"  # no look-up of this machine's name
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo",
        init_method=f"file://{folder / 'rendezvous'}",
        rank=rank,
        world_size=world_size,
        timeout=timedelta(seconds=COLLECTIVE_TIMEOUT_S),
    )
    try:
        torch.save(function(rank, world_size, *args), folder / f"result-{rank}")
    except BaseException:
        (folder / f"error-{rank}").write_text(traceback.format_exc())
        os._exit(1)  # without waiting for ranks that wait for this one
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
