"""An exponential moving average of the weights: smoother than the weights of any one step.

a ← d·a + (1 - d)·w after every update (Polyak & Juditsky 1992; as in Izmailov et al. 2018, averaging
finds flatter optima). Early on the decay is min(d, (1 + n) / (10 + n)) after n updates, so that the
random start is forgotten quickly (TensorFlow, `tf.train.ExponentialMovingAverage`).
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from bessemer.config import Config


class AverageConfig(Config):
    """The moving average of the weights."""

    decay: float = Field(default=0.999, gt=0, lt=1)
    """Share of the old average that a step keeps; the average spans about 1 / (1 - decay) steps."""
    export: Literal["average", "last"] = "average"
    """Which weights are validated and written: the average, or those of the last step."""


class WeightAverage:
    """Float32 averages of all trainable parameters, by name."""

    def __init__(self, model: nn.Module, config: AverageConfig) -> None:
        """Starts at the model's weights as they are."""
        self.config = config
        self._model = model
        self.num_updates = 0
        self.tensors: dict[str, Tensor] = {
            name: p.detach().float().clone() for name, p in model.named_parameters() if p.requires_grad
        }

    @torch.no_grad()
    def update(self) -> None:
        """Take the model's weights in; called after every update of them."""
        self.num_updates += 1
        decay = min(self.config.decay, (1 + self.num_updates) / (10 + self.num_updates))
        for name, parameter in self._parameters():
            self.tensors[name].lerp_(parameter.detach().to(self.tensors[name].dtype), 1 - decay)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Within it, the model's weights are the ones to export; the others come back, bit by bit."""
        if self.config.export == "last":
            yield
            return
        held = {name: parameter.detach().clone() for name, parameter in self._parameters()}
        try:
            self.write_to_model()
            yield
        finally:
            self._copy(held)

    def write_to_model(self) -> None:
        """Make the weights to export the model's own, for good."""
        if self.config.export == "average":
            self._copy(self.tensors)

    @torch.no_grad()
    def _copy(self, tensors: dict[str, Tensor]) -> None:
        for name, parameter in self._parameters():
            parameter.copy_(tensors[name])

    def _parameters(self) -> list[tuple[str, nn.Parameter]]:
        return [(name, p) for name, p in self._model.named_parameters() if name in self.tensors]

    def to_json(self) -> dict[str, Any]:
        return {"num_updates": self.num_updates}

    def from_json(self, value: dict[str, Any]) -> None:
        self.num_updates = value["num_updates"]
