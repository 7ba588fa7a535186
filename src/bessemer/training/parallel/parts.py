"""Which part of each parameter a process holds where tensors or experts are divided.

A part is one or more ranges of the parameter's rows or columns, laid end to end. The joint matrices have
several: of queries, keys and values a process takes its heads from each, of gate and up its share from each.
Shares are as even as can be and need not divide.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed import ProcessGroup

from bessemer.model.config import ModelConfig

# The dimension that is divided, counted from the end, so that matrices and stacks of them are alike.
_DIVIDED = {
    "embedding": -2,
    "head": -2,
    "qkv": -2,
    "qkv_bias": -1,
    "attention_out": -1,
    "gate_up": -2,
    "gate_up_bias": -1,
    "shared_gate_up": -2,
    "up": -2,
    "up_bias": -1,
    "down": -1,
    "shared_down": -1,
}
_EXPERTS = ("gate_up", "down")


@dataclass(frozen=True)
class Part:
    """Ranges along one dimension of a whole parameter."""

    dim: int
    """Counted from the end."""
    ranges: tuple[tuple[int, int], ...]
    """(start, stop) in the whole, in the order in which they lie in the part."""

    @property
    def length(self) -> int:
        """Of the part along `dim`."""
        return sum(stop - start for start, stop in self.ranges)

    def of(self, whole: Tensor) -> Tensor:
        """A copy of the part."""
        pieces = [whole.narrow(self.dim, start, stop - start) for start, stop in self.ranges]
        return torch.cat(pieces, dim=self.dim)

    def put(self, part: Tensor, whole: Tensor) -> None:
        """Write the part to its place in the whole."""
        pieces = part.split([stop - start for start, stop in self.ranges], dim=self.dim)
        for (start, stop), piece in zip(self.ranges, pieces, strict=True):
            whole.narrow(self.dim, start, stop - start).copy_(piece)


PartAt = Callable[[torch.Size, int], Part | None]
"""The part of a parameter of the given whole shape at a place; None where each place has all of it."""


def share(total: int, size: int, place: int) -> tuple[int, int]:
    """The range of `total` things that falls to the process at `place` of `size`; the first have one more
    where they do not divide."""
    base, more = divmod(total, size)
    start = place * base + min(place, more)
    return start, start + base + (place < more)


def is_tensor_divided(name: str) -> bool:
    """Whether tensor parallelism divides the parameter."""
    return _kind(name) in _DIVIDED


def is_expert_divided(name: str) -> bool:
    """Whether expert parallelism divides the parameter: a stack of all experts' matrices."""
    return ".mixture." in f".{name}" and _kind(name) in _EXPERTS


def tensor_part(name: str, shape: torch.Size, config: ModelConfig, size: int, place: int) -> Part | None:
    """The part of a parameter, of the whole `shape`, at `place` of `size` processes that divide every matrix;
    None where each holds all of it."""
    if not is_tensor_divided(name):
        return None
    kind = _kind(name)
    dim = _DIVIDED[kind]
    if kind in ("qkv", "qkv_bias"):
        return Part(dim, _heads(config, size, place))
    if kind == "attention_out":
        return Part(dim, _heads(config, size, place)[:1])
    if kind in ("gate_up", "gate_up_bias", "shared_gate_up"):
        width = shape[dim] // 2
        start, stop = share(width, size, place)
        return Part(dim, ((start, stop), (width + start, width + stop)))
    return Part(dim, (share(shape[dim], size, place),))


def expert_part(name: str, shape: torch.Size, size: int, place: int) -> Part | None:
    """The same for `size` processes that divide the experts."""
    return Part(-3, (share(shape[-3], size, place),)) if is_expert_divided(name) else None


def keep_parts(module: nn.Module, part_of: Callable[[str, torch.Size], Part | None]) -> None:
    """Put parts in the place of the module's own parameters, not those of modules within it. `part_of` is
    given a parameter's name and shape; None leaves it whole."""
    for name, parameter in list(module.named_parameters(recurse=False)):
        part = part_of(name, parameter.shape)
        if part is not None:
            kept = nn.Parameter(part.of(parameter.detach()), requires_grad=parameter.requires_grad)
            setattr(module, name, kept)


@torch.no_grad()
def whole(part: Tensor, part_at: PartAt, group: ProcessGroup) -> Tensor:
    """The whole parameter from the parts that the processes of the group hold, on each of them."""
    own = part_at(part.shape, 0)
    if own is None:
        return part
    length = torch.tensor(part.shape[own.dim], device=part.device)
    dist.all_reduce(length, group=group)
    joined = part.new_empty(_with_length(part.shape, own.dim, int(length)))
    for place in range(group.size()):
        other = part_at(joined.shape, place)
        assert other is not None
        is_own = place == group.rank()
        piece = (
            part.contiguous() if is_own else part.new_empty(_with_length(part.shape, own.dim, other.length))
        )
        dist.broadcast(piece, group=group, group_src=place)
        other.put(piece, joined)
    return joined


def _with_length(shape: torch.Size, dim: int, length: int) -> torch.Size:
    sizes = list(shape)
    sizes[dim] = length
    return torch.Size(sizes)


def _kind(name: str) -> str:
    return name.rpartition(".")[2]


def _heads(config: ModelConfig, size: int, place: int) -> tuple[tuple[int, int], ...]:
    """Rows of this process's queries, keys and values."""
    width, num_heads, num_kv_heads = config.head_dim, config.num_attention_heads, config.num_key_value_heads
    ranges, first = [], 0
    for count in (num_heads, num_kv_heads, num_kv_heads):
        start, stop = share(count, size, place)
        ranges.append(((first + start) * width, (first + stop) * width))
        first += count
    return tuple(ranges)
