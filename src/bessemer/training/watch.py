"""What a training stage shows and keeps of each step: progress bar, metrics.jsonl, periodic checks."""

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bessemer.runner.context import Progress, StageContext
from bessemer.runner.cost import resident_bytes
from bessemer.runner.files import write_atomically
from bessemer.training.loop import StepReport
from bessemer.training.sinks import Sink

Check = Callable[[int], dict[str, float]]
"""Given the number of finished steps, values to log: a validation, for example."""


@dataclass(frozen=True)
class Scale:
    """What turns steps into tokens, and tokens into utilisation."""

    num_steps: int
    tokens_before: Callable[[int], int]
    """Tokens of all steps before a step: a pure function."""
    flops_per_token: float = 0.0
    peak_flops_per_s: float = 0.0
    """0 where it is not known: no utilisation is logged then."""


@dataclass
class TrainingWatch:
    """Logs every few steps and runs a check at intervals and at the end."""

    context: StageContext
    progress: Progress
    scale: Scale
    log_every: int
    check_every: int
    check: Check
    sinks: Sequence[Sink] = ()
    last_check: dict[str, float] = field(default_factory=dict)
    last_loss: float = float("nan")
    _last_s: float = field(default_factory=time.perf_counter)
    _last_step: int | None = None
    _last_waits_s: float = 0.0

    def step(self, report: StepReport) -> None:
        """Called by the loop after each step; the step number falls after a rewind."""
        if self._last_step is None or report.step <= self._last_step:
            self._last_step = report.step - 1
            rewind_metrics(self.context.metrics_path, report.step - 1)
        self.last_loss = report.loss
        is_last = report.step == self.scale.num_steps
        self.progress.set(self.scale.tokens_before(report.step), loss=f"{report.loss:.3f}")
        if report.skipped:
            self.context.say(f"step {report.step}: {report.reason}, update skipped")
        if report.step % self.log_every == 0 or is_last or report.skipped:
            self._log(report)
        if report.step % self.check_every == 0 or is_last:
            self.last_check = self.check(report.step)
            if self.last_check:
                self.context.log(report.step, **self.last_check)
                self._to_sinks(report.step, self.last_check)
            self._last_s = time.perf_counter()  # the check's own time is not training time

    def _log(self, report: StepReport) -> None:
        now_s = time.perf_counter()
        scale, wall_s = self.scale, max(now_s - self._last_s, 1e-9)
        done_tokens = scale.tokens_before(report.step)
        rate = (done_tokens - scale.tokens_before(self._last_step or 0)) / wall_s
        waits_s = report.stall_s + report.blocked_s
        values = {
            "loss": report.loss,
            "gradient_norm": report.gradient_norm,
            "learning_rate_factor": report.learning_rate_factor,
            "tokens": done_tokens,
            "batch": report.number,
            "supervised": report.count,
            "tokens_per_s": rate,
            "eta_s": (scale.tokens_before(scale.num_steps) - done_tokens) / rate if rate else 0.0,
            "waited_share": max(0.0, waits_s - self._last_waits_s) / wall_s,
            "memory_bytes": resident_bytes(),
            **{f"gradient_norm/{name}": norm for name, norm in report.gradient_norms.items()},
            **{f"learning_rate/{name}": value for name, value in report.learning_rates.items()},
            **report.sums,
        }
        if scale.peak_flops_per_s:
            values["mfu"] = rate * scale.flops_per_token / scale.peak_flops_per_s
        self.context.log(report.step, **values)
        self._to_sinks(report.step, values)
        self._last_s, self._last_step, self._last_waits_s = now_s, report.step, waits_s

    def _to_sinks(self, step: int, values: dict[str, float]) -> None:
        for sink in self.sinks:
            sink.log(step, values)


def rewind_metrics(path: Path, step: int) -> None:
    """Drop lines of steps after `step`: a resumed run will write them again.

    A line cut short by a kill is dropped too.
    """
    if not path.exists():
        return
    kept = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            row = json.loads(line)
        except json.JSONDecodeError:
            continue
        if row.get("step", 0) <= step:
            kept.append(line + "\n")
    write_atomically(path, "".join(kept).encode())
