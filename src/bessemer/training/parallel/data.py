"""Processes that see different rows: whole copies of the model (DDP), or shards of it (FSDP2 as ZeRO).

Gradients are summed over the ranks, never averaged: the loop has divided the loss by the count of all
ranks' items already. What is shared out, and what each way keeps and sends (Rajbhandari et al. 2020,
arXiv:1910.02054, section 7; P parameters, per step of M micro-batches, forward and backward):

    way      kept whole by a rank       gathers of P    reductions of P
    DDP      weights, gradients, state  none            1 all-reduce
    zero: 1  weights, gradients         1               1 reduce-scatter
    zero: 2  weights                    1               M reduce-scatters
    zero: 3  one block's weights        2 M             M reduce-scatters

Gradients of accumulated micro-batches stay whole where the way keeps them whole anyway, and are reduced
once; otherwise each is reduced as it comes. Ranks that split a row's tokens (context) hold parts of one
gradient just as those with different rows do, so they are summed over, and sharded over, alike.
"""

from collections.abc import Collection, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, Protocol

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch._C._distributed_c10d import GradBucket
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import (
    CPUOffloadPolicy,
    FSDPModule,
    MixedPrecisionPolicy,
    OffloadPolicy,
    fully_shard,
)
from torch.nn.parallel import DistributedDataParallel

from bessemer.model.transformer import Transformer
from bessemer.objectives.base import LossSum, Objective
from bessemer.training.parallel.layout import Layout


class DataParallel(Protocol):
    """How a model computes losses whose gradients are summed over ranks in the backward pass."""

    def loss(self, objective: Objective[Any], batch: Any) -> LossSum:
        """This rank's summed loss of a micro-batch."""
        ...

    def part(self, *, is_last: bool) -> AbstractContextManager[None]:
        """Around forward and backward of one micro-batch of a step; all ranks have equally many."""
        ...


def distribute(model: Transformer, layout: Layout, left_out: Collection[nn.Parameter] = ()) -> DataParallel:
    """Split the work on `model` by the layout's data, shard and context ways; the model is changed in place.
    Gradients of the parameters `left_out` are not summed here.

    All ranks must hold the same weights: nothing is sent.
    """
    config = layout.config
    if config.shard == 1:
        if config.data * config.context == 1:
            return Whole(model)
        return Copies(model, layout, left_out)
    return Shards(model, layout, left_out)


class Whole:
    """One process sees every row: nothing to sum."""

    def __init__(self, model: Transformer) -> None:
        self._model = model

    def loss(self, objective: Objective[Any], batch: Any) -> LossSum:
        return objective.loss(self._model, batch)

    def part(self, *, is_last: bool) -> AbstractContextManager[None]:
        return nullcontext()


class Copies:
    """DDP: every rank holds the model; gradients are summed in buckets while the backward pass goes on."""

    def __init__(self, model: Transformer, layout: Layout, left_out: Collection[nn.Parameter] = ()) -> None:
        self._group = layout.flat("data", "context").get_group()
        losses = _Losses(model)
        names = [name for name, parameter in losses.named_parameters() if parameter in set(left_out)]
        DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(losses, names)
        self._losses = DistributedDataParallel(
            losses,
            process_group=self._group,
            forward_sync_buffers=False,
            init_sync=False,  # weights come from one seed or one folder
            gradient_as_bucket_view=True,
        )
        hook = _summed_in_bfloat16 if layout.config.gradient_dtype == "bfloat16" else _summed
        self._losses.register_comm_hook(self._group, hook)

    def loss(self, objective: Objective[Any], batch: Any) -> LossSum:
        return self._losses(objective, batch)

    @contextmanager
    def part(self, *, is_last: bool) -> Iterator[None]:
        with nullcontext() if is_last else self._losses.no_sync():
            yield


class _Losses(nn.Module):
    """An objective's loss as a forward pass: DDP prepares its reduction in there."""

    def __init__(self, model: Transformer) -> None:
        super().__init__()
        self.model = model

    def forward(self, objective: Objective[Any], batch: Any) -> LossSum:
        return objective.loss(self.model, batch)


def _summed(group: dist.ProcessGroup, bucket: GradBucket) -> torch.futures.Future[Tensor]:
    """DDP's own hook divides by the number of ranks; this one does not."""
    work = dist.all_reduce(bucket.buffer(), group=group, async_op=True)
    assert work is not None
    return work.get_future().then(lambda future: future.value()[0])


def _summed_in_bfloat16(group: dist.ProcessGroup, bucket: GradBucket) -> torch.futures.Future[Tensor]:
    """Half the bytes: each rank's gradient is rounded to 8 bits of mantissa, and so is each partial sum."""
    whole = bucket.buffer()
    work = dist.all_reduce(whole.to(torch.bfloat16), group=group, async_op=True)
    assert work is not None
    return work.get_future().then(lambda future: whole.copy_(future.value()[0]))


class Shards:
    """FSDP2: every rank holds a slice of each parameter, of its gradient and of its optimizer state.

    With `data` above 1 the sharded whole is copied (HSDP): shards are summed over the copies as well.
    """

    def __init__(self, model: Transformer, layout: Layout, left_out: Collection[nn.Parameter] = ()) -> None:
        self._zero = layout.config.zero
        self._root = shard_model(model, layout, left_out, reshard_after_forward=self._zero == 3)
        self._model = model

    def loss(self, objective: Objective[Any], batch: Any) -> LossSum:
        return objective.loss(self._model, batch)

    @contextmanager
    def part(self, *, is_last: bool) -> Iterator[None]:
        self._root.set_requires_gradient_sync(is_last or self._zero > 1)
        self._root.set_reshard_after_backward(is_last or self._zero == 3)
        self._root.set_is_last_backward(is_last)
        yield


def shard_model(
    model: Transformer, layout: Layout, left_out: Collection[nn.Parameter], *, reshard_after_forward: bool
) -> FSDPModule:
    """Shard each block and then the rest; gradients are summed, not averaged. Blocks give back what was
    gathered after their forward passes, or keep it for the backward."""
    options: dict[str, Any] = {
        "mesh": _shard_mesh(layout),
        "mp_policy": MixedPrecisionPolicy(
            reduce_dtype=torch.bfloat16 if layout.config.gradient_dtype == "bfloat16" else None
        ),
        "offload_policy": _offload_policy(layout),
        "ignored_params": set(left_out),
    }
    # One group a block: gathered before its forward and, as the next block computes, its backward.
    for block in (*model.blocks, *model.future):
        fully_shard(block, reshard_after_forward=reshard_after_forward, **options)
    # Tables and the final norm are needed at both ends of a pass, so they stay gathered in between; the head
    # is read outside of the model's forward, by objectives.
    root = fully_shard(model, reshard_after_forward=False, **options)
    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.set_gradient_divide_factor(1.0)
            module.set_force_sum_reduction_for_comms(True)  # gloo knows no scaled sums
    return root


def reshard(module: nn.Module) -> None:
    """Let go of what a forward pass without a backward has gathered: weights that change meanwhile would not
    be seen. Nothing is done to what is not sharded."""
    for part in module.modules():
        if isinstance(part, FSDPModule):
            part.reshard()


def _shard_mesh(layout: Layout) -> DeviceMesh:
    """The ranks that shards lie on; copies of them are the first dimension, where there are any."""
    shards = layout.flat("shard", "context")
    if layout.config.data == 1:
        return shards
    if layout.config.context == 1:
        return layout.mesh["data", "shard"]
    return DeviceMesh._concatenate([layout.mesh["data"], shards])


def _offload_policy(layout: Layout) -> OffloadPolicy:
    if layout.config.offload == "none":
        return OffloadPolicy()
    return CPUOffloadPolicy(pin_memory=layout.mesh.device_type == "cuda")
