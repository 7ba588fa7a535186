"""Whole tensors of a model that processes hold parts of, one at a time."""

from collections.abc import Iterator, Mapping

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed import ProcessGroup
from torch.distributed.tensor import DTensor

from bessemer.model.transformer import Transformer
from bessemer.training.parallel.divided import Divided


class JoinedWeights(Mapping[str, Tensor]):
    """By the names of the whole model. A look-up is collective: parts are joined where they are held, and
    sent along the pipeline from there; every process has the tensor, until it lets go of it."""

    def __init__(
        self, model: nn.Module, divided: Divided, pipeline: ProcessGroup, device: torch.device
    ) -> None:
        """`model` is what is held here. Collective over the pipeline."""
        self._divided, self._pipeline, self._device = divided, pipeline, device
        self._held: dict[str, Tensor] = model.state_dict()
        self._shapes = Transformer.without_values(model.config).state_dict()  # type: ignore[reportArgumentType]
        is_here = torch.tensor(
            [name in self._held for name in self._shapes], dtype=torch.uint8, device=device
        )
        everyone = [torch.empty_like(is_here) for _ in range(pipeline.size())]
        dist.all_gather(everyone, is_here, group=pipeline)
        first_holders = torch.stack(everyone).argmax(dim=0).tolist()
        self._holders: dict[str, int] = dict(zip(self._shapes, first_holders, strict=True))

    def __getitem__(self, name: str) -> Tensor:
        holder = self._holders[name]
        if holder == self._pipeline.rank():
            value = self._divided.whole(name, whole_tensor(self._held[name])).contiguous()
        else:
            shape = self._shapes[name]
            value = torch.empty(shape.shape, dtype=shape.dtype, device=self._device)
        if self._pipeline.size() > 1:
            dist.broadcast(value, group=self._pipeline, group_src=holder)
        return value

    def __iter__(self) -> Iterator[str]:
        return iter(self._shapes)

    def __len__(self) -> int:
        return len(self._shapes)


@torch.no_grad()
def whole_tensor(tensor: Tensor) -> Tensor:
    """A tensor, or all of a sharded one, on every rank of its mesh."""
    return (tensor.full_tensor() if isinstance(tensor, DTensor) else tensor).detach()
