"""The processes of a training stage: started here or on Ray, or joined where torchrun has started them.

Local processes are watched. One that dies ends the others, and the error names it. One that hangs keeps
the others waiting in a collective; after `parallel.timeout_s` those give up, and it is the one that has
not: it is named, too. Finished checkpoints stay, so that the same command goes on from there.
"""

import multiprocessing
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, TypeVar

from bessemer.runner.context import Metrics, StageContext
from bessemer.runner.executors import LOCAL
from bessemer.runner.files import remove_folder
from bessemer.training.config import TrainingConfig
from bessemer.training.parallel import torchrun
from bessemer.training.parallel.endings import GRACE_S, Ending, Failure, cause, exit_in_words
from bessemer.training.parallel.layout import cpu_threads_per_process
from bessemer.training.parallel.process import LocalProcess, context_of_rank, ranks_folder, run_local
from bessemer.training.parallel.ranks import Alone, Ranks
from bessemer.training.parallel.reporters import Shown

ConfigT = TypeVar("ConfigT", bound=TrainingConfig)
Work = Callable[[ConfigT, StageContext, Ranks], Metrics]
"""A training stage, from the view of one of its processes; importable by name."""


def on_ranks(work: Work[ConfigT], config: ConfigT, context: StageContext) -> Metrics:
    """Do the work of a stage in the processes that its config asks for; the first one's metrics.

    They are those of torchrun, where it has started this process; else they are started where `context.on`
    says. Raises what the work raises in a process, and BessemerError when one of them dies or hangs.
    """
    parallel = config.parallel
    if parallel.world_size == 1:
        return work(config, context, Alone())
    if torchrun.is_active():
        return torchrun.lead(work, config, context)
    if context.on != LOCAL:
        from bessemer.training.parallel.on_ray import on_ray

        return on_ray(work, config, context)
    context.say(f"{parallel.world_size} processes on this machine")
    folder = ranks_folder(context)
    remove_folder(folder)  # of a run that was killed: a new group must not meet in an old file
    folder.mkdir()
    try:
        return _Watched(work, config, context, folder).metrics()
    finally:
        remove_folder(folder)


@dataclass
class _Running:
    """One local process, as its parent knows it."""

    process: Any
    messages: Connection
    failure: Failure | None = None
    is_gone: bool = False

    @property
    def ending(self) -> Ending:
        exit_code = self.process.exitcode if self.is_gone else None
        death = exit_in_words(exit_code) if exit_code and self.failure is None else None
        return Ending(self.is_gone, self.failure, death)


@dataclass
class _Watched:
    """The local processes of one stage."""

    work: Any
    config: TrainingConfig
    context: StageContext
    folder: Path
    _metrics: Metrics | None = None

    def metrics(self) -> Metrics:
        world_size = self.config.parallel.world_size
        with Shown(self.context.reporter) as shown:
            running = [self._start(rank, world_size) for rank in range(world_size)]
            try:
                self._watch(running, shown)
            finally:
                for each in running:
                    each.process.kill()
                    each.process.join()
                    each.messages.close()
        assert self._metrics is not None, "the first process ends well only with its metrics"
        return self._metrics

    def _start(self, rank: int, world_size: int) -> _Running:
        # Spawned, not forked: this process may hold threads, and perhaps a GPU.
        spawn = multiprocessing.get_context("spawn")
        ours, theirs = spawn.Pipe(duplex=False)
        place = LocalProcess(
            rank, world_size, self.folder / "rendezvous", cpu_threads_per_process(world_size)
        )
        own = context_of_rank(self.context, rank, self.folder)
        args = (place, self.work, self.config, own, theirs)
        process = spawn.Process(target=run_local, args=args, name=f"rank {rank}", daemon=True)
        process.start()
        theirs.close()
        return _Running(process, ours)

    def _watch(self, running: list[_Running], shown: Shown) -> None:
        """Until all have ended well. Raises for those that have not."""
        deadline: float | None = None
        while any(not each.is_gone for each in running):
            left = None if deadline is None else deadline - time.monotonic()
            if left is not None and left <= 0:
                break
            wait([each.messages for each in running if not each.is_gone], timeout=left)
            for each in running:
                self._listen(each, shown)
            if deadline is None and any(each.ending.has_failed for each in running):
                deadline = time.monotonic() + GRACE_S
        if deadline is not None:
            raise cause([each.ending for each in running], self.config.parallel.timeout_s)

    def _listen(self, each: _Running, shown: Shown) -> None:
        while not each.is_gone and each.messages.poll():
            try:
                message = each.messages.recv()
            except (EOFError, ConnectionError):
                each.is_gone = True
                each.process.join(GRACE_S)
                return
            if message[0] == "failed":
                each.failure = message[1]
            elif message[0] == "metrics":
                self._metrics = message[1]
            else:
                shown.take(message)
