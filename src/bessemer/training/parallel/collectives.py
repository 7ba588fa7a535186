"""Collective operations with gradients, for tensors that are spread over the processes of a group.

Gradients are summed and never averaged. What the gradient of a sum over processes is depends on what those
processes minimise: `sum_of_own_losses` where each has a part of the loss, `sum_of_one_loss` where all
compute the same loss.
"""

from collections.abc import Iterable, Sequence

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed import ProcessGroup
from torch.distributed.tensor import DTensor


def all_gather(x: Tensor, dim: int, group: ProcessGroup) -> Tensor:
    """The pieces of all processes, joined along `dim` in the order of their ranks.

    Gradient: every process gets the sum of what all have for its piece, a reduce-scatter.
    """
    return _AllGather.apply(x, dim % x.dim(), group)  # type: ignore[no-any-return]


def reduce_scatter(x: Tensor, dim: int, group: ProcessGroup) -> Tensor:
    """This process's piece along `dim` of the sum over all processes; `dim` must divide by their number.

    Gradient: all pieces, an all-gather.
    """
    return _ReduceScatter.apply(x, dim % x.dim(), group)  # type: ignore[no-any-return]


def all_to_all(
    x: Tensor, group: ProcessGroup, received: Sequence[int] | None = None, sent: Sequence[int] | None = None
) -> Tensor:
    """Send consecutive rows of x to the processes in the order of their ranks; the rows that came, in that
    order. `sent` and `received` count the rows for and from each process; default: all alike.

    Counts on which two processes disagree hang both. Gradient: every row goes back to where it came from.
    """
    return _AllToAll.apply(x, group, received, sent)  # type: ignore[no-any-return]


def sum_of_own_losses(x: Tensor, group: ProcessGroup) -> Tensor:
    """The sum over processes that each minimise a part of the loss: the gradient is the sum of theirs."""
    return _Sum.apply(x, group)  # type: ignore[no-any-return]


def sum_of_one_loss(x: Tensor, group: ProcessGroup) -> Tensor:
    """The sum over processes that all compute the same loss of it: the gradient passes as it is."""
    return _SumOnce.apply(x, group)  # type: ignore[no-any-return]


def gather(x: Tensor, dim: int, group: ProcessGroup) -> Tensor:
    """As `all_gather`, without gradients."""
    pieces = x.new_empty(group.size(), *x.shape)
    dist.all_gather_single(pieces.flatten(), x.contiguous().flatten(), group=group)
    return pieces.movedim(0, dim).flatten(dim, dim + 1)


def scatter_sum(x: Tensor, dim: int, group: ProcessGroup) -> Tensor:
    """As `reduce_scatter`, without gradients."""
    pieces = x.unflatten(dim, (group.size(), -1)).movedim(dim, 0).contiguous()
    piece = pieces.new_empty(pieces.shape[1:])
    # Flat: gloo's check of shapes knows no stacked form.
    dist.reduce_scatter_single(piece.flatten(), pieces.flatten(), group=group)
    return piece


def exchange(
    x: Tensor, group: ProcessGroup, received: Sequence[int] | None = None, sent: Sequence[int] | None = None
) -> Tensor:
    """As `all_to_all`, without gradients."""
    rows = len(x) if received is None else sum(received)
    out = x.new_empty(rows, *x.shape[1:])
    dist.all_to_all_single(out, x.contiguous(), _listed(received), _listed(sent), group=group)
    return out


def total(x: Tensor, group: ProcessGroup) -> Tensor:
    """The sum over all processes, without gradients."""
    out = x.clone(memory_format=torch.contiguous_format)
    dist.all_reduce(out, group=group)
    return out


def sum_gradients(
    parameters: Iterable[Tensor], group: ProcessGroup, dtype: torch.dtype = torch.float32
) -> None:
    """Sum the gradients that are there over the processes of a group, in one all-reduce in `dtype`. Of
    parameters that FSDP has sharded, those of the shards held here."""
    found = [parameter.grad for parameter in parameters if parameter.grad is not None]
    gradients = [gradient.to_local() if isinstance(gradient, DTensor) else gradient for gradient in found]
    if not gradients:
        return
    flat = torch.cat([gradient.flatten() for gradient in gradients]).to(dtype)
    dist.all_reduce(flat, group=group)
    for gradient, summed in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
        gradient.copy_(summed.view_as(gradient))


def _listed(counts: Sequence[int] | None) -> list[int] | None:
    return None if counts is None else list(counts)


class _AllGather(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, dim, group):  # type: ignore[override]
        ctx.dim, ctx.group = dim, group
        return gather(x, dim, group)

    @staticmethod
    def backward(ctx, d_out):  # type: ignore[override]
        return scatter_sum(d_out, ctx.dim, ctx.group), None, None


class _ReduceScatter(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, dim, group):  # type: ignore[override]
        ctx.dim, ctx.group = dim, group
        return scatter_sum(x, dim, group)

    @staticmethod
    def backward(ctx, d_out):  # type: ignore[override]
        return gather(d_out, ctx.dim, ctx.group), None, None


class _AllToAll(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, group, received, sent):  # type: ignore[override]
        ctx.group, ctx.received, ctx.sent = group, received, sent
        return exchange(x, group, received, sent)

    @staticmethod
    def backward(ctx, d_out):  # type: ignore[override]
        return exchange(d_out, ctx.group, ctx.sent, ctx.received), None, None, None


class _Sum(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, group):  # type: ignore[override]
        ctx.group = group
        return total(x, group)

    @staticmethod
    def backward(ctx, d_out):  # type: ignore[override]
        return total(d_out, ctx.group), None


class _SumOnce(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, group):  # type: ignore[override]
        return total(x, group)

    @staticmethod
    def backward(ctx, d_out):  # type: ignore[override]
        return d_out, None
