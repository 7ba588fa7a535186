"""One attempt at a training stage on Ray: an actor that runs Ray Train, and hears what the processes tell.

Ray Train places the processes, starts and watches them, and ends all when one fails; its own errors say which
died. Why the others gave up they tell this actor, and hear from it when the command wants no more of them:
Ray Train itself has no way to be stopped but a signal to the process that runs it.
"""

import asyncio
import importlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from bessemer.runner.context import Metrics
from bessemer.training.parallel.endings import Ending, Failure, failure_of, ray_death_in_words
from bessemer.training.parallel.ray_places import Part, Place
from bessemer.training.parallel.reporters import Message

START_S = 300
"""Seconds for Ray to give the processes their room, and as many for them to start: they import torch from a
file system that may be slow."""
SETTINGS = {
    "RAY_TRAIN_V2_ENABLED": "1",
    # A stage may take seconds: by default Ray Train looks for the end of one every 2 s.
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5",
    "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": str(START_S),
    # Processes work where the command does: paths in a recipe may be relative.
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "RAY_TRAIN_METRICS_ENABLED": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
}
"""What Ray Train reads in the environment of the process that runs it."""
_WAIT_S = 1.0
"""How long a question waits for an answer before it is asked again."""


@dataclass(frozen=True)
class Outcome:
    """What became of an attempt."""

    metrics: Metrics | None = None
    """The first process's, when all ended well."""
    endings: Mapping[int, Ending] = field(default_factory=dict)
    """By rank; those are missing that neither ended nor failed."""
    is_unsure: tuple[int, ...] = ()
    """Ranks whose connection broke, before Ray knew what had become of them."""
    trouble: str | None = None
    """What kept Ray Train itself from going on."""


class RayAttempt:
    """Takes `fit` once, and all other calls beside it."""

    def __init__(self) -> None:
        self._places: dict[int, Place] = {}
        self._failures: dict[int, Failure] = {}
        self._ended: set[int] = set()
        self._metrics: Metrics | None = None
        self._news: list[Message] = []
        self._is_stopped = False
        self._changed = asyncio.Condition()

    async def fit(
        self, work: Any, told: dict[str, Any], part: Part, world_size: int, storage: str
    ) -> Outcome:
        """Have Ray Train call `work` with `told`, and this actor, in every process.

        `storage`: a folder for what Ray Train keeps of its own, which is nothing that outlives the attempt.
        """
        ray = importlib.import_module("ray")
        told = {**told, "attempt": ray.get_runtime_context().current_actor}
        try:
            await asyncio.to_thread(_trainer(work, told, part, world_size, storage).fit)
        except Exception as error:
            return outcome_of(error, self._failures, self._ended)
        return Outcome(self._metrics)

    async def places(self) -> dict[int, Place]:
        """Where the processes run that have started, by rank."""
        return self._places

    async def news(self) -> list[Message]:
        """What the first process has said and shown since this was last asked; waits a while for some."""
        await self._until(lambda: bool(self._news), _WAIT_S)
        found, self._news = self._news, []
        return found

    async def stop(self) -> None:
        """Have all processes end, and `fit` with them."""
        self._is_stopped = True
        await self._change(lambda: None)

    async def stopped(self) -> None:
        """From a process: returns when it is to end."""
        async with self._changed:
            await self._changed.wait_for(lambda: self._is_stopped)

    async def started(self, rank: int, place: Place) -> None:
        """From a process: where it is."""
        self._places[rank] = place

    async def tell(self, messages: list[Message]) -> None:
        """From the first process: news."""
        await self._change(lambda: self._news.extend(messages))

    async def ended(self, rank: int, metrics: Metrics | None) -> None:
        """From a process: it is done."""
        if rank == 0:
            self._metrics = metrics
        await self._change(lambda: self._ended.add(rank))

    async def failed(self, rank: int, failure: Failure, patience_s: float) -> None:
        """From a process: why it gives up. Returns when the others have ended, too, or `patience_s` later:
        Ray Train ends all at the first that raises, and one that was cut off is not the cause."""

        def note() -> None:
            self._failures[rank] = failure
            self._ended.add(rank)

        await self._change(note)
        await self._until(lambda: len(self._ended) == len(self._places), patience_s)

    async def _change(self, change: Any) -> None:
        async with self._changed:
            change()
            self._changed.notify_all()

    async def _until(self, is_so: Any, timeout_s: float) -> None:
        async with self._changed:
            try:
                await asyncio.wait_for(self._changed.wait_for(is_so), timeout_s)
            except TimeoutError:
                return


def outcome_of(error: Exception, failures: Mapping[int, Failure], ended: Collection[int]) -> Outcome:
    """What became of an attempt that Ray Train ended with `error`.

    `failures`, by rank, and `ended`: what the processes told before. What their code raises, Ray Train
    hands on as it is; what Ray found out about a process has a type of Ray's, some of them internal.
    """
    raised_by: Mapping[int, Exception] | None = getattr(error, "worker_failures", None)
    if raised_by is None:
        trouble = getattr(error, "controller_failure", error)
        raised_by, words = {}, f"{type(trouble).__name__}: {trouble}"
    else:
        words = None
    found, deaths, unsure = dict(failures), dict[int, str](), list[int]()
    for rank, raised in raised_by.items():
        if type(raised).__module__.partition(".")[0] == "ray":
            lost = getattr(raised, "health_check_failure", raised)
            deaths[rank] = ray_death_in_words(str(lost))
            if type(lost).__name__ == "ActorUnavailableError":
                unsure.append(rank)
        elif rank not in found:
            found[rank] = failure_of(raised)
    endings = {
        rank: Ending(True, None if rank in deaths else found.get(rank), deaths.get(rank))
        for rank in sorted({*ended, *found, *deaths})
    }
    return Outcome(None, endings, tuple(unsure), words)


def _trainer(work: Any, told: dict[str, Any], part: Part, world_size: int, storage: str) -> Any:
    """Attempts that fail are made again by the command, which tells what a restart would not mend."""
    train, torch = importlib.import_module("ray.train"), importlib.import_module("ray.train.torch")

    class OwnGroup(torch.TorchConfig):
        """The processes meet by themselves: Ray Train would look for a free port that others may take before
        it does, and gloo for an interface by the name of its machine."""

        backend_cls = importlib.import_module("ray.train.backend").Backend

    return torch.TorchTrainer(
        work,
        train_loop_config=told,
        torch_config=OwnGroup(),
        scaling_config=train.ScalingConfig(
            num_workers=world_size,
            use_gpu=part.gpus > 0,
            resources_per_worker=part.bundle,
            # Training talks more than anything else in a run, and least where neighbours share a node.
            placement_strategy="PACK",
        ),
        run_config=train.RunConfig(
            name="bessemer",
            storage_path=storage,
            failure_config=train.FailureConfig(
                max_failures=0, controller_failure_limit=0, max_preemption_failures=0
            ),
        ),
    )
