"""The equivalence matrix: one step in every layout against the same step in one process.

Each process computes the step alone, too, and compares what it holds, so that nothing but a few numbers has
to travel. What differs by more than rounding is a fault of this machine, its libraries or this project.
"""

import math
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from bessemer.runner.context import Metrics, Reporter, StageContext
from bessemer.runner.executors import LOCAL
from bessemer.training.config import TrainingConfig
from bessemer.training.parallel.equivalence_step import (
    Step,
    step_alone,
    step_together,
    tiny_batches,
    tiny_config,
    tiny_model,
)
from bessemer.training.parallel.launch import on_ranks
from bessemer.training.parallel.layout import ParallelConfig, build_layout
from bessemer.training.parallel.ranks import Ranks

LOSS_TOLERANCE = 1e-6
"""Of the loss, relative."""
GRADIENT_TOLERANCE = 1e-6
"""Of the largest entry of all gradients."""
OWN_TOLERANCE = 1e-5
"""Of the largest entry of a parameter's own gradient, which may be small beside those that it is a sum of.
Sums in another order differ by up to 4e-6 in float32; the faults that were found so far by 1e-4 and more."""
_TIMEOUT_S = 120.0


@dataclass(frozen=True)
class Case:
    """A layout, and the model that is trained in it."""

    layout: str
    parallel: ParallelConfig
    has_experts: bool

    @property
    def model(self) -> str:
        """`dense` or `experts`."""
        return "experts" if self.has_experts else "dense"


@dataclass(frozen=True)
class Comparison:
    """A layout against one process; the worst over all processes."""

    layout: str
    model: str
    """`dense` or `experts`."""
    processes: int
    loss: float
    """Relative difference."""
    gradients: float
    """Largest difference of an entry, over the largest entry of all gradients."""
    own: float
    """The same over the largest entry of its own parameter's gradient; the worst of all parameters. Infinite
    when a parameter is missing."""
    seconds: float
    """Wall time of the step, its division of the model included."""

    @property
    def is_equal(self) -> bool:
        """Up to rounding; not a number is never equal."""
        return (
            self.loss <= LOSS_TOLERANCE and self.gradients <= GRADIENT_TOLERANCE and self.own <= OWN_TOLERANCE
        )


def cases(num_processes: int) -> list[Case]:
    """The layouts that so many processes can take, each with a dense model and with experts."""
    n = num_processes
    layouts = {
        "DDP": ParallelConfig(data=n),
        "ZeRO-1": ParallelConfig(shard=n, zero=1),
        "ZeRO-2": ParallelConfig(shard=n, zero=2),
        "ZeRO-3": ParallelConfig(shard=n),
        "context": ParallelConfig(context=n),
        "context, ulysses": ParallelConfig(context=n, context_kind="ulysses"),
        "tensor": ParallelConfig(tensor=n),
        "pipeline, 1F1B": ParallelConfig(pipeline=n),
        "pipeline, interleaved": ParallelConfig(pipeline=n, pipeline_schedule="interleaved"),
        "pipeline, zero bubble": ParallelConfig(pipeline=n, pipeline_schedule="zero_bubble"),
    }
    experts = {"expert": ParallelConfig(data=n, expert=n)}
    if n >= 4 and n % 2 == 0:
        half = n // 2
        layouts |= {
            "HSDP": ParallelConfig(data=2, shard=half),
            "HSDP, ZeRO-1": ParallelConfig(data=2, shard=half, zero=1),
            "DDP and tensor": ParallelConfig(data=2, tensor=half),
            "DDP and context": ParallelConfig(data=2, context=half),
            "DDP and pipeline": ParallelConfig(data=2, pipeline=half),
            "ZeRO-3 and context": ParallelConfig(shard=2, context=half),
            "ZeRO-3 and tensor": ParallelConfig(shard=2, tensor=half),
            "ZeRO-3 and pipeline": ParallelConfig(shard=2, pipeline=half),
            "tensor and context": ParallelConfig(tensor=2, context=half),
            "tensor and pipeline": ParallelConfig(tensor=2, pipeline=half),
        }
        experts |= {
            "copies of experts": ParallelConfig(data=n, expert=half),
            "ZeRO-3 and expert": ParallelConfig(shard=n, expert=half),
        }
    dense = [Case(name, parallel, False) for name, parallel in layouts.items()]
    return dense + [Case(name, parallel, True) for name, parallel in (layouts | experts).items()]


def compare_layouts(
    num_processes: int, reporter: Reporter, on: str = LOCAL, shared_folder: Path | None = None
) -> list[Comparison]:
    """All cases, in processes that are started for it: a GPU each where there are enough, else on the CPU;
    under torchrun in those that it has started.

    On a Ray cluster (`on`) all nodes must see `shared_folder`, in which a folder is made for the time.
    Raises BessemerError when a process dies or hangs, or the cluster has too little room.
    """
    config = TrainingConfig(
        batch_tokens=num_processes * TrainingConfig().sequence_length,
        parallel=ParallelConfig(data=num_processes, timeout_s=_TIMEOUT_S),
    )
    with tempfile.TemporaryDirectory(prefix=".bessemer-equivalence-", dir=shared_folder) as name:
        folder = Path(name)
        for each in ("output", "scratch"):
            (folder / each).mkdir()
        context = StageContext(
            stage="equivalence",
            seed=0,
            output=folder / "output",
            scratch=folder / "scratch",
            inputs={},
            reporter=reporter,
            metrics_path=folder / "metrics.jsonl",
            on=on,
        )
        found = on_ranks(compare_on_ranks, config, context)
    return [Comparison(**row) for row in found["comparisons"]]


def compare_on_ranks(config: TrainingConfig, context: StageContext, ranks: Ranks) -> Metrics:
    """What each process does."""
    del ranks  # a layout of its own is built for every case
    size = dist.get_world_size()
    is_cuda = dist.get_backend() == "nccl"
    device = torch.device("cuda", torch.cuda.current_device()) if is_cuda else torch.device("cpu")
    batches = tiny_batches(size, device)
    expected: dict[bool, Step] = {}
    rows, all_cases = [], cases(size)
    with context.progress(f"{size} processes", len(all_cases), "layouts") as progress:
        for number, case in enumerate(all_cases):
            progress.set(number, now=f"{case.layout}, {case.model}")
            shape = tiny_config(size, has_experts=case.has_experts)
            if case.has_experts not in expected:
                expected[case.has_experts] = step_alone(tiny_model(shape, device), batches)
            model = tiny_model(shape, device)
            dist.barrier()
            started = time.perf_counter()
            step = step_together(model, batches, build_layout(case.parallel, size, device.type))
            seconds = time.perf_counter() - started
            rows.append(vars(_worst_of_all(case, step, expected[case.has_experts], seconds)))
        progress.set(len(all_cases))
    return {"comparisons": rows}


def _worst_of_all(case: Case, step: Step, expected: Step, seconds: float) -> Comparison:
    mine = (
        abs(step.loss - expected.loss) / abs(expected.loss),
        *gradient_differences(step.gradients, expected.gradients),
        set(step.gradients),
    )
    everyone: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(everyone, mine)
    losses, gradients, own, names = zip(*everyone, strict=True)
    is_whole = set().union(*names) == expected.gradients.keys()
    return Comparison(
        layout=case.layout,
        model=case.model,
        processes=dist.get_world_size(),
        loss=worst(losses),
        gradients=worst(gradients),
        own=worst(own) if is_whole else math.inf,
        seconds=seconds,
    )


def gradient_differences(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> tuple[float, float]:
    """Largest difference of an entry, over the largest entry of all `theirs` and over that of its parameter;
    the worst of all parameters in `ours`, which may be fewer."""
    largest = {name: float(value.abs().max()) for name, value in theirs.items()}
    apart = {name: float((value - theirs[name]).abs().max()) for name, value in ours.items()}
    own = worst([difference / largest[name] for name, difference in apart.items()])
    return worst(list(apart.values())) / max(largest.values()), own


def worst(values: Sequence[float]) -> float:
    """The largest, where not a number is larger than any."""
    return max(math.inf if math.isnan(value) else value for value in values)
