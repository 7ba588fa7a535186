"""Gradients of a step's micro-batches, one after the other, summed in the parameters."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any

from torch import nn

from bessemer.objectives.base import LossSum

LossOf = Callable[[Any], LossSum]
"""The summed loss of a micro-batch."""


def accumulate(
    model: nn.Module,
    loss_of: LossOf,
    batches: Sequence[Any],
    factor: float,
    part: Callable[[bool], AbstractContextManager[None]],
    num_parts: int,
) -> tuple[float, dict[str, float]]:
    """Add the gradients of the batches' losses, times `factor`, to those there are; the summed losses and
    further sums. `part` is around each forward and backward pass and told whether it is the last.

    Of several processes each goes through `num_parts` passes: what is missing adds nothing, but the others
    wait for this one in each.
    """
    total, sums = 0.0, dict[str, float]()
    for number, batch in enumerate(batches, start=1):
        with part(number == num_parts):
            loss = loss_of(batch)
            (loss.total * factor).backward()
        total += loss.total.item()
        for name, value in loss.sums.items():
            sums[name] = sums.get(name, 0.0) + value
    for number in range(len(batches) + 1, num_parts + 1):
        model.eval()  # so that experts do not count the tokens twice
        with part(number == num_parts):
            (loss_of(batches[-1]).total * 0).backward()
        model.train()
    return total, sums
