"""The guard of the loop: which steps must not be taken, and when to go back to a checkpoint.

It judges a step by its loss and gradient norm before the update. What it knows is a few recent
numbers, all of them in the checkpoint, so that a resumed run judges as an undisturbed one would.
"""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from pydantic import Field

from bessemer.config import Config, Count
from bessemer.errors import BessemerError

_SIGMAS_PER_MAD = 1.4826
"""Standard deviations per median absolute deviation of a normal distribution, 1 / Φ⁻¹(3/4)."""
_LEAST_HISTORY = 24
"""Fewer values say too little about the spread; the first steps of a run fall fast in any case."""
_LEAST_SPREAD = 0.02
"""Spread is taken for at least this share of the median loss (and this much of the logarithm of the
norm): a run that stands still would otherwise call any movement a spike."""
_DIVERGED_FACTOR, _DIVERGED_MARGIN = 1.5, 1.0
"""A loss above 1.5 times the first one plus 1 nat is worse than knowing nothing; a healthy run is never
there for long."""

_HIGH_STEPS_AT_END = 10
"""In a row; a single batch may be that hard."""

Judgement = Literal["fine", "not finite", "spike"]


class GuardConfig(Config):
    """What is done about steps that would harm the model. A step that is not finite is always skipped."""

    spikes: Literal["off", "skip", "rewind"] = "off"
    """skip: leave out the update of a step whose loss or gradient norm stands far above the recent ones
    (as OLMo's SkipStep does). rewind: also go back to the last checkpoint after `patience` bad steps in
    a row, and past the data in between (Chowdhery et al. 2022, PaLM, section 5.1)."""
    threshold: float = Field(default=8.0, gt=0)
    """How far above the recent median a spike stands, in robust standard deviations."""
    window: Count = Field(default=128, ge=_LEAST_HISTORY)
    """Recent steps that the median and the deviation are taken over."""
    patience: Count = Field(default=3, ge=1)
    """Bad steps in a row before a rewind."""
    max_rewinds: Count = Field(default=3, ge=1)
    """Rewinds of one run before it stops with an error."""
    max_skipped: Count = Field(default=20, ge=1)
    """Bad steps in a row before the run stops with an error."""
    diverged_after: Count = Field(default=200, ge=1)
    """Steps in a row with a loss far above the first one before the run stops with an error."""


@dataclass(frozen=True)
class Verdict:
    """What the guard thinks of one step."""

    judgement: Judgement = "fine"
    quantity: str = ""
    """`loss` or `gradient norm`: what was out of bounds."""
    value: float = 0.0
    median: float = 0.0
    limit: float = math.inf
    """The largest value that would have passed."""

    @property
    def is_bad(self) -> bool:
        return self.judgement != "fine"

    def __str__(self) -> str:
        if self.judgement == "spike":
            return (
                f"{self.quantity} {self.value:.4g} stands above {self.limit:.4g} (median {self.median:.4g})"
            )
        return "loss or gradient not finite" if self.is_bad else "fine"


def robust_limit(values: Sequence[float], threshold: float, least_spread: float) -> tuple[float, float]:
    """Median, and median + threshold · max(1.4826 · MAD, least_spread).

    MAD is the median absolute deviation: unlike a standard deviation, it is not widened by the very
    spikes that are sought (Rousseeuw & Croux 1993, "Alternatives to the median absolute deviation").
    """
    median = statistics.median(values)
    deviation = statistics.median(abs(value - median) for value in values)
    return median, median + threshold * max(_SIGMAS_PER_MAD * deviation, least_spread)


@dataclass
class Guard:
    """Judges steps in order. Call `judge` before the update, then `note` with its verdict."""

    config: GuardConfig
    losses: list[float] = field(default_factory=list)
    """Of recent steps that were taken, oldest first."""
    norms: list[float] = field(default_factory=list)
    bad_numbers: list[int] = field(default_factory=list)
    """Numbers of the batches of the bad steps in a row that end now."""
    skipped_steps: list[int] = field(default_factory=list)
    """From 0, all of the run up to here."""
    first_loss: float | None = None
    """Of the first step that was taken on this kind of data."""
    high_steps: int = 0
    """Steps in a row with a loss far above the first one."""

    def judge(self, loss: float, norm: float) -> Verdict:
        """Whether a step with this mean loss and gradient norm should be taken."""
        if not (math.isfinite(loss) and math.isfinite(norm)):
            return Verdict("not finite", "loss" if not math.isfinite(loss) else "gradient norm")
        if self.config.spikes == "off" or len(self.losses) < _LEAST_HISTORY:
            return Verdict()
        median, limit = robust_limit(
            self.losses, self.config.threshold, _LEAST_SPREAD * abs(statistics.median(self.losses))
        )
        if loss > limit:
            return Verdict("spike", "loss", loss, median, limit)
        # Norms vary by factors, so their logarithms are what has a width.
        logs = [math.log(max(value, 1e-30)) for value in self.norms]
        median, limit = (
            math.exp(value) for value in robust_limit(logs, self.config.threshold, _LEAST_SPREAD)
        )
        if norm > limit:
            return Verdict("spike", "gradient norm", norm, median, limit)
        return Verdict()

    def note(self, verdict: Verdict, step: int, number: int, loss: float, norm: float) -> None:
        """Remember a step (from 0) and the number of its batch."""
        if verdict.is_bad:
            self.bad_numbers.append(number)
            self.skipped_steps.append(step)
            return
        self.bad_numbers = []
        if self.config.spikes != "off":
            self.losses = [*self.losses, loss][-self.config.window :]
            self.norms = [*self.norms, norm][-self.config.window :]
        if self.first_loss is None:
            self.first_loss = loss
        is_high = loss > _DIVERGED_FACTOR * abs(self.first_loss) + _DIVERGED_MARGIN
        self.high_steps = self.high_steps + 1 if is_high else 0

    def forget_recent(self) -> None:
        """Start the statistics afresh: the data changes its kind, and the loss its level."""
        self.losses, self.norms = [], []
        self.first_loss, self.high_steps = None, 0

    @property
    def wants_rewind(self) -> bool:
        return self.config.spikes == "rewind" and len(self.bad_numbers) >= self.config.patience

    def check(self, step: int) -> None:
        """Raises BessemerError when the run is lost at `step`: it would only burn time from here on."""
        if len(self.bad_numbers) >= self.config.max_skipped:
            how = "not finite" if self.config.spikes == "off" else "far too high or not finite"
            raise BessemerError(
                f"loss or gradient was {how} for {self.config.max_skipped} steps in a row, up to step "
                f"{step}: lower optimizer.learning_rate and optimizer.muon_learning_rate, or lengthen "
                "schedule.warmup"
            )
        self._check_divergence(step, self.config.diverged_after)

    def check_end(self, step: int) -> None:
        """Raises BessemerError when a run that is shorter than `diverged_after` ends worse than it began."""
        self._check_divergence(step, min(_HIGH_STEPS_AT_END, self.config.diverged_after))

    def _check_divergence(self, step: int, most: int) -> None:
        if self.high_steps >= most:
            raise BessemerError(
                f"training has diverged: up to step {step}, the loss stood far above the first one "
                f"({self.first_loss:.3f}) for {self.high_steps} steps in a row: lower "
                "optimizer.learning_rate and optimizer.muon_learning_rate, or lengthen schedule.warmup"
            )

    def to_json(self) -> dict[str, Any]:
        return {
            "losses": self.losses,
            "norms": self.norms,
            "bad_numbers": self.bad_numbers,
            "skipped_steps": self.skipped_steps,
            "first_loss": self.first_loss,
            "high_steps": self.high_steps,
        }

    def from_json(self, value: dict[str, Any]) -> None:
        for name, part in value.items():
            setattr(self, name, part)
