"""What the training loop asks of the processes that train together, and what one alone answers."""

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

from torch import Tensor, nn
from torch.distributed import ProcessGroup

from bessemer.evaluation.scores import Evaluate, evaluate_alone
from bessemer.inference.sampling import SamplingParams
from bessemer.model.config import ModelConfig
from bessemer.model.transformer import Transformer
from bessemer.model.weights import Weights
from bessemer.objectives.base import LossSum, Objective
from bessemer.training.accumulation import accumulate
from bessemer.training.gradients import clip_by_norms
from bessemer.training.optimizers import JoinedMatrix, OptimizerConfig
from bessemer.training.parallel.materialize import fill, materialize, whole_segments
from bessemer.training.parallel.pieces import QuantizedPieces
from bessemer.training.quantized import Quantized

ValueT = TypeVar("ValueT")


Generate = Callable[[Sequence[Sequence[int]], SamplingParams, int, set[int]], list[list[int]]]
"""Prompts, how to draw, a seed and stop tokens; the tokens after each prompt, as `Engine.generate` draws
them."""


def any_number(num_parts: int, num_rows: int) -> int:
    """Any number of micro-batches suits."""
    return num_parts


@dataclass(frozen=True)
class Share:
    """The rows of a step that fall to one of several takers: consecutive ones, as even as can be."""

    place: int = 0
    of: int = 1
    fit: Callable[[int, int], int] = any_number
    """Takes the micro-batches wanted and the rows that every taker has at least; how many micro-batches
    suit."""

    def rows(self, numbers: range) -> range:
        """This taker's part of the rows' numbers."""
        return numbers[len(numbers) * self.place // self.of : len(numbers) * (self.place + 1) // self.of]

    def num_parts(self, num_parts: int) -> int:
        """Micro-batches of this taker where one alone would have `num_parts`."""
        return -(-num_parts // self.of)

    def most_rows(self, num_rows: int) -> int:
        """Rows of the taker that gets most of `num_rows`."""
        return -(-num_rows // self.of)

    def fitting(self, num_parts: int, num_rows: int) -> int:
        """Micro-batches for each taker's part of `num_rows` rows: `num_parts`, or the number nearest that
        suits. The same for all takers."""
        return self.fit(num_parts, num_rows // self.of)


@dataclass(frozen=True)
class View:
    """A model to look at, whoever holds it. All ranks ask the same, in the same order."""

    config: ModelConfig
    evaluate: Evaluate
    """Applies a way of scoring to batches."""
    weights: Mapping[str, Tensor]
    """Whole tensors by name. Where nobody has the whole, every look-up joins one, on all ranks."""
    whole: Transformer | None
    """The model itself, where this rank has all of it."""
    generate: Generate | None = None
    """Completes prompts, where nobody has the whole model."""


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

    def prepare(
        self,
        model: Transformer,
        optimizer: OptimizerConfig,
        row_tokens: int | None = None,
        weights: Weights | None = None,
    ) -> nn.Module:
        """Distribute the model, whose rows have `row_tokens` tokens; what this process holds of it, to be
        trained. Before its optimizers are made.

        A model without values gets those of `weights`: no process has more of it at any time than its part
        and one tensor.
        """
        ...

    def joined(self, model: nn.Module) -> Mapping[Tensor, JoinedMatrix]:
        """Matrices of which this process has parts, for its optimizers."""
        ...

    def pieces(self, name: str, value: Tensor | Quantized) -> Tensor:
        """What is held of a parameter, or of what has its shape, as checkpoints take it."""
        ...

    def own(self, batch: Any) -> Any:
        """What this process works on of a micro-batch of its rows: a part of each row, where rows are
        divided. Items are counted in it."""
        ...

    def counts(self, count: int, num_parts: int) -> tuple[int, int]:
        """Items over all ranks, and micro-batches of the rank that has most."""
        ...

    def gradients(
        self, objective: Objective[Any], batches: Sequence[Any], num_parts: int, factor: float
    ) -> tuple[float, dict[str, float]]:
        """Add the gradients of the micro-batches' losses, times `factor`, to those of the parameters: after
        it they are those of all ranks. This rank's summed losses, and further sums. No rank has more than
        `num_parts` micro-batches."""
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

    def view(self, model: nn.Module) -> View:
        """What may be asked of the prepared model, as its weights are now."""
        ...

    def fill(self, model: nn.Module, weights: Weights, names: Collection[str]) -> None:
        """Give what is held of these tensors of the prepared model other values."""
        ...

    def check_shared(self, folder: Path) -> None:
        """Raises BessemerError, on all, where a process does not see the main one's folder."""
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

    def prepare(
        self,
        model: Transformer,
        optimizer: OptimizerConfig,
        row_tokens: int | None = None,
        weights: Weights | None = None,
    ) -> nn.Module:
        if weights is not None:
            materialize([model], weights, model.device)
        self._model = model
        return model

    def joined(self, model: nn.Module) -> Mapping[Tensor, JoinedMatrix]:
        return {}

    def pieces(self, name: str, value: Tensor | Quantized) -> Tensor:
        if isinstance(value, Tensor):
            return value
        segments = whole_segments(name, value.codes)
        return QuantizedPieces.of_quantized(value, value.codes.shape, segments)

    def own(self, batch: Any) -> Any:
        return batch

    def counts(self, count: int, num_parts: int) -> tuple[int, int]:
        return count, num_parts

    def gradients(
        self, objective: Objective[Any], batches: Sequence[Any], num_parts: int, factor: float
    ) -> tuple[float, dict[str, float]]:
        model = self._model
        assert model is not None, "prepare comes first"

        def loss_of(batch: Any) -> LossSum:
            return objective.loss(model, batch)

        return accumulate(model, loss_of, batches, factor, lambda is_last: nullcontext(), num_parts)

    def sums(self, values: Sequence[float]) -> list[float]:
        return list(values)

    def sum_loads(self, model: nn.Module) -> None: ...

    def clip(self, model: nn.Module, max_norm: float) -> tuple[float, dict[str, float]]:
        return clip_by_norms(model, max_norm)

    def view(self, model: nn.Module) -> View:
        assert isinstance(model, Transformer)
        return View(model.config, evaluate_alone(model), model.state_dict(), model)

    def fill(self, model: nn.Module, weights: Weights, names: Collection[str]) -> None:
        fill({name: value for name, value in model.state_dict().items() if name in names}, weights)

    def check_shared(self, folder: Path) -> None: ...

    def agreed(self, value: ValueT) -> ValueT:
        return value

    def wait(self) -> None: ...
