"""A part of a model: consecutive layers, with the embedding before the first and the head after the last.

A stage is given a number, of the micro-batch; tokens, documents and positions of all micro-batches are at
hand on every stage, so that only hidden states travel. With experts, so do sums over the tokens of how they
were used: the loss that balances them is a mean over all layers.

Shapes: B rows, T tokens, D hidden, X experts, L earlier layers with experts.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bessemer.model.config import ModelConfig
from bessemer.model.mixture import Routing
from bessemer.model.transformer import Cache, Transformer
from bessemer.objectives.base import LossSum, Objective
from bessemer.training.batches import Batch


@dataclass
class Work:
    """What the stages of one process do in a step."""

    objective: Objective[Any]
    batches: Sequence[Any]
    """Micro-batches, each a Batch or with one as its `batch`."""
    factor: float = 1.0
    """On the loss before its gradients are taken."""
    losses: dict[int, LossSum] = field(default_factory=dict)
    """By number of the micro-batch, where the last stage is held."""

    def total(self) -> LossSum:
        """The sums over all micro-batches; the total is float64 and has no gradient."""
        total, sums = 0.0, {}
        for number in sorted(self.losses):
            loss = self.losses[number]
            total += float(loss.total)
            for name, value in loss.sums.items():
                sums[name] = sums.get(name, 0.0) + value
        return LossSum(torch.tensor(total, dtype=torch.float64), sums)


@dataclass
class Reading:
    """What the stages of one process do for completions."""

    token_ids_BT: Tensor
    """They continue the rows of the cache."""
    cache: Cache


def rows_of(batch: Any) -> Batch:
    """The tokens of a micro-batch of any objective."""
    return batch if isinstance(batch, Batch) else batch.batch


class Layers(nn.ModuleList):
    """Layers of a model under their numbers there, so that parameters keep their names."""

    def __init__(self, layers: Mapping[int, nn.Module]) -> None:
        super().__init__()
        for number in sorted(layers):
            self.add_module(str(number), layers[number])

    def __getitem__(self, number: int) -> nn.Module:  # type: ignore[override]
        return self._modules[str(number)]  # type: ignore[return-value]

    def numbered(self) -> Iterator[tuple[int, nn.Module]]:
        """Each layer with its number."""
        for number, layer in self._modules.items():
            assert layer is not None
            yield int(number), layer


class Stage(Transformer):
    """A part of a model; shares the model's parameters, under the same names."""

    def __init__(
        self,
        model: Transformer,
        number: int,
        num_stages: int,
        layers: range,
        *,
        has_own_embedding: bool = False,
    ) -> None:
        """`has_own_embedding`: in a process that has the first stage too, the last gets a copy where it needs
        one."""
        nn.Module.__init__(self)
        self.number, self.is_first, self.is_last = number, number == 0, number == num_stages - 1
        self.config, self.compute_dtype = model.config, model.compute_dtype
        self.around_block, self.division, self.rows = model.around_block, model.division, model.rows
        self.work: Work | Reading | None = None
        self.num_earlier_mixtures = sum(model.config.is_mixture(layer) for layer in range(layers.start))
        # The blocks for future tokens embed the tokens again.
        looks_up_again = model.head is None or len(model.future) > 0
        needs_embedding = self.is_first or (self.is_last and looks_up_again)
        self.has_copy = has_own_embedding and needs_embedding and not self.is_first
        """Whether the embedding is one more copy of that of this process's first stage."""
        embedding = model.embedding if needs_embedding else None
        if self.has_copy:
            embedding = nn.Parameter(model.embedding.detach().clone(), model.embedding.requires_grad)
        self.register_parameter("embedding", embedding)
        self.register_parameter("positions", model.positions if self.is_first else None)
        self.blocks = Layers({layer: model.blocks[layer] for layer in layers})
        for name in ("final_norm", "final_norm_bias", "head"):
            self.register_parameter(name, getattr(model, name) if self.is_last else None)
        self.future = model.future if self.is_last else nn.ModuleList()
        self.register_buffer("rope_cos", model.rope_cos, persistent=False)
        self.register_buffer("rope_sin", model.rope_sin, persistent=False)

    def forward(self, *received: Tensor, number: Tensor) -> Tensor | tuple[Tensor, ...]:  # type: ignore[override]
        """The micro-batch `number` through this stage: what the next one is to receive, or the loss.

        Hidden states have the shape of the step's largest micro-batch, [B, T, D], however many rows are
        filled. The loss is the objective's sum times the work's factor, a scalar.

        Of `Reading` there is one, whatever the number, and hidden states have its shape; the last stage gives
        those after the final norm.
        """
        work, index = self.work, int(number)
        if isinstance(work, Reading):
            return self._read(received, work.token_ids_BT, work.cache)
        assert work is not None
        batch = work.batches[index]
        if self.is_last:
            # To the objective this is the whole model.
            loss = work.objective.loss(cast(Transformer, _Whole(self, received)), batch)
            work.losses[index] = LossSum(loss.total.detach(), loss.sums)
            return loss.total * work.factor
        rows, routings = rows_of(batch), list[Routing]()
        x_BTD = self.states(received, rows.token_ids_BT, rows.documents_BT, rows.positions_BT, routings)
        num_rows, num_tokens = self.largest_shape(work.batches)
        short_rows, short_tokens = num_rows - x_BTD.shape[0], num_tokens - x_BTD.shape[1]
        if short_rows or short_tokens:
            x_BTD = F.pad(x_BTD, (0, 0, 0, short_tokens, 0, short_rows))
        return (x_BTD, _sums_of(routings)) if routings else x_BTD

    def states(
        self,
        received: tuple[Tensor, ...],
        token_ids_BT: Tensor,
        documents_BT: Tensor | None,
        positions_BT: Tensor | None,
        routings: list[Routing] | None,
    ) -> Tensor:
        """Hidden states after this stage's layers; `routings` gets those of all layers so far."""
        if self.is_first:
            x_BTD = self._embed(token_ids_BT, positions_BT)
        else:
            num_rows, num_tokens = self.division.own(token_ids_BT).shape
            x_BTD = received[0][:num_rows, :num_tokens].contiguous()
            if len(received) > 1 and routings is not None:
                routings += [EarlierRouting.of(sums_2X, num_rows * num_tokens) for sums_2X in received[1]]
        return self._through_blocks(x_BTD, token_ids_BT, documents_BT, positions_BT, None, routings)

    def _read(self, received: tuple[Tensor, ...], token_ids_BT: Tensor, cache: Cache) -> Tensor:
        """Hidden states [B, T, D] after this stage's layers, of tokens that continue the cache's rows."""
        positions_BT = cache.positions(token_ids_BT.shape[1])
        x_BTD = self._embed(token_ids_BT, positions_BT) if self.is_first else received[0]
        x_BTD = self._through_blocks(x_BTD, token_ids_BT, None, positions_BT, cache, None)
        return self.normed(x_BTD) if self.is_last else x_BTD

    def largest_shape(self, batches: Sequence[Any]) -> tuple[int, int]:
        """Rows and tokens of the hidden states that travel: the most of any micro-batch."""
        shapes = [self.division.own(rows_of(batch).token_ids_BT).shape for batch in batches]
        return max(shape[0] for shape in shapes), max(shape[1] for shape in shapes)

    def received_shapes(self, batches: Sequence[Any]) -> list[tuple[tuple[int, ...], torch.dtype]]:
        """Shapes and types of what this stage receives."""
        if self.is_first:
            return []
        return self._travelling(batches, self.num_earlier_mixtures)

    def sent_shapes(self, batches: Sequence[Any]) -> list[tuple[tuple[int, ...], torch.dtype]]:
        """Shapes and types of what this stage sends; of the loss, for the last."""
        if self.is_last:
            return [((), torch.float32)]
        own = sum(self.config.is_mixture(layer) for layer, _ in cast(Layers, self.blocks).numbered())
        return self._travelling(batches, self.num_earlier_mixtures + own)

    def _travelling(
        self, batches: Sequence[Any], num_mixtures: int
    ) -> list[tuple[tuple[int, ...], torch.dtype]]:
        states = ((*self.largest_shape(batches), self.config.hidden_size), self.compute_dtype)
        if self.config.mixture is None or not num_mixtures:
            return [states]
        return [states, ((num_mixtures, 2, self.config.mixture.num_experts), torch.float32)]


class _Whole:
    """The last stage as the model that an objective is given: called, it goes on from what was received."""

    def __init__(self, stage: Stage, received: tuple[Tensor, ...]) -> None:
        self._stage, self._received = stage, received

    def __call__(
        self,
        token_ids_BT: Tensor,
        documents_BT: Tensor | None = None,
        positions_BT: Tensor | None = None,
        cache: None = None,
        routings: list[Routing] | None = None,
    ) -> Tensor:
        """As `Transformer.forward`; without a cache."""
        assert cache is None
        stage = self._stage
        x_BTD = stage.states(self._received, token_ids_BT, documents_BT, positions_BT, routings)
        return stage.normed(x_BTD)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stage, name)


@dataclass(frozen=True)
class EarlierRouting(Routing):
    """What is left of the routing of a layer of an earlier stage: sums over its tokens."""

    earlier_load_X: Tensor

    @property
    def load_X(self) -> Tensor:
        return self.earlier_load_X

    @classmethod
    def of(cls, sums_2X: Tensor, num_tokens: int) -> "EarlierRouting":
        """From the loads and the summed probabilities, of `num_tokens` tokens."""
        load_X, probability_X = sums_2X
        none_NK = torch.empty(num_tokens, 0, dtype=torch.int64, device=sums_2X.device)
        # One row, whose sum over rows is that of all tokens.
        return cls(probability_X.unsqueeze(0), none_NK.float(), none_NK, load_X.detach())


def _sums_of(routings: Sequence[Routing]) -> Tensor:
    """Loads and summed probabilities of each layer, [L, 2, X]."""
    return torch.stack([torch.stack((r.load_X, r.probabilities_NX.sum(0))) for r in routings])


class Held(nn.Module):
    """All that a process holds of a model, under the names of the whole: for optimizers, norms and
    checkpoints."""

    def __init__(self, stages: Sequence[Stage]) -> None:
        super().__init__()
        self.config: ModelConfig = stages[0].config
        self.compute_dtype = stages[0].compute_dtype
        for stage in stages:
            for name, parameter in stage.named_parameters(recurse=False):
                if stage.has_copy and name == "embedding":
                    continue
                assert getattr(self, name, parameter) is parameter, f"two stages hold a {name} of their own"
                self.register_parameter(name, parameter)
        self.blocks = Layers(dict(item for stage in stages for item in cast(Layers, stage.blocks).numbered()))
        self.future = stages[-1].future
