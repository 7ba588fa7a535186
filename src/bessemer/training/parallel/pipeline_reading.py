"""Completions of a model whose layers processes divide: new tokens pass through the stages one after the
other, each of which keeps the keys and values of its own layers; what is drawn after the last goes to all.

A token waits for the one before it, so but one process computes at a time.

Shapes: B rows, T tokens, D hidden, V vocabulary, K key/value heads, E head dimension.
"""

from collections.abc import Sequence
from typing import Any, cast

import torch
import torch.distributed as dist
from torch import Tensor

from bessemer.inference.cache import KeyValueCache
from bessemer.training.parallel.pipeline import Pipeline
from bessemer.training.parallel.pipeline_stage import Layers, Reading


class StagesCache(KeyValueCache):
    """Keys and values of some of a model's layers."""

    def __init__(self, layers: Sequence[int], *args: Any) -> None:
        """`layers` by their numbers in the model; then as `KeyValueCache`, of as many layers."""
        super().__init__(*args)
        self._places = {layer: place for place, layer in enumerate(layers)}

    def store(self, layer: int, k_BTKE: Tensor, v_BTKE: Tensor) -> tuple[Tensor, Tensor]:
        return super().store(self._places[layer], k_BTKE, v_BTKE)


class PipelineReader:
    """This process's stages as a model that goes on from a cache."""

    def __init__(self, pipeline: Pipeline, num_kv_heads: int) -> None:
        """`num_kv_heads` key/value heads of a layer are held here."""
        self._pipeline, self._num_kv_heads = pipeline, num_kv_heads
        self.config, self.device = pipeline.stages[0].config, pipeline.device
        self._compute_dtype = pipeline.stages[0].compute_dtype
        pipeline.renew_copy()

    def new_cache(self, num_rows: int, num_slots: int) -> KeyValueCache:
        all_blocks = [cast(Layers, stage.blocks) for stage in self._pipeline.stages]
        layers = [number for blocks in all_blocks for number, _ in blocks.numbered()]
        sizes = {"num_hidden_layers": len(layers), "num_key_value_heads": self._num_kv_heads}
        held = self.config.model_copy(update=sizes)
        return StagesCache(layers, held, num_rows, num_slots, self._compute_dtype, self.device)

    def hidden(self, token_ids_BT: Tensor, cache: KeyValueCache) -> Tensor | None:
        pipeline, rank = self._pipeline, self._pipeline.group.rank()
        shape = (*token_ids_BT.shape, self.config.hidden_size)
        x_BTD: Tensor | None = None
        for stage in pipeline.stages:
            before, after = stage.number - 1, stage.number + 1
            if not stage.is_first and (source := pipeline.process_of(before)) != rank:
                x_BTD = torch.empty(shape, dtype=self._compute_dtype, device=self.device)
                dist.recv(x_BTD, group=pipeline.group, group_src=source)
            stage.work = Reading(token_ids_BT, cache)
            received = () if x_BTD is None else (x_BTD,)
            after_BTD: Tensor = stage(*received, number=torch.tensor([0]))
            stage.work, x_BTD = None, after_BTD
            if not stage.is_last and (target := pipeline.process_of(after)) != rank:
                dist.send(after_BTD.contiguous(), group=pipeline.group, group_dst=target)
                x_BTD = None
        return x_BTD if pipeline.holds_last else None

    def logits(self, hidden_BD: Tensor) -> Tensor:
        return self._pipeline.stages[-1].logits(hidden_BD)

    def shared(self, tokens_B: Tensor) -> Tensor:
        last = self._pipeline.process_of(self._pipeline.num_stages - 1)
        dist.broadcast(tokens_B, group=self._pipeline.group, group_src=last)
        return tokens_B
