"""Stop when held-out text gets harder while training text gets easier, and keep the best weights."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import Field
from safetensors import safe_open
from torch import Tensor

from bessemer.config import Config, Count
from bessemer.model.weights import write_streamed

_VALUES = "values"
"""Key of the validation's values in the metadata of the best weights."""


class EarlyStopConfig(Config):
    """When training ends before its time."""

    patience: Count = Field(default=3, ge=1)
    """Validations in a row without a new best."""
    least_gain: float = Field(default=0.0, ge=0)
    """A validation must be better than the best by this share of it to count."""


@dataclass
class EarlyStop:
    """Follows one figure that should fall; its state belongs in a checkpoint."""

    config: EarlyStopConfig
    quantity: str
    """Name of the figure in a validation's values."""
    path: Path
    """Where the best weights are kept while training goes on: a safetensors file under the model's names."""
    shapes: Mapping[str, Sequence[int]]
    """Of the weights."""
    is_writer: bool = True
    """Whether this process keeps them: of those that train together, one does."""
    best: dict[str, float] = field(default_factory=dict)
    """All values of the best validation."""
    since_best: int = 0

    def saw(self, values: dict[str, float], weights: Mapping[str, Tensor]) -> None:
        """Take a validation of the model's weights as they are. Processes that train together all look the
        weights up, one at a time, and one of them writes."""
        value = values[self.quantity]
        if self.best and not value < self.best[self.quantity] * (1 - self.config.least_gain):
            self.since_best += 1
            return
        self.best, self.since_best = dict(values), 0
        if self.is_writer:
            write_streamed(self.path, self.shapes, weights, {_VALUES: json.dumps(self.best)})
            return
        for name in self.shapes:
            weights[name]

    def should_stop(self) -> bool:
        return self.since_best >= self.config.patience

    def to_json(self) -> dict[str, Any]:
        return {"best": self.best, "since_best": self.since_best}

    def from_json(self, value: dict[str, Any]) -> None:
        """Go on from a checkpoint. Where a better validation has overwritten its best weights since, the
        search begins afresh: a run that was killed meets that validation again, one that was rewound may
        not."""
        self.best, self.since_best = value["best"], value["since_best"]
        if self.best and self._values_kept() != json.dumps(self.best):
            self.best, self.since_best = {}, 0

    def _values_kept(self) -> str | None:
        """The values of the weights on disk, as JSON."""
        if not self.path.exists():
            return None
        with safe_open(self.path, framework="pt") as file:
            return (file.metadata() or {}).get(_VALUES)
