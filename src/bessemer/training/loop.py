"""The one training loop. Every stage that trains calls `fit`; what differs is objective and data."""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

import torch
from torch import Tensor, nn

from bessemer.errors import BessemerError
from bessemer.model.mixture import balance_experts, forget_loads
from bessemer.model.transformer import Transformer
from bessemer.objectives.base import Objective
from bessemer.training.average import WeightAverage
from bessemer.training.checkpoint import Checkpoints, Remembers
from bessemer.training.gradients import clip_gradients
from bessemer.training.guard import Guard, GuardConfig, Verdict
from bessemer.training.incidents import INCIDENTS_NAME, DataOrder, Incidents, refuse_more_rewinds
from bessemer.training.loss_scale import LossScale, dynamic_loss_scale
from bessemer.training.optimizers import OptimizerConfig, Optimizers
from bessemer.training.parallel.ranks import Alone, Ranks
from bessemer.training.prefetch import Prefetch
from bessemer.training.schedules import ScheduleConfig, learning_rate_factor

__all__ = ["FitResult", "Plan", "StepReport", "Watch", "clip_gradients", "fit"]

BatchT = TypeVar("BatchT")


class Watch(Protocol):
    """What a stage does with the numbers of a step."""

    def step(self, report: "StepReport") -> None:
        """After a rewind, the steps that are done again are reported again."""
        ...


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
    """True when the update was skipped."""
    reason: str = ""
    """Why it was skipped."""
    gradient_norms: dict[str, float] = field(default_factory=dict)
    """By group of parameters."""
    learning_rates: dict[str, float] = field(default_factory=dict)
    """By optimizer."""
    number: int = 0
    """Number of the step's batch, from 0: the step's own number unless data was left out."""
    stall_s: float = 0.0
    """Seconds that training has waited for data so far."""
    blocked_s: float = 0.0
    """Seconds that training has stood still for checkpoints so far."""


@dataclass(frozen=True)
class Plan(Generic[BatchT]):
    """What to train on and for how long."""

    objective: Objective[BatchT]
    batches: Callable[[int], Sequence[BatchT]]
    """Micro-batches of this process's rows of a batch, one at least: a pure function of its number, from 0;
    called on another thread."""
    num_steps: int
    optimizer: OptimizerConfig
    schedule: ScheduleConfig
    checkpoint_every: int = 200
    """Steps between checkpoints."""
    guard: GuardConfig = field(default_factory=GuardConfig)
    documents: Callable[[int], Sequence[str]] = lambda number: ()
    """Names of the documents in a batch, for incident reports; called on the data's thread."""
    boundaries: frozenset[int] = frozenset()
    """Steps at which the data changes its kind, so that recent losses say nothing about the next."""
    incidents: Path | None = None
    """Where bad batches are logged."""
    average: WeightAverage | None = None
    """A moving average of the model's weights, kept up to date."""
    should_stop: Callable[[], bool] = lambda: False
    """Asked after each step's report; true ends training there."""
    keeps_best: bool = False
    """Whether the weights of the best validation are what remains, however training ends."""
    say: Callable[[str], None] = lambda text: None
    """One line to the user."""
    memory: dict[str, Remembers] = field(default_factory=dict)
    """Further parts that belong in a checkpoint."""


@dataclass
class FitResult:
    """How a run of the loop went."""

    first_step: int
    """Step that this process began at: above zero after a resume."""
    last_step: int = 0
    """Steps finished at the end."""
    wall_s: float = 0.0
    stall_s: float = 0.0
    """Seconds that training waited for data."""
    blocked_s: float = 0.0
    """Seconds that training stood still for checkpoints."""
    skipped_steps: list[int] = field(default_factory=list)
    """From 0, of the whole run."""
    num_rewinds: int = 0


def fit(
    model: nn.Module,
    plan: Plan[Any],
    checkpoints: Checkpoints,
    watch: Watch,
    ranks: Ranks | None = None,
) -> FitResult:
    """Train `model` in place, from the newest checkpoint on, to the end of the plan.

    `ranks` are the processes that train together, and `model` is what they have prepared; default: this
    process alone, and a Transformer.
    Raises BessemerError when the guard gives the run up, and what saving and data raise.
    """
    if ranks is None:
        assert isinstance(model, Transformer)
        ranks = Alone(model)
    run = _Run(model, plan, checkpoints, watch, ranks)
    started = time.perf_counter()
    model.train()
    try:
        with run.data:
            run.go()
    finally:
        checkpoints.finish()
    model.eval()
    run.result.wall_s = time.perf_counter() - started
    return run.result


class _Run:
    """One call of `fit`: the loop, and what it does about bad steps."""

    def __init__(
        self, model: nn.Module, plan: Plan[Any], checkpoints: Checkpoints, watch: Watch, ranks: Ranks
    ) -> None:
        self.model, self.plan, self.checkpoints, self.watch = model, plan, checkpoints, watch
        self.ranks = ranks
        self.optimizers = Optimizers(model, plan.optimizer, ranks.joined(model))
        self.guard = Guard(plan.guard)
        self.scale = dynamic_loss_scale() if model.compute_dtype == torch.float16 else LossScale()
        self.average = plan.average
        self.memory = {"guard": self.guard, "loss_scale": self.scale, **plan.memory}
        if self.average is not None:
            self.memory["average"] = self.average
        self.order = DataOrder(checkpoints.folder)
        self.incidents = Incidents(plan.incidents)
        self.data = Prefetch(plan.batches)
        self.result = FitResult(
            checkpoints.load_newest(model, self.optimizers, self.memory, self._averages())
        )

    def go(self) -> None:
        step, plan = self.result.first_step, self.plan
        if step == 0 and plan.guard.spikes == "rewind":
            self._save(0, 0)  # somewhere to go back to
        due: int | None = None
        """The step whose checkpoint is still to be written."""
        while step < plan.num_steps:
            if step in plan.boundaries:
                self.guard.forget_recent()
            factor = learning_rate_factor(plan.schedule, step, plan.num_steps)
            self.optimizers.set_learning_rate_factor(factor)
            self.optimizers.set_momentum(step)
            report, verdict = self._step(step, factor)
            if verdict.is_bad and self.guard.wants_rewind:
                step, due = self._rewind(step, report.number), None
                continue
            self.guard.check(step)
            step += 1
            self.watch.step(report)
            if plan.should_stop():
                break
            if step % plan.checkpoint_every == 0:
                due = step
            # While steps are bad it waits: a checkpoint is a place to go back to.
            if due is not None and step < plan.num_steps and not self.guard.bad_numbers:
                self._save(step, due)
                due = None
        if not plan.keeps_best:
            self.guard.check_end(step)
        self.checkpoints.wait()
        self.result.last_step = step
        self.result.stall_s, self.result.blocked_s = self.data.stall_s, self.checkpoints.blocked_s
        self.result.skipped_steps = list(self.guard.skipped_steps)
        self.result.num_rewinds = len(self.order.rewinds)

    def _step(self, step: int, factor: float) -> tuple[StepReport, Verdict]:
        """Gradients of one batch; the guard's verdict; the update, if it may be taken."""
        number = self.order.number(step)
        following = self.order.number(step + 1) if step + 1 < self.plan.num_steps else None
        micro_batches = self.data.take(number, following)
        loss, sums, count = self._gradients(micro_batches)
        norm, norms = self._clip()
        verdict = self.guard.judge(loss, norm)
        is_overflow = verdict.judgement == "not finite" and self.scale.can_shrink
        self.scale.note(overflowed=is_overflow)
        if is_overflow:
            # Expected while the scale finds its place, and no fault of the data or the model.
            reason = f"a float16 gradient overflowed; loss scale now {self.scale.scale:g}"
            verdict = Verdict()
        else:
            reason = str(verdict) if verdict.is_bad else ""
            self.guard.note(verdict, step, number, loss, norm)
        if not reason:
            self.optimizers.step()
            self.ranks.sum_loads(self.model)
            balance_experts(self.model)
            if self.average is not None:
                self.average.update()
        else:
            forget_loads(self.model)
        report = StepReport(
            step=step + 1,
            loss=loss,
            gradient_norm=norm,
            learning_rate_factor=factor,
            count=count,
            sums=sums,
            skipped=bool(reason),
            reason=reason,
            gradient_norms=norms,
            learning_rates=self.optimizers.learning_rates(),
            number=number,
            stall_s=self.data.stall_s,
            blocked_s=self.checkpoints.blocked_s,
        )
        if verdict.is_bad:
            self._log_incident(report, verdict)
        return report, verdict

    def _gradients(self, micro_batches: Sequence[Any]) -> tuple[float, dict[str, float], int]:
        """Summed losses of all micro-batches of all ranks, divided once by the global count: mean loss,
        means, count."""
        objective, ranks = self.plan.objective, self.ranks
        micro_batches = [ranks.own(batch) for batch in micro_batches]
        own_count = sum(objective.count(batch) for batch in micro_batches)
        count, num_parts = ranks.counts(own_count, len(micro_batches))
        divisor = max(count, 1)
        self.optimizers.zero_grad()
        total, sums = ranks.gradients(objective, micro_batches, num_parts, self.scale.scale / divisor)
        total, *values = ranks.sums([total, *sums.values()])
        return total / divisor, {n: value / divisor for n, value in zip(sums, values, strict=True)}, count

    def _clip(self) -> tuple[float, dict[str, float]]:
        if self.scale.scale != 1:
            for parameter in self.model.parameters():
                if parameter.grad is not None:
                    parameter.grad.mul_(1 / self.scale.scale)
        return self.ranks.clip(self.model, self.plan.optimizer.max_gradient_norm)

    def _log_incident(self, report: StepReport, verdict: Verdict) -> None:
        decision = "update skipped"
        if self.guard.wants_rewind:
            decision += ", rewind to the last checkpoint and past the data since"
        limit = verdict.limit if math.isfinite(verdict.limit) else None
        self.incidents.add(
            report.step,
            report.number,
            verdict,
            {"loss": report.loss, "gradient_norm": report.gradient_norm, "limit": limit},
            self.data.call(self.plan.documents, report.number),
            decision,
        )

    def _rewind(self, step: int, number: int) -> int:
        """Load the last checkpoint and leave out the data from there to batch `number`; the new step."""
        refuse_more_rewinds(self.order, self.plan.guard.max_rewinds, step)
        loaded = self.checkpoints.go_back(self.model, self.optimizers, self.memory, self._averages())
        if loaded is None:
            raise BessemerError(
                f"step {step}: training went bad, and there is no sound checkpoint in "
                f"{self.checkpoints.folder} to go back to: give the same command again to start over"
            )
        rewind = self.order.skip_to(loaded, number, is_writer=self.ranks.is_main)
        self.plan.say(
            f"step {step + 1}: went bad {self.guard.config.patience} times in a row; back to step {loaded}, "
            f"leaving out the batches {rewind.first_number} to {rewind.last_number} (see {INCIDENTS_NAME})"
        )
        return loaded

    def _save(self, step: int, due: int) -> None:
        self.checkpoints.save(step, self.model, self.optimizers, self.memory, self._averages(), due)

    def _averages(self) -> dict[str, Tensor]:
        return self.average.tensors if self.average is not None else {}
