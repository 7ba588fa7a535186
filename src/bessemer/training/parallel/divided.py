"""The ways of a layout that divide one model, as one: tensors, rows and experts.

The order of a step: every process takes its rows' tokens (`part_of`), computes its loss and gradients, which
what sums over data, shard and context adds up but for `divided_elsewhere`, and then calls `sum_gradients`.
"""

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.distributed.tensor._utils import compute_local_shape_and_global_offset

from bessemer.model.config import ModelConfig
from bessemer.model.transformer import Transformer
from bessemer.training.batches import Batch
from bessemer.training.parallel.context import divide_rows, part_of_rows
from bessemer.training.parallel.expert import (
    divide_experts,
    divided_parameters,
    expert_mesh,
    sum_expert_gradients,
)
from bessemer.training.parallel.layout import Layout
from bessemer.training.parallel.parts import (
    Part,
    expert_part,
    is_expert_divided,
    is_tensor_divided,
    tensor_part,
    whole,
)
from bessemer.training.parallel.pieces import (
    Pieces,
    QuantizedPieces,
    Segment,
    cut_segments,
    segments_of_ranges,
)
from bessemer.training.parallel.shapes import parameter_shapes
from bessemer.training.parallel.tensor import divide_tensors, sum_undivided_gradients
from bessemer.training.quantized import Quantized


class Divided:
    """What a process does for the ways that divide a model. Every method but `part_of`, `num_parts` and
    `divided_elsewhere` is called by all processes, in the same order."""

    def __init__(self, layout: Layout, config: ModelConfig) -> None:
        self._layout, self._config = layout, config
        self._tensors, self._contexts = (layout.mesh[way].get_group() for way in ("tensor", "context"))
        self._experts = expert_mesh(layout) if layout.config.expert > 1 else None

    def divide(self, model: Transformer) -> None:
        """Divide a whole model, the same on all processes, in place; before an optimizer, DDP or FSDP.

        Raises BessemerError for what does not divide.
        """
        config = self._layout.config
        if self._experts is not None:
            divide_experts(model, self._experts["expert"].get_group())
        if config.tensor > 1:
            divide_tensors(model, self._config, self._tensors)
        if config.context > 1:
            divide_rows(model, self._config, self._contexts, config.context_kind, config.tensor)

    def part_of(self, batch: Batch) -> Batch:
        """The tokens of a micro-batch's rows that this process works on; items are counted in these."""
        if self._layout.config.context == 1:
            return batch
        return part_of_rows(batch, self._layout.config.context, self._layout.place("context"))

    def divided_elsewhere(self, model: nn.Module) -> set[nn.Parameter]:
        """Parameters whose gradients are not to be summed over data, shard and context."""
        return set(divided_parameters(model)) if self._experts is not None else set()

    def sum_gradients(self, model: nn.Module) -> None:
        """Once a step, after the last backward pass and before gradient norms are taken."""
        if self._layout.config.tensor > 1:
            sum_undivided_gradients(model, self._tensors)
        if self._experts is not None:
            sum_expert_gradients(model, self._experts["expert_copy"].get_group())

    def num_parts(self, name: str) -> int:
        """Into how many parts these ways divide a parameter."""
        config = self._layout.config
        tensor = config.tensor if is_tensor_divided(name) else 1
        return tensor * (config.expert if is_expert_divided(name) else 1)

    def is_joined_for_updates(self, name: str) -> bool:
        """Whether what is held of a matrix is less than a whole one: Muon needs all of it."""
        return self._layout.config.tensor > 1 and is_tensor_divided(name)

    def whole(self, name: str, part: Tensor) -> Tensor:
        """A parameter, or what has its shape, from the parts of all processes, on each of them. What FSDP
        has sharded is given with its shards joined."""
        if self._experts is not None:
            part = whole(part, lambda shape, at: self._expert_part(name, shape, at), self._expert_group)
        return whole(part, lambda shape, at: self._tensor_part(name, shape, at), self._tensors)

    def part(self, name: str, whole_value: Tensor) -> Tensor:
        """The part of a whole parameter, or of what has its shape, that this process holds: of `whole`, the
        reverse."""
        tensors = self._tensor_part(name, whole_value.shape, self._layout.place("tensor"))
        value = whole_value if tensors is None else tensors.of(whole_value)
        if self._experts is None:
            return value
        experts = self._expert_part(name, value.shape, self._expert_group.rank())
        return value if experts is None else experts.of(value)

    def pieces(self, name: str, value: Tensor | Quantized) -> Tensor:
        """What is held of a parameter, or of what has its shape, as checkpoints take it: with the places of
        its pieces in the whole. Shares its memory."""
        is_divided = self.num_parts(name) > 1
        if isinstance(value, Quantized):
            whole_shape = parameter_shapes(self._config)[name] if is_divided else value.codes.shape
            return QuantizedPieces.of_quantized(value, whole_shape, self.segments(name, value.codes))
        if not is_divided:
            return value
        segments = self.segments(name, value)
        held = value.to_local() if isinstance(value, DTensor) else value
        return Pieces.of(held.detach(), parameter_shapes(self._config)[name], segments)

    def segments(self, name: str, value: Tensor) -> list[list[Segment]]:
        """Where what is held of a parameter, or of what has its shape, lies in the whole, by dimension."""
        segments = [[Segment(0, 0, size)] for size in value.shape]
        if self.num_parts(name) > 1:
            whole_shape = torch.Size(parameter_shapes(self._config)[name])
            parts: list[Part | None] = [self._tensor_part(name, whole_shape, self._layout.place("tensor"))]
            if self._experts is not None:
                parts.append(self._expert_part(name, whole_shape, self._expert_group.rank()))
            for part in parts:
                if part is not None:
                    segments[part.dim] = segments_of_ranges(part.ranges)
        if isinstance(value, DTensor):
            sizes, starts = compute_local_shape_and_global_offset(
                value.shape, value.device_mesh, value.placements
            )
            segments = [
                cut_segments(each, start, start + size)
                for each, start, size in zip(segments, starts, sizes, strict=True)
            ]
        return segments

    @property
    def _expert_group(self) -> torch.distributed.ProcessGroup:
        assert self._experts is not None
        return self._experts["expert"].get_group()

    def _tensor_part(self, name: str, shape: torch.Size, place: int) -> Part | None:
        if self._layout.config.tensor == 1:
            return None
        return tensor_part(name, shape, self._config, self._layout.config.tensor, place)

    def _expert_part(self, name: str, shape: torch.Size, place: int) -> Part | None:
        return expert_part(name, shape, self._layout.config.expert, place)
