"""Muon on sharded matrices: orthogonalization needs all of a matrix, which no rank holds.

Of N matrices that lie alike in rows over R ranks, each rank is sent the rows of N / R, orthogonalizes
those, and sends the rows of the result back: no rank computes what another does, and what is sent is
twice a rank's own share.

Shapes: N matrices of M x K; R ranks, of which rank r holds the rows M_r.
"""

from collections.abc import Hashable, Sequence
from typing import Protocol, cast

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.tensor import DTensor, Replicate, Shard

from bessemer.training.orthogonalize import orthogonalize


def local(tensor: Tensor) -> Tensor:
    """What this rank holds of a tensor; shares its memory."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def layout_of(tensor: Tensor) -> Hashable:
    """Equal for tensors of one shape that lie alike over the ranks; None for one that is whole."""
    return (tensor.device_mesh, tensor.placements) if isinstance(tensor, DTensor) else None


def orthogonal(parts: Sequence[Tensor], like: Tensor) -> Sequence[Tensor]:
    """The orthogonalized matrices' parts, from those of the matrices; all lie as `like` does.

    Collective over the ranks of its mesh. A matrix may be a stack of them, [X, M, K].
    """
    if not isinstance(like, DTensor):
        return _whole(parts)
    split = [(dim, p) for dim, p in enumerate(like.placements) if not isinstance(p, Replicate)]
    dims = [cast(Shard, placement).dim for _, placement in split if isinstance(placement, Shard)]
    if len(dims) == len(split) == 1 and dims[0] == 0:
        if like.ndim == 3:
            return _whole(parts)  # each matrix of the stack lies on one rank
        return _by_owner(parts, like.shape[0], like.device_mesh.get_group(split[0][0]))
    return _gathered(parts, like)


class Divides(Protocol):
    """See `bessemer.training.parallel.divided.Divided`."""

    def is_joined_for_updates(self, name: str) -> bool: ...
    def whole(self, name: str, part: Tensor) -> Tensor: ...
    def part(self, name: str, whole_value: Tensor) -> Tensor: ...


def orthogonal_part(part: Tensor, like: Tensor, name: str, divided: Divides) -> Tensor:
    """The same for a part of a matrix that is divided by tensors, and perhaps sharded too: every process
    joins the parts and computes all."""
    if not isinstance(like, DTensor):
        return divided.part(name, _whole([divided.whole(name, part)])[0])
    mesh, placements = like.device_mesh, like.placements
    shard = DTensor.from_local(
        part, mesh, placements, run_check=False, shape=like.shape, stride=like.stride()
    )
    own = divided.part(name, _whole([divided.whole(name, shard.full_tensor())])[0])
    return _sharded(own, like)


def _whole(matrices: Sequence[Tensor]) -> Sequence[Tensor]:
    """All at once."""
    stacked = torch.stack(list(matrices))
    if stacked.numel() == 0:
        return matrices
    return orthogonalize(stacked.flatten(0, -3)).view_as(stacked).unbind()


def _by_owner(parts: Sequence[Tensor], num_rows: int, group: dist.ProcessGroup) -> list[Tensor]:
    """Matrix n belongs to rank n mod R."""
    num_ranks, rank = group.size(), group.rank()
    owned = [range(owner, len(parts), num_ranks) for owner in range(num_ranks)]
    rows = _rows_by_rank(num_rows, num_ranks)
    width = parts[0].shape[1]
    sent = [len(numbers) * rows[rank] * width for numbers in owned]
    received = [len(owned[rank]) * count * width for count in rows]
    outgoing = torch.cat([parts[number].flatten() for numbers in owned for number in numbers])
    incoming = torch.empty(sum(received), dtype=outgoing.dtype, device=outgoing.device)
    dist.all_to_all_single(incoming, outgoing, received, sent, group=group)
    pieces = [
        piece.view(len(owned[rank]), count, width)
        for piece, count in zip(incoming.split(received), rows, strict=True)
    ]
    whole_NMK = torch.cat(pieces, dim=1)
    if len(whole_NMK):
        whole_NMK = orthogonalize(whole_NMK)
    answers = torch.cat([piece.flatten() for piece in whole_NMK.split(rows, dim=1)])
    back = torch.empty_like(outgoing)
    dist.all_to_all_single(back, answers, sent, received, group=group)
    updates = list(parts)
    for numbers, piece in zip(owned, back.split(sent), strict=True):
        for number, update in zip(numbers, piece.view(len(numbers), rows[rank], width), strict=True):
            updates[number] = update
    return updates


def _rows_by_rank(num_rows: int, num_ranks: int) -> list[int]:
    """Rows of each rank's shard, as `torch.chunk` cuts them and DTensor does."""
    size = -(-num_rows // num_ranks)
    return [max(0, min(size, num_rows - size * rank)) for rank in range(num_ranks)]


def _gathered(parts: Sequence[Tensor], like: DTensor) -> list[Tensor]:
    """For matrices that are split in more ways than one: every rank computes all."""
    mesh, placements = like.device_mesh, like.placements
    shards = [
        DTensor.from_local(part, mesh, placements, run_check=False, shape=like.shape, stride=like.stride())
        for part in parts
    ]
    return [_sharded(update, like) for update in _whole([shard.full_tensor() for shard in shards])]


def _sharded(whole: Tensor, like: DTensor) -> Tensor:
    """This rank's shard of what all have."""
    mesh = like.device_mesh
    copies = [Replicate()] * mesh.ndim
    copied = DTensor.from_local(whole.contiguous(), mesh, copies, run_check=False)
    return copied.redistribute(mesh, like.placements).to_local()
