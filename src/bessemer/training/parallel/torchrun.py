"""Training stages under torchrun: the first process runs the recipe, the others wait for its training stages.

    torchrun --nnodes 2 --nproc-per-node 8 --max-restarts 3 -m bessemer run recipe.yaml

Through torchrun's store the first process hands each stage with `parallel` to the others. A stage without
it is done by the first alone. The run folder must be one that all machines see. When torchrun restarts the
processes, the first runs the recipe anew, from its newest checkpoint, unless the attempt before ended for a
cause that another would meet again (`told_once`).
"""

import json
import os
import time
from collections.abc import Mapping
from dataclasses import asdict, replace
from datetime import timedelta
from functools import cache, partial
from typing import Any
from uuid import uuid4

import torch.distributed as dist
from torch._C._distributed_c10d import PrefixStore
from torch.distributed.rendezvous import rendezvous

from bessemer.errors import BessemerError, ConfigError
from bessemer.recipe import Recipe
from bessemer.runner.context import Metrics, StageContext
from bessemer.runner.identity import stage_seed
from bessemer.training.config import TrainingConfig
from bessemer.training.parallel.endings import GRACE_S, Failure, failure_of
from bessemer.training.parallel.layout import ParallelConfig, fitting_sizes, listed
from bessemer.training.parallel.message import packed, unpacked
from bessemer.training.parallel.process import (
    config_facts,
    context_of_rank,
    join,
    leave_groups,
    pick_device,
    ranks_folder,
)
from bessemer.training.parallel.ranks import Ranks
from bessemer.training.parallel.told_once import remember_refusal

_ARRIVALS, _COUNTER, _DONE = "bessemer/arrivals", "stages", b"done"
_POLL_S = 0.05
_SAME_S = 1.0
"""Until all have given up that do so for the same reason, such as a setting."""
_PATIENCE = timedelta(days=30)
"""How long the others wait for the first process's next training stage."""


def is_active() -> bool:
    """Whether torchrun has started this process."""
    return "TORCHELASTIC_RUN_ID" in os.environ


def lead(work: Any, config: TrainingConfig, context: StageContext) -> Metrics:
    """Do a stage's work with all processes; called in the first one."""
    _, rank, _ = _joined()
    assert rank == 0, "the others serve"
    if (fault := fault_of_size(config.parallel)) is not None:
        raise ConfigError(f"stage {context.stage!r}: {fault}")
    store = _store_of_round()
    number = store.add(_COUNTER, 1)
    store.set(_key(number), packed(work, config, context))
    return _stage(store, number, work, config, context)


def fault_of_size(parallel: ParallelConfig) -> str | None:
    """Why a stage of several processes cannot run in those of torchrun, with the mend; None where it can."""
    if not is_active() or parallel.world_size == 1:
        return None
    world_size = int(os.environ["WORLD_SIZE"])
    if parallel.world_size == world_size:
        return None
    return (
        f"`parallel` asks for {parallel.world_size} processes, and torchrun has started {world_size}: "
        f"{fitting_sizes(parallel, world_size)}, or have torchrun start {parallel.world_size}"
    )


def serve(recipe: Recipe | None = None) -> None:
    """Take part in every stage that the first process leads, until it is done; called in all others.

    `recipe` is what this process was told to run: where it says anything else of a stage than the first one's
    does, that stage is refused.
    """
    store, number = _store_of_round(), 1
    while True:
        store.wait([_key(number)], _PATIENCE)
        message = store.get(_key(number))
        if message == _DONE:
            return
        work, config, context = unpacked(message)
        _stage(store, number, work, config, context, _given(recipe, context.stage))
        number += 1


def _given(recipe: Recipe | None, stage: str) -> dict[str, str] | None:
    """What a process's own recipe says of a stage; nothing where it has no such stage."""
    if recipe is None:
        return None
    plans = [plan for plan in recipe.stages if plan.name == stage]
    return config_facts(plans[0].config, stage_seed(recipe.seed, stage)) if plans else {}


def dismiss() -> None:
    """Tell the others that there is nothing more to do; called in the first process."""
    store = _store_of_round()
    store.set(_key(store.add(_COUNTER, 1)), _DONE)


def _stage(
    store: Any,
    number: int,
    work: Any,
    config: TrainingConfig,
    context: StageContext,
    given: Mapping[str, str] | None = None,
) -> Metrics:
    device_type = pick_device(int(os.environ["LOCAL_RANK"]), int(os.environ["LOCAL_WORLD_SIZE"]))
    dist.init_process_group(
        "nccl" if device_type == "cuda" else "gloo",
        store=PrefixStore(f"group-{number}", store),
        rank=int(os.environ["RANK"]),
        world_size=int(os.environ["WORLD_SIZE"]),
        timeout=timedelta(seconds=config.parallel.timeout_s),
    )
    try:
        metrics = join(partial(_in_own_folder, work), config, context, device_type, given)
    except Exception as error:
        raise _told(error, store, number, config.parallel.timeout_s) from error
    leave_groups()
    return metrics


def _in_own_folder(work: Any, config: TrainingConfig, context: StageContext, ranks: Ranks) -> Metrics:
    """The work, with what this process keeps to itself beside the others' in the scratch that all see."""
    ranks.check_shared(context.scratch)  # a machine that does not see it must not be given a folder like it
    own = context_of_rank(context, int(os.environ["RANK"]), ranks_folder(context))
    return work(config, replace(own, reporter=context.reporter), ranks)


def _told(error: Exception, store: Any, number: int, timeout_s: float) -> BaseException:
    """What this process ends with: of all that give up, one tells the user, and names the process at fault.

    Whoever gives up says so in the store, which torchrun's agent keeps: those that have not do hang. Those
    that have nothing to say end later, since torchrun ends all others when the first process does.
    """
    rank, world_size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    failure = failure_of(error)
    store.set(_gave_up(number, rank), json.dumps(asdict(failure)))
    if failure.kind == "unexpected":
        error.add_note(f"in training process {rank} of {world_size}")
        return error
    time.sleep(_SAME_S if failure.kind == "mendable" else GRACE_S)
    keys = [_gave_up(number, other) for other in range(world_size)]
    failures = {
        other: Failure(**json.loads(store.get(key))) for other, key in enumerate(keys) if store.check([key])
    }
    told = ending_of(rank, world_size, failures, error, timeout_s)
    if isinstance(told, SystemExit):
        time.sleep(2 * GRACE_S)
    elif failure.kind == "mendable":
        remember_refusal(str(told))
    return told


def ending_of(
    rank: int, world_size: int, failures: Mapping[int, Failure], error: Exception, timeout_s: float
) -> BaseException:
    """What a process ends with, from what all say that gave up, itself among them for `error`; SystemExit
    where another tells."""
    own = failures[rank]
    if own.kind == "mendable":
        same = [other for other, failure in failures.items() if failure == own]
        if rank != min(same):
            return SystemExit(1)
        if len(same) == world_size:
            return error
        return BessemerError(f"training process {listed(same)} of {world_size}: {own.text}")
    is_told = any(failure.kind in ("mendable", "unexpected") for failure in failures.values())
    if is_told or rank != min(failures):
        return SystemExit(1)
    missing = [other for other in range(world_size) if other not in failures]
    again = (
        "give the same command again (torchrun --max-restarts does): it goes on from the newest checkpoint"
    )
    timeout = f"parallel.timeout_s = {timeout_s:g} s"
    if not missing:
        return BessemerError(
            f"the training processes lost one another ({timeout}); process {rank} says:\n{own.text}\n{again}"
        )
    return BessemerError(
        f"training process {listed(missing)} of {world_size} hangs or is gone: process {rank} waited for it "
        f"for {timeout}, or lost it; {again}"
    )


def _joined() -> tuple[Any, int, int]:
    """torchrun's store, this process's rank, and how many there are."""
    return next(iter(rendezvous("env://")))


@cache
def _store_of_round() -> Any:
    """torchrun's store, for the processes that it has started together; collective the first time.

    The store outlives restarts, and what the first process of an earlier round has left there would lead the
    others astray. So every other process draws a number that nobody had before, and the first answers all of
    them with the name of its round, until as many as there are have read it.
    """
    store, rank, world_size = _joined()
    if rank > 0:
        welcome = _welcome(store.add(_ARRIVALS, 1))
        store.wait([welcome], _PATIENCE)
        name = store.get(welcome).decode()
        store.add(_ready(name), 1)
        return PrefixStore(name, store)
    name, answered = f"bessemer/{uuid4().hex}", 0
    while store.add(_ready(name), 0) < world_size - 1:
        arrived = store.add(_ARRIVALS, 0)
        for number in range(answered + 1, arrived + 1):
            store.set(_welcome(number), name)
        answered = arrived
        time.sleep(_POLL_S)
    return PrefixStore(name, store)


def _welcome(number: int) -> str:
    return f"bessemer/welcome-{number}"


def _ready(name: str) -> str:
    return f"{name}-ready"


def _key(number: int) -> str:
    return f"stage-{number}"


def _gave_up(number: int, rank: int) -> str:
    return f"gave-up-{number}-{rank}"
