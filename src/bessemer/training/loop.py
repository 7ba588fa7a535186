"""The one training loop. Every stage that trains calls `fit`; what differs is objective and data."""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeVar

from torch import nn

from bessemer.errors import BessemerError
from bessemer.model.mixture import balance_experts
from bessemer.model.transformer import Transformer
from bessemer.objectives.base import Objective
from bessemer.training.checkpoint import Checkpoints
from bessemer.training.optimizers import OptimizerConfig, Optimizers
from bessemer.training.schedules import ScheduleConfig, learning_rate_factor

BatchT = TypeVar("BatchT")


class Watch(Protocol):
    """What a stage does with the numbers of a step."""

    def step(self, report: "StepReport") -> None: ...


@dataclass(frozen=True)
class StepReport:
    """Numbers of one finished step."""

    step: int
    """Steps finished, from 1."""
    loss: float
    """Mean loss per item."""
    gradient_norm: float
    learning_rate_factor: float
    count: int
    """Items of the step, such as supervised tokens."""
    sums: dict[str, float]
    """Further means from the objective."""
    skipped: bool
    """True when the update was skipped because loss or gradient was not finite."""


@dataclass(frozen=True)
class Plan(Generic[BatchT]):
    """What to train on and for how long."""

    objective: Objective[BatchT]
    batches: Callable[[int], Sequence[BatchT]]
    """Micro-batches of a step: a pure function of the step number, from 0."""
    num_steps: int
    optimizer: OptimizerConfig
    schedule: ScheduleConfig
    checkpoint_every: int = 200
    """Steps between checkpoints."""
    max_skipped: int = 20
    """Consecutive non-finite steps after which training stops with an error."""


@dataclass
class FitResult:
    """How a run of the loop went."""

    first_step: int
    """Step that this process began at: above zero after a resume."""
    wall_s: float = 0.0
    skipped_steps: list[int] = field(default_factory=list)


def fit(model: Transformer, plan: Plan[Any], checkpoints: Checkpoints, watch: Watch) -> FitResult:
    """Train `model` in place, from the newest checkpoint on, to the end of the plan.

    Raises BessemerError when loss or gradients stay non-finite for `max_skipped` steps.
    """
    optimizers = Optimizers(model, plan.optimizer)
    result = FitResult(first_step=checkpoints.load_newest(model, optimizers))
    started = time.perf_counter()
    model.train()
    for step in range(result.first_step, plan.num_steps):
        factor = learning_rate_factor(plan.schedule, step, plan.num_steps)
        optimizers.set_learning_rate_factor(factor)
        report = _train_step(model, plan, optimizers, step, factor)
        if report.skipped:
            result.skipped_steps.append(step)
            _stop_when_lost(result.skipped_steps, step, plan)
        watch.step(report)
        is_last = step + 1 == plan.num_steps
        if (step + 1) % plan.checkpoint_every == 0 and not is_last:
            checkpoints.save(step + 1, model, optimizers)
    model.eval()
    result.wall_s = time.perf_counter() - started
    return result


def _train_step(
    model: Transformer, plan: Plan[Any], optimizers: Optimizers, step: int, factor: float
) -> StepReport:
    """Summed losses of all micro-batches, divided once by the global count; clip; update."""
    micro_batches = plan.batches(step)
    count = sum(plan.objective.count(batch) for batch in micro_batches)
    optimizers.zero_grad()
    total, sums = 0.0, {}
    for batch in micro_batches:
        loss = plan.objective.loss(model, batch)
        (loss.total / max(count, 1)).backward()
        total += loss.total.item()
        for name, value in loss.sums.items():
            sums[name] = sums.get(name, 0.0) + value
    norm = clip_gradients(model, plan.optimizer.max_gradient_norm)
    is_finite = math.isfinite(total) and math.isfinite(norm)
    if is_finite:
        optimizers.step()
        balance_experts(model)
    return StepReport(
        step=step + 1,
        loss=total / max(count, 1),
        gradient_norm=norm,
        learning_rate_factor=factor,
        count=count,
        sums={name: value / max(count, 1) for name, value in sums.items()},
        skipped=not is_finite,
    )


def clip_gradients(model: nn.Module, max_norm: float) -> float:
    """Scale all gradients down to a global norm of `max_norm`; returns the norm before."""
    parameters = [p for p in model.parameters() if p.grad is not None]
    return float(nn.utils.clip_grad_norm_(parameters, max_norm, foreach=True))


def _stop_when_lost(skipped: list[int], step: int, plan: Plan[Any]) -> None:
    recent = skipped[-plan.max_skipped :]
    if len(recent) == plan.max_skipped and recent[0] == step - plan.max_skipped + 1:
        raise BessemerError(
            f"loss or gradient was not finite for {plan.max_skipped} steps in a row, up to step {step}: "
            "lower optimizer.learning_rate and optimizer.muon_learning_rate, or lengthen schedule.warmup"
        )
