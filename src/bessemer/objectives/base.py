"""The shape of an objective.

An objective never averages. The loop sums counts over micro-batches (and later over ranks) first
and divides once, so that accumulation, packing and parallel layout cannot change a gradient.
"""

from dataclasses import dataclass, field
from typing import Protocol, TypeVar

from torch import Tensor

from bessemer.model.transformer import Transformer

BatchT = TypeVar("BatchT", contravariant=True)


@dataclass(frozen=True)
class LossSum:
    """A summed loss, what it is summed over, and further sums worth logging."""

    total: Tensor
    """Scalar float32, differentiable: the sum over the items."""
    sums: dict[str, float] = field(default_factory=dict)
    """Sums over the same items; logged divided by the count."""


class Objective(Protocol[BatchT]):
    """Something to minimise."""

    def count(self, batch: BatchT) -> int:
        """Items that the batch's loss is summed over, such as supervised tokens or pairs."""
        ...

    def loss(self, model: Transformer, batch: BatchT) -> LossSum:
        """The summed loss of the batch."""
        ...
