"""What a training stage shows and keeps of each step: progress bar, metrics.jsonl, periodic checks."""

import json
import time
from collections.abc import Callable
from pathlib import Path

from bessemer.runner.context import Progress, StageContext
from bessemer.runner.files import write_atomically
from bessemer.training.loop import StepReport

Check = Callable[[int], dict[str, float]]
"""Given the number of finished steps, values to log: a validation, for example."""


class TrainingWatch:
    """Logs every few steps and runs a check at intervals and at the end."""

    def __init__(
        self,
        context: StageContext,
        progress: Progress,
        *,
        num_steps: int,
        tokens_per_step: int,
        log_every: int,
        check_every: int,
        check: Check,
    ) -> None:
        self._context = context
        self._progress = progress
        self._num_steps = num_steps
        self._tokens_per_step = tokens_per_step
        self._log_every = log_every
        self._check_every = check_every
        self._check = check
        self._last_s = time.perf_counter()
        self._last_step: int | None = None
        self.last_check: dict[str, float] = {}
        self.last_loss = float("nan")

    def step(self, report: StepReport) -> None:
        """Called by the loop after each step."""
        if self._last_step is None:
            self._last_step = report.step - 1
            rewind_metrics(self._context.metrics_path, report.step - 1)
        self.last_loss = report.loss
        is_last = report.step == self._num_steps
        self._progress.set(report.step * self._tokens_per_step, loss=f"{report.loss:.3f}")
        if report.skipped:
            self._context.say(f"step {report.step}: loss or gradient not finite, update skipped")
        if report.step % self._log_every == 0 or is_last or report.skipped:
            self._log(report)
        if report.step % self._check_every == 0 or is_last:
            self.last_check = self._check(report.step)
            if self.last_check:
                self._context.log(report.step, **self.last_check)
            self._last_s = time.perf_counter()  # the check's own time is not training time

    def _log(self, report: StepReport) -> None:
        now_s = time.perf_counter()
        num_steps = report.step - (self._last_step or 0)
        self._context.log(
            report.step,
            loss=report.loss,
            gradient_norm=report.gradient_norm,
            learning_rate_factor=report.learning_rate_factor,
            tokens=report.step * self._tokens_per_step,
            supervised=report.count,
            tokens_per_s=num_steps * self._tokens_per_step / max(now_s - self._last_s, 1e-9),
            **report.sums,
        )
        self._last_s, self._last_step = now_s, report.step


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
