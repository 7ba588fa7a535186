"""What one of the processes of a training stage does: join the others, agree, work, tell how it went."""

import gc
import os
import signal
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import timedelta
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from bessemer.config import Config
from bessemer.errors import BessemerError
from bessemer.model.precision import resolve_dtype
from bessemer.runner.context import Metrics, StageContext
from bessemer.runner.files import remove_folder
from bessemer.runner.identity import flatten
from bessemer.runner.versions import package_versions
from bessemer.runner.workers import exit_with_parent
from bessemer.training.config import TrainingConfig
from bessemer.training.parallel.endings import failure_of
from bessemer.training.parallel.interfaces import prefer_loopback
from bessemer.training.parallel.layout import build_layout
from bessemer.training.parallel.reporters import SentReporter, Silent
from bessemer.training.parallel.together import Together


@dataclass(frozen=True)
class LocalProcess:
    """Place of a process among those of one machine."""

    rank: int
    world_size: int
    rendezvous: Path
    """A file through which they find one another."""
    num_threads: int


def run_local(
    place: LocalProcess, work: Any, config: TrainingConfig, context: StageContext, messages: Connection
) -> None:
    """Main function of a local process. It does not return."""
    exit_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends its processes itself
    torch.set_num_threads(place.num_threads)
    reporter = SentReporter(messages.send) if place.rank == 0 else Silent()
    try:
        device_type = pick_device(place.rank, place.world_size)
        prefer_loopback()
        dist.init_process_group(
            "nccl" if device_type == "cuda" else "gloo",
            init_method=f"file://{place.rendezvous}",
            rank=place.rank,
            world_size=place.world_size,
            timeout=timedelta(seconds=config.parallel.timeout_s),
        )
        metrics = join(work, config, replace(context, reporter=reporter), device_type)
    except BaseException as error:
        with suppress(OSError):
            messages.send(("failed", failure_of(error)))
        os._exit(1)  # at once: threads may wait for processes that are gone
    if place.rank == 0:
        messages.send(("metrics", metrics))
    leave_groups()
    sys.stdout.flush()
    sys.stderr.flush()
    # The interpreter's own end takes a second, and threads of libraries that meet it there abort the process,
    # which would then seem to have failed.
    os._exit(0)


def leave_groups() -> None:
    """End the default group, and with it the groups and threads of all layouts, which refer to themselves:
    threads that live on until the interpreter ends may abort the process then."""
    dist.destroy_process_group()
    gc.collect()


def join(
    work: Any,
    config: TrainingConfig,
    context: StageContext,
    device_type: str,
    given: Mapping[str, str] | None = None,
) -> Metrics:
    """Do the work in this process of the default group. Raises BessemerError when processes disagree.

    `given`: config and seed that this process itself was given, where that is not what it was sent.
    """
    own = config_facts(config, context.seed) if given is None else given
    check_agreement({**own, **_facts(config, context, torch.device(device_type))})
    layout = build_layout(config.parallel, dist.get_world_size(), device_type)
    return work(config, context, Together(layout))


def check_agreement(facts: dict[str, str]) -> None:
    """Raises BessemerError in every process when one was given something else than the first."""
    everyone: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(everyone, facts)
    for rank, other in enumerate(everyone[1:], start=1):
        for name in sorted(everyone[0].keys() | other.keys()):
            first, here = everyone[0].get(name, "absent"), other.get(name, "absent")
            if first != here:
                raise BessemerError(
                    f"process {rank} has another {name} than process 0: {here}, not {first}; give all "
                    "the same"
                )


def config_facts(config: Config, seed: int) -> dict[str, str]:
    """What must be the same everywhere of what a recipe says of a stage."""
    facts = {f"config {name}": repr(value) for name, value in flatten(config.model_dump(mode="json"))}
    return {**facts, "seed": str(seed)}


def _facts(config: TrainingConfig, context: StageContext, device: torch.device) -> dict[str, str]:
    """What must be the same everywhere besides: data, what computes, and in which type."""
    facts = {f"version of {name}": version for name, version in package_versions().items()}
    # What `auto` means depends on the processor.
    facts["compute_dtype on its machine"] = str(resolve_dtype(config.compute_dtype, device))
    for kind, artifacts in context.inputs.items():
        for artifact in artifacts:
            facts[f"digest of {artifact.stage} ({kind})"] = artifact.manifest.digest
    return facts


def pick_device(place: int, num_processes: int) -> str:
    """Make a GPU this process's own where there are any; the type of device.

    `place` and `num_processes` are those on this machine. Raises BessemerError when GPUs are too few.
    """
    if not torch.cuda.is_available():
        return "cpu"
    num_devices = torch.cuda.device_count()
    if num_processes > num_devices:
        raise BessemerError(
            f"{num_processes} processes on a machine with {num_devices} GPUs: start at most {num_devices}, "
            "or set CUDA_VISIBLE_DEVICES to nothing to train on the CPU"
        )
    torch.cuda.set_device(place)
    return "cuda"


def ranks_folder(context: StageContext) -> Path:
    """Where the processes of a stage keep what only they need: gone with the stage's scratch, whatever ends
    the run, and large where the run is. It need not be there yet. Absolute: in the URL of the file through
    which processes meet, the first part of a relative path would be taken for a machine."""
    return (context.scratch / "ranks").resolve()


def context_of_rank(context: StageContext, rank: int, folder: Path) -> StageContext:
    """The stage's context for one of its processes, without a reporter; all but the first keep what they
    write to themselves, in `folder`, where nothing is left of an attempt that was cut short."""
    plain: Mapping[str, Any] = {"reporter": None}
    if rank > 0:
        own = folder / f"rank-{rank}"
        remove_folder(own)
        (own / "output").mkdir(parents=True)
        plain = {**plain, "output": own / "output", "metrics_path": own / "metrics.jsonl"}
    return replace(context, **plain)
