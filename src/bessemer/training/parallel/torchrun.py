"""Training stages under torchrun: the first process runs the recipe, the others wait for its training stages.

    torchrun --nnodes 2 --nproc-per-node 8 --max-restarts 3 -m bessemer run recipe.yaml

Through torchrun's store the first process hands each stage with `parallel` to the others: what to do, as a
pickle. A stage without it is done by the first alone. The run folder must be one that all machines see.
When torchrun restarts the processes, the run goes on from its newest checkpoint.
"""

import os
import pickle
import tempfile
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch.distributed as dist
from torch._C._distributed_c10d import PrefixStore
from torch.distributed.rendezvous import rendezvous

from bessemer.errors import BessemerError
from bessemer.runner.context import Metrics, StageContext
from bessemer.training.config import TrainingConfig

_COUNTER, _DONE = "bessemer/stages", b"done"
_PATIENCE = timedelta(days=30)
"""How long the others wait for the first process's next training stage."""


def is_active() -> bool:
    """Whether torchrun has started this process."""
    return "TORCHELASTIC_RUN_ID" in os.environ


def lead(work: Any, config: TrainingConfig, context: StageContext) -> Metrics:
    """Do a stage's work with all processes; called in the first one."""
    store, rank, world_size = _joined()
    assert rank == 0, "the others serve"
    if config.parallel.world_size != world_size:
        raise BessemerError(
            f"stage {context.stage!r} asks for {config.parallel.world_size} processes, and torchrun has "
            f"started {world_size}: make the product of `parallel` that number"
        )
    number = store.add(_COUNTER, 1)
    store.set(_key(number), pickle.dumps((work, config, replace(context, reporter=None))))  # type: ignore[arg-type]
    return _stage(store, number, work, config, context)


def serve() -> None:
    """Take part in every stage that the first process leads, until it is done; called in all others."""
    from bessemer.training.parallel.launch import context_of_rank
    from bessemer.training.parallel.process import Silent

    store, rank, _ = _joined()
    number = 1
    while True:
        store.wait([_key(number)], _PATIENCE)
        message = store.get(_key(number))
        if message == _DONE:
            return
        work, config, context = pickle.loads(message)
        with tempfile.TemporaryDirectory(prefix="bessemer-rank-") as folder:
            own = replace(context_of_rank(context, rank, Path(folder)), reporter=Silent())
            _stage(store, number, work, config, own)
        number += 1


def dismiss() -> None:
    """Tell the others that there is nothing more to do; called in the first process."""
    store, _, _ = _joined()
    store.set(_key(store.add(_COUNTER, 1)), _DONE)


def _stage(store: Any, number: int, work: Any, config: TrainingConfig, context: StageContext) -> Metrics:
    from bessemer.training.parallel.process import join, pick_device

    device_type = pick_device(int(os.environ["LOCAL_RANK"]), int(os.environ["LOCAL_WORLD_SIZE"]))
    dist.init_process_group(
        "nccl" if device_type == "cuda" else "gloo",
        store=PrefixStore(f"bessemer/stage-{number}", store),
        rank=int(os.environ["RANK"]),
        world_size=int(os.environ["WORLD_SIZE"]),
        timeout=timedelta(seconds=config.parallel.timeout_s),
    )
    metrics = join(work, config, context, device_type)
    dist.destroy_process_group()
    return metrics


def _joined() -> tuple[Any, int, int]:
    """torchrun's store, this process's rank, and how many there are."""
    return next(iter(rendezvous("env://")))


def _key(number: int) -> str:
    return f"bessemer/stage-{number}"
