"""What one process of a layout trains: the model, or its part of it, and how gradients get there.

`Accumulating` computes micro-batches one after the other; `Pipelining` sends them through all processes that
hold a stage each. Both divide tensors, rows and experts first, where the layout does, then share out what is
left over data and shard.
"""

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from bessemer.evaluation.scores import Scores
from bessemer.model.transformer import Transformer
from bessemer.objectives.base import Objective
from bessemer.training.accumulation import accumulate
from bessemer.training.batches import Batch
from bessemer.training.parallel.collectives import sum_gradients
from bessemer.training.parallel.data import distribute, reshard, shard_model
from bessemer.training.parallel.divided import Divided
from bessemer.training.parallel.generation import Reader, WholeReader
from bessemer.training.parallel.layout import Layout
from bessemer.training.parallel.pipeline import Pipeline
from bessemer.training.parallel.pipeline_reading import PipelineReader

Fill = Callable[[Sequence[nn.Module]], None]
"""Gives values to what is held of a model in these modules, where it has none yet."""


class Trained(Protocol):
    """See the module."""

    module: nn.Module
    """What is held here, under the names of the whole model: for optimizers, norms and checkpoints."""
    called: Sequence[nn.Module]
    """What is called to compute: the model, or the stages that are held here."""
    copies: frozenset[str]
    """Parameters that another process of the pipeline holds and counts, too."""

    def gradients(
        self, objective: Objective[Any], batches: Sequence[Any], num_parts: int, factor: float
    ) -> tuple[float, dict[str, float]]:
        """As `bessemer.training.accumulation.accumulate`, with what processes have to send one another."""
        ...

    def evaluate(self, scores: Scores, batches: Sequence[Batch]) -> list[Tensor]:
        """The scores of each batch, without gradients; of rows' parts, this process's parts of the sums. All
        processes have equally many batches."""
        ...

    def reader(self, num_kv_heads: int) -> Reader:
        """What completions are drawn of, with so many key/value heads of a layer held here. What it gathers
        stays until the called modules are told to let go of it."""
        ...


class Accumulating:
    """Every process has all layers."""

    copies: frozenset[str] = frozenset()

    def __init__(self, model: Transformer, layout: Layout, divided: Divided, fill: Fill) -> None:
        self.module: nn.Module = model
        self.called: Sequence[nn.Module] = [model]
        self._model, self._divided = model, divided
        # DDP holds on to parameters; shards are to be cut first, so that nothing whole is ever filled.
        if layout.config.shard == 1:
            fill([model])
        self._parallel = distribute(model, layout, divided.divided_elsewhere(model))
        if layout.config.shard > 1:
            fill([model])

    def gradients(
        self, objective: Objective[Any], batches: Sequence[Any], num_parts: int, factor: float
    ) -> tuple[float, dict[str, float]]:
        found = accumulate(
            self._model,
            lambda batch: self._parallel.loss(objective, batch),
            batches,
            factor,
            lambda is_last: self._parallel.part(is_last=is_last),
            num_parts,
        )
        self._divided.sum_gradients(self._model)
        return found

    @torch.no_grad()
    def evaluate(self, scores: Scores, batches: Sequence[Batch]) -> list[Tensor]:
        found = [scores(self._model, batch) for batch in batches]
        reshard(self._model)
        return found

    def reader(self, num_kv_heads: int) -> Reader:
        return WholeReader(self._model, num_kv_heads)


class Pipelining:
    """Every process has some layers."""

    def __init__(
        self,
        model: Transformer,
        layout: Layout,
        divided: Divided,
        fill: Fill,
        row_tokens: int | None = None,
    ) -> None:
        """`row_tokens` of a row, by which layers are shared out evenly; the model is taken apart."""
        config = layout.config
        self._divided = divided
        group = layout.mesh["pipeline"].get_group()
        self._pipeline = Pipeline(
            model, group, config.pipeline_schedule, context=row_tokens, is_sharded=config.shard > 1
        )
        self._copied: list[Tensor] = []
        if config.shard > 1:
            elsewhere = {p for stage in self._pipeline.stages for p in divided.divided_elsewhere(stage)}
            for stage in self._pipeline.stages:
                # A stage computes again and again in a step, so it stays gathered.
                shard_model(stage, layout, elsewhere, reshard_after_forward=False)
        self.called: Sequence[nn.Module] = self._pipeline.stages
        fill(self.called)
        self.module: nn.Module = self._pipeline.held()
        self.copies = self._pipeline.copies
        if config.shard == 1 and config.data * config.context > 1:
            elsewhere = divided.divided_elsewhere(self.module)
            self._copied = [p for p in self.module.parameters() if p.requires_grad and p not in elsewhere]
            self._copies_group = layout.flat("data", "context").get_group()
            self._copies_dtype = torch.bfloat16 if config.gradient_dtype == "bfloat16" else torch.float32

    def gradients(
        self, objective: Objective[Any], batches: Sequence[Any], num_parts: int, factor: float
    ) -> tuple[float, dict[str, float]]:
        loss = self._pipeline.step(objective, batches, factor)
        if self._copied:
            sum_gradients(self._copied, self._copies_group, self._copies_dtype)
        self._divided.sum_gradients(self.module)
        return float(loss.total), loss.sums

    @torch.no_grad()
    def evaluate(self, scores: Scores, batches: Sequence[Batch]) -> list[Tensor]:
        found, at_a_time = list[Tensor](), 2 * self._pipeline.group.size()
        for start in range(0, len(batches), at_a_time):  # states of all that are under way are kept
            found += self._pipeline.scores(scores, batches[start : start + at_a_time])
        for stage in self._pipeline.stages:
            reshard(stage)
        return found

    def reader(self, num_kv_heads: int) -> Reader:
        return PipelineReader(self._pipeline, num_kv_heads)
