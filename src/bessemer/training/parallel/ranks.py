"""What the training loop asks of the processes that train together, and what one alone answers."""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from torch import nn
from torch.distributed import ProcessGroup

from bessemer.model.transformer import Transformer
from bessemer.objectives.base import LossSum, Objective
from bessemer.training.gradients import clip_by_norms
from bessemer.training.optimizers import OptimizerConfig

ValueT = TypeVar("ValueT")


@dataclass(frozen=True)
class Share:
    """The rows of a step that fall to one of several takers: consecutive ones, as even as can be."""

    place: int = 0
    of: int = 1

    def rows(self, numbers: range) -> range:
        """This taker's part of the rows' numbers."""
        return numbers[len(numbers) * self.place // self.of : len(numbers) * (self.place + 1) // self.of]

    def num_parts(self, num_parts: int) -> int:
        """Micro-batches of this taker where one alone would have `num_parts`."""
        return -(-num_parts // self.of)


class Ranks(Protocol):
    """The processes of a run, from the view of one. Every method but `share` and `is_main` is called by all
    of them, in the same order."""

    @property
    def is_main(self) -> bool:
        """Whether this process reports and writes."""
        ...

    @property
    def share(self) -> Share:
        """Which rows of a step are this process's."""
        ...

    @property
    def writers(self) -> ProcessGroup | None:
        """The processes, for the use of one thread that writes; None where this one writes alone."""
        ...

    def prepare(self, model: Transformer, optimizer: OptimizerConfig) -> None:
        """Distribute the model, in place; before its optimizers are made."""
        ...

    def own(self, batch: Any) -> Any:
        """What this process works on of a micro-batch of its rows: a part of each row, where rows are
        divided. Items are counted in it."""
        ...

    def counts(self, count: int, num_parts: int) -> tuple[int, int]:
        """Items over all ranks, and micro-batches of the rank that has most."""
        ...

    def loss(self, objective: Objective[Any], batch: Any) -> LossSum:
        """This rank's summed loss of a micro-batch."""
        ...

    def part(self, *, is_last: bool) -> AbstractContextManager[None]:
        """Around forward and backward of one micro-batch."""
        ...

    def sums(self, values: Sequence[float]) -> list[float]:
        """Each value summed over the ranks that see different tokens."""
        ...

    def sum_loads(self, model: nn.Module) -> None:
        """Make the loads of every mixture's experts those of all ranks' tokens."""
        ...

    def clip(self, model: nn.Module, max_norm: float) -> tuple[float, dict[str, float]]:
        """As `clip_by_norms`, over all parts of the model."""
        ...

    def whole(self, model: Transformer) -> Transformer:
        """The model with whole weights on every rank, to look at: itself where it is whole."""
        ...

    def agreed(self, value: ValueT) -> ValueT:
        """The main process's value, on all."""
        ...

    def wait(self) -> None:
        """Until all are here."""
        ...


class Alone:
    """One process: nothing is sent, nothing is copied."""

    is_main = True
    share = Share()
    writers = None

    def __init__(self, model: Transformer | None = None) -> None:
        """`model` saves the call of `prepare`."""
        self._model = model

    def prepare(self, model: Transformer, optimizer: OptimizerConfig) -> None:
        self._model = model

    def own(self, batch: Any) -> Any:
        return batch

    def counts(self, count: int, num_parts: int) -> tuple[int, int]:
        return count, num_parts

    def loss(self, objective: Objective[Any], batch: Any) -> LossSum:
        assert self._model is not None, "prepare comes first"
        return objective.loss(self._model, batch)

    def part(self, *, is_last: bool) -> AbstractContextManager[None]:
        return nullcontext()

    def sums(self, values: Sequence[float]) -> list[float]:
        return list(values)

    def sum_loads(self, model: nn.Module) -> None: ...

    def clip(self, model: nn.Module, max_norm: float) -> tuple[float, dict[str, float]]:
        return clip_by_norms(model, max_norm)

    def whole(self, model: Transformer) -> Transformer:
        return model

    def agreed(self, value: ValueT) -> ValueT:
        return value

    def wait(self) -> None: ...
