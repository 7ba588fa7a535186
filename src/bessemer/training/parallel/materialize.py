"""Memory and values for what a process holds of a model that has none: see `Transformer.without_values`.

A model is cut, divided and sharded on the meta device first, so that no process ever has more of it than its
own part, and beside that one tensor at a time.
"""

from collections.abc import Callable, Sequence
from itertools import product

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from bessemer.model.weights import Weights
from bessemer.training.parallel.pieces import Segment

SegmentsOf = Callable[[str, Tensor], Sequence[Sequence[Segment]]]
"""Where what is held of a tensor lies in the whole, by dimension; given its name and what is held."""


def whole_segments(name: str, value: Tensor) -> list[list[Segment]]:
    """All of it is held."""
    return [[Segment(0, 0, size)] for size in value.shape]


def materialize(
    modules: Sequence[nn.Module],
    weights: Weights,
    device: torch.device,
    segments: SegmentsOf = whole_segments,
    parameter_device: torch.device | None = None,
) -> None:
    """Put tensors with memory and values in the place of those on the meta device.

    `modules` together have the names of the whole model; what two of them share stays shared, and of two
    tensors of one name the first gets values. Parameters come to lie on `parameter_device`, where that is
    another than that of buffers. Before anything holds on to the parameters, but after FSDP, which looks them
    up again before its first pass.
    """
    held: dict[str, Tensor] = {}
    made: dict[Tensor, Tensor] = {}
    for root in modules:
        for prefix, module in root.named_modules():
            tensors = [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]
            for name, tensor in tensors:
                if not tensor.is_meta:
                    continue
                if tensor not in made:
                    is_buffer = not isinstance(tensor, nn.Parameter)
                    made[tensor] = _empty(tensor, device if is_buffer else parameter_device or device)
                    held.setdefault(f"{prefix}.{name}" if prefix else name, made[tensor])
                setattr(module, name, made[tensor])
    fill(held, weights, segments)


@torch.no_grad()
def fill(held: dict[str, Tensor], weights: Weights, segments: SegmentsOf = whole_segments) -> None:
    """Copy the values of what is held of tensors, by name."""
    places = {name: list(product(*segments(name, tensor))) for name, tensor in held.items()}
    wanted = {
        name: [tuple(slice(part.whole, part.whole + part.length) for part in piece) for piece in pieces]
        for name, pieces in places.items()
        if pieces
    }
    for name, number, value in weights.read(wanted):
        tensor = held[name]
        target = tensor.to_local() if isinstance(tensor, DTensor) else tensor.detach()
        for dim, part in enumerate(places[name][number]):
            target = target.narrow(dim, part.here, part.length)
        target.copy_(value)
        del value


def _empty(tensor: Tensor, device: torch.device) -> Tensor:
    made = torch.empty_like(tensor, device=device)
    return nn.Parameter(made, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else made
