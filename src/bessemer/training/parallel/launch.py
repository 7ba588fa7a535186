"""The processes of a training stage: started here, or joined where torchrun has started them.

Local processes are watched. One that dies ends the others, and the error names it. One that hangs keeps
the others waiting in a collective; after `parallel.timeout_s` those give up, and it is the one that has
not: it is named, too. Finished checkpoints stay, so that the same command goes on from there.
"""

import multiprocessing
import signal
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, TypeVar

from bessemer.errors import BessemerError
from bessemer.runner.context import Metrics, Progress, StageContext
from bessemer.training.config import TrainingConfig
from bessemer.training.parallel import torchrun
from bessemer.training.parallel.layout import cpu_threads_per_process
from bessemer.training.parallel.process import Failure, LocalProcess, run_local
from bessemer.training.parallel.ranks import Alone, Ranks

ConfigT = TypeVar("ConfigT", bound=TrainingConfig)
Work = Callable[[ConfigT, StageContext, Ranks], Metrics]
"""A training stage, from the view of one of its processes; importable by name."""

_GRACE_S = 3.0
"""After one process has failed: until those that fail of the same cause have, too."""


def on_ranks(work: Work[ConfigT], config: ConfigT, context: StageContext) -> Metrics:
    """Do the work of a stage in the processes that its config asks for; the first one's metrics.

    Raises what the work raises in a process, and BessemerError when one of them dies or hangs.
    """
    parallel = config.parallel
    if parallel.world_size == 1:
        return work(config, context, Alone())
    if torchrun.is_active():
        return torchrun.lead(work, config, context)
    context.say(f"{parallel.world_size} processes on this machine")
    with tempfile.TemporaryDirectory(prefix="bessemer-ranks-") as folder:
        return _Watched(work, config, context, Path(folder)).metrics()


@dataclass
class _Running:
    """One local process, as its parent knows it."""

    process: Any
    messages: Connection
    failure: Failure | None = None
    is_gone: bool = False


@dataclass
class _Watched:
    """The local processes of one stage."""

    work: Any
    config: TrainingConfig
    context: StageContext
    folder: Path
    _metrics: Metrics | None = None
    _bars: dict[int, Progress] = field(default_factory=dict)

    def metrics(self) -> Metrics:
        world_size = self.config.parallel.world_size
        with ExitStack() as bars:
            running = [self._start(rank, world_size) for rank in range(world_size)]
            try:
                self._watch(running, bars)
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

    def _watch(self, running: list[_Running], bars: ExitStack) -> None:
        """Until all have ended well. Raises for those that have not."""
        deadline: float | None = None
        while any(not each.is_gone for each in running):
            left = None if deadline is None else deadline - time.monotonic()
            if left is not None and left <= 0:
                break
            wait([each.messages for each in running if not each.is_gone], timeout=left)
            for each in running:
                self._listen(each, bars)
            has_failed = any(e.failure or (e.is_gone and e.process.exitcode) for e in running)
            if has_failed and deadline is None:
                deadline = time.monotonic() + _GRACE_S
        if deadline is not None:
            raise self._error(running)

    def _listen(self, each: _Running, bars: ExitStack) -> None:
        while not each.is_gone and each.messages.poll():
            try:
                kind, *values = each.messages.recv()
            except (EOFError, ConnectionError):
                each.is_gone = True
                each.process.join(_GRACE_S)
                return
            if kind == "failed":
                each.failure = values[0]
            elif kind == "metrics":
                self._metrics = values[0]
            else:
                self._show(kind, values, bars)

    def _show(self, kind: str, values: list[Any], bars: ExitStack) -> None:
        """What the first process says and shows, here."""
        if kind == "say":
            self.context.say(*values)
        elif kind == "progress":
            number, *about = values
            self._bars[number] = bars.enter_context(self.context.progress(*about))
        elif kind == "advance":
            self._bars[values[0]].advance(values[1])
        elif kind == "set":
            self._bars[values[0]].set(values[1], **values[2])

    def _error(self, running: list[_Running]) -> Exception:
        """The cause among all that failed: the others failed since they lost it."""
        again = "give the same command again: it goes on from the newest checkpoint"
        for rank, each in enumerate(running):
            if each.is_gone and each.failure is None and each.process.exitcode:
                return BessemerError(
                    f"training process {rank} of {len(running)} {_ending(each.process.exitcode)}; the others "
                    f"were ended. If memory was short, lower micro_batch_tokens; then {again}"
                )
        failures = {rank: each.failure for rank, each in enumerate(running) if each.failure is not None}
        for failure in failures.values():
            if failure.kind == "mendable":
                return BessemerError(failure.text)
        for rank, failure in failures.items():
            if failure.kind == "unexpected":
                return RuntimeError(f"training process {rank} of {len(running)} raised\n{failure.text}")
        missing = [
            str(rank) for rank, each in enumerate(running) if each.failure is None and not each.is_gone
        ]
        timeout = f"parallel.timeout_s = {self.config.parallel.timeout_s:g} s"
        if missing and any(failure.kind == "timeout" for failure in failures.values()):
            return BessemerError(
                f"training process {', '.join(missing)} of {len(running)} hangs: the others waited for it "
                f"for {timeout}, and all were ended; {again}, or raise the timeout if it was only slow"
            )
        rank, failure = next(iter(failures.items()))
        return BessemerError(
            f"the training processes lost one another ({timeout}); process {rank} says:\n{failure.text}\n"
            f"{again}"
        )


def context_of_rank(context: StageContext, rank: int, folder: Path) -> StageContext:
    """The stage's context for one of its processes, without a reporter; all but the first keep what they
    write to themselves, in `folder`."""
    plain: Mapping[str, Any] = {"reporter": None}
    if rank > 0:
        own = folder / f"rank-{rank}"
        (own / "output").mkdir(parents=True)
        plain = {**plain, "output": own / "output", "metrics_path": own / "metrics.jsonl"}
    return replace(context, **plain)


def _ending(exit_code: int) -> str:
    """How a process ended, in words."""
    if exit_code >= 0:
        return f"ended with exit code {exit_code}"
    try:
        return f"was killed by {signal.Signals(-exit_code).name}"
    except ValueError:
        return f"was killed by signal {-exit_code}"
