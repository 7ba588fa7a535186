"""What the runner hands to a stage: where to write, what to read, and how to report.

A stage is a function `(config, StageContext) -> metrics`. It reads `context.input(kind)`, writes
files under `context.output`, may keep half-done work under `context.scratch` (it survives kill -9
until the stage completes), and returns a flat dict of numbers for the manifest.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from bessemer.errors import BessemerError
from bessemer.runner.manifest import Artifact

Metrics = dict[str, Any]


class Progress(Protocol):
    """One bar (terminal) or a line now and then (elsewhere), with rate and time left."""

    def advance(self, amount: float = 1) -> None: ...
    def set(self, completed: float, **shown: object) -> None:
        """Absolute position, and values to show beside it, such as `loss=2.31`."""
        ...

    def __enter__(self) -> "Progress": ...
    def __exit__(self, *error: object) -> None: ...


class Reporter(Protocol):
    """Where a stage's words and numbers go; the command line and the tests each have one."""

    def say(self, text: str) -> None: ...
    def progress(self, description: str, total: float | None, unit: str) -> Progress: ...


@dataclass(frozen=True)
class StageContext:
    """Everything a stage may touch. `output` becomes the artifact; `scratch` is deleted at the end."""

    stage: str
    """Name of the stage in the recipe."""
    seed: int
    """Seed of this stage, derived from the recipe's seed and the stage's name."""
    output: Path
    scratch: Path
    inputs: Mapping[str, Sequence[Artifact]]
    """By artifact kind, in recipe order: the last is the nearest earlier stage's."""
    reporter: Reporter
    metrics_path: Path
    run: Mapping[str, Any] = field(default_factory=dict)
    """Facts about the run that a model card prints: name, started_at, recipe."""
    on: str = "local"
    """Where parallel parts run, see `runner.executors`: never changes the result."""

    def input(self, kind: str) -> Artifact:
        """The nearest input of this kind. Raises BessemerError when the recipe made none."""
        if not self.inputs.get(kind):
            raise BessemerError(f"stage {self.stage!r} needs {kind!r}, which no earlier stage makes")
        return self.inputs[kind][-1]

    def say(self, text: str) -> None:
        """One line to the user."""
        self.reporter.say(text)

    def progress(self, description: str, total: float | None, unit: str) -> Progress:
        """Start a progress display; use it as a context manager."""
        return self.reporter.progress(description, total, unit)

    def log(self, step: int, **values: float | int | str) -> None:
        """Append one line `{"step": …, …}` to the stage's metrics.jsonl."""
        append_metrics(self.metrics_path, {"step": step, **values})


def append_metrics(path: Path, row: Metrics) -> None:
    """Append one JSON line. Numbers that are not finite become null: JSON has no word for them, and a text
    would change the type of a column for those who read the file as a table."""
    plain = {name: None if _is_odd(value) else value for name, value in row.items()}
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(plain, allow_nan=False) + "\n")


def _is_odd(value: Any) -> bool:
    return isinstance(value, float) and not math.isfinite(value)
