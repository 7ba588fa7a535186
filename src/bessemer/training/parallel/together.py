"""The processes of a layout: what they send one another in a step, besides what the model itself needs.

A step takes two small gathers (counts; losses) and one for the norm, whatever the model's size.
"""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, Replicate

from bessemer.errors import BessemerError
from bessemer.model.mixture import Mixture
from bessemer.model.transformer import Transformer
from bessemer.objectives.base import LossSum, Objective
from bessemer.training.batches import Batch
from bessemer.training.gradients import GROUPS, group_of
from bessemer.training.optimizers import OptimizerConfig
from bessemer.training.parallel.context import divide_rows, part_of_rows
from bessemer.training.parallel.data import DataParallel, distribute
from bessemer.training.parallel.layout import Layout
from bessemer.training.parallel.matrices import local
from bessemer.training.parallel.ranks import Share

ValueT = TypeVar("ValueT")


class Together:
    """The processes of a layout."""

    def __init__(self, layout: Layout) -> None:
        """Collective: makes the groups that are needed."""
        self._layout = layout
        self._tokens = layout.flat("data", "shard", "context").get_group()
        # A thread of its own sends through it, at any time, so it must be of its own, too.
        timeout = timedelta(seconds=layout.config.timeout_s)
        writers = dist.new_group(backend="gloo", timeout=timeout)
        assert isinstance(writers, dist.ProcessGroup)  # of all processes, so of this one
        self.writers: dist.ProcessGroup | None = writers
        self._parallel: DataParallel | None = None
        self.is_main = layout.rank == 0
        shard = layout.config.shard
        self.share = Share(layout.place("data") * shard + layout.place("shard"), layout.config.data * shard)

    def prepare(self, model: Transformer, optimizer: OptimizerConfig) -> None:
        if optimizer.state_bits == 8 and self._layout.config.shard > 1:
            raise BessemerError(
                "optimizer.state_bits 8 keeps blocks of codes that do not follow the shards of a parameter: "
                "set it to 32 with parallel.shard, or use parallel.data"
            )
        if self._layout.config.context > 1:
            divide_rows(model, model.config, self._layout.mesh["context"].get_group())
        self._parallel = distribute(model, self._layout)

    @property
    def _prepared(self) -> DataParallel:
        assert self._parallel is not None, "prepare comes first"
        return self._parallel

    def own(self, batch: Any) -> Any:
        size = self._layout.config.context
        if size == 1:
            return batch
        if not isinstance(batch, Batch):
            raise BessemerError(
                "parallel.context divides rows of tokens, and this stage compares whole answers: set it to 1"
            )
        return part_of_rows(batch, size, self._layout.place("context"))

    def counts(self, count: int, num_parts: int) -> tuple[int, int]:
        gathered = _gathered([float(count), float(num_parts)], self._tokens, self._device)
        return int(gathered[:, 0].sum()), int(gathered[:, 1].max())

    def loss(self, objective: Objective[Any], batch: Any) -> LossSum:
        return self._prepared.loss(objective, batch)

    def part(self, *, is_last: bool) -> AbstractContextManager[None]:
        return self._prepared.part(is_last=is_last)

    def sums(self, values: Sequence[float]) -> list[float]:
        return _gathered(values, self._tokens, self._device).sum(0).tolist()

    @torch.no_grad()
    def sum_loads(self, model: nn.Module) -> None:
        for module in model.modules():
            if isinstance(module, Mixture) and module.load_X is not None:
                dist.all_reduce(module.load_X, group=self._tokens)

    @torch.no_grad()
    def clip(self, model: nn.Module, max_norm: float) -> tuple[float, dict[str, float]]:
        named = [(name, p) for name, p in model.named_parameters() if p.grad is not None]
        gradients = [local(p.grad) for _, p in named if p.grad is not None]
        squares: dict[str, float] = dict.fromkeys(GROUPS, 0.0)
        if gradients:
            norms = torch.stack(torch._foreach_norm(gradients)).tolist()  # type: ignore[reportPrivateImportUsage]
            for (name, parameter), norm in zip(named, norms, strict=True):
                squares[group_of(name)] += norm * norm / self._num_copies(parameter)
        everyone = _gathered(list(squares.values()), dist.group.WORLD, self._device).sum(0).tolist()
        total = sum(everyone) ** 0.5
        # As torch's clip_grads_with_norm_ does; a norm that is not finite is for the guard to see.
        factor = max_norm / (total + 1e-6)
        if gradients and factor < 1:
            torch._foreach_mul_(gradients, factor)  # type: ignore[reportPrivateImportUsage]
        present = {group: square**0.5 for group, square in zip(squares, everyone, strict=True) if square}
        return total, present

    def _num_copies(self, parameter: Tensor) -> int:
        """Ranks, of all, that hold the very part of a parameter that this one does."""
        num_parts = self._layout.config.pipeline
        if isinstance(parameter, DTensor):
            sizes = zip(parameter.placements, parameter.device_mesh.shape, strict=True)
            for placement, size in sizes:
                num_parts *= 1 if isinstance(placement, Replicate) else size
        return self._layout.config.world_size // num_parts

    def whole(self, model: Transformer) -> Transformer:
        has_whole_rows = self._layout.config.context == 1
        if has_whole_rows and not any(isinstance(p, DTensor) for p in model.parameters()):
            return model
        with torch.device("meta"):
            whole = Transformer(model.config, model.compute_dtype)
        whole.load_state_dict({name: whole_tensor(t) for name, t in model.state_dict().items()}, assign=True)
        whole.rope_cos, whole.rope_sin = model.rope_cos, model.rope_sin
        whole.train(model.training)
        return whole

    def agreed(self, value: ValueT) -> ValueT:
        box = [value]
        dist.broadcast_object_list(box, src=0, device=self._device)
        return box[0]

    def wait(self) -> None:
        self.agreed(None)

    @property
    def _device(self) -> torch.device:
        kind = self._layout.mesh.device_type
        return torch.device(kind, torch.cuda.current_device()) if kind == "cuda" else torch.device(kind)


@torch.no_grad()
def whole_tensor(tensor: Tensor) -> Tensor:
    """A tensor, or all of a sharded one, on every rank of its mesh."""
    return (tensor.full_tensor() if isinstance(tensor, DTensor) else tensor).detach()


def _gathered(values: Sequence[float], group: dist.ProcessGroup | None, device: torch.device) -> Tensor:
    """Every rank's values as rows in the order of ranks, float64, equal on all ranks to the last bit: what is
    decided by them is decided alike."""
    mine = torch.tensor(values, dtype=torch.float64, device=device)
    rows = [torch.empty_like(mine) for _ in range(dist.get_world_size(group))]
    dist.all_gather(rows, mine, group=group)
    return torch.stack(rows)
