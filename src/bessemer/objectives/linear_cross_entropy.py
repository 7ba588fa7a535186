"""Output head and cross-entropy for any number of tokens, without the logits of all of them at once.

With a large vocabulary the logits are the largest tensor of a step: 4,096 tokens at a vocabulary of
128,000 are 2.1 GB in float32, three times over with softmax and gradient. Here a chunk of tokens at a
time goes through head and loss, on every device.

Shapes: S supervised tokens, D hidden, V vocabulary, C tokens in a chunk.
"""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from bessemer.model.division import WHOLE, Division

LARGEST_LOGITS_BYTES = 2**26
"""Up to this size the logits are kept whole, which saves a pass over the head's gradient per chunk."""
_CHUNK_BYTES = 2**25
"""Size of a chunk's logits: large enough for efficient products, small beside any model."""


class SummedLoss(NamedTuple):
    """Sums over tokens, float32 scalars."""

    total: Tensor
    """Of -log softmax(hidden weight^T)[target] + z_loss log^2 Z; differentiable."""
    penalty: Tensor
    """Of z_loss log^2 Z alone; not differentiable."""


def summed_cross_entropy(
    hidden_SD: Tensor,
    weight_VD: Tensor,
    targets_S: Tensor,
    largest_bytes: int = LARGEST_LOGITS_BYTES,
    division: Division = WHOLE,
    z_loss: float = 0.0,
) -> SummedLoss:
    """The cross-entropy of all tokens and, with `z_loss`, what draws the softmax's divisor Z to 1 (Chowdhery
    et al. 2022, PaLM, section 5). `weight_VD` are the rows of the head that this process holds.

    Since every token weighs the same in a sum, gradients can be computed in the forward pass, up to one
    factor (Hsu et al. 2024, Liger Kernel, arXiv:2410.10989, section 3.2): no product is done twice.
    """
    row_bytes = division.head_rows(weight_VD) * hidden_SD.element_size()
    if len(hidden_SD) * row_bytes <= largest_bytes:
        return _sums(hidden_SD, weight_VD, targets_S, division, z_loss)
    chunks = _chunks(len(hidden_SD), row_bytes, largest_bytes)
    return SummedLoss(*_Summed.apply(hidden_SD, weight_VD, targets_S, chunks, division, z_loss))  # type: ignore[misc]


def _sums(
    hidden_SD: Tensor, weight_VD: Tensor, targets_S: Tensor, division: Division, z_loss: float
) -> SummedLoss:
    log_probabilities_S, log_totals_S = division.log_probabilities(hidden_SD, weight_VD, targets_S)
    total = -log_probabilities_S.sum()
    if not z_loss:
        return SummedLoss(total, total.new_zeros(()))
    penalty = z_loss * log_totals_S.square().sum()
    return SummedLoss(total + penalty, penalty.detach())


def log_probabilities(
    hidden_SD: Tensor,
    weight_VD: Tensor,
    targets_S: Tensor,
    largest_bytes: int = LARGEST_LOGITS_BYTES,
    division: Division = WHOLE,
) -> Tensor:
    """log softmax(hidden weight^T)[target] of every token, float32 [S].

    Tokens may weigh differently in what is made of it, so where the logits are large they are computed
    again in the backward pass, chunk by chunk.
    """
    row_bytes = division.head_rows(weight_VD) * hidden_SD.element_size()
    if len(hidden_SD) * row_bytes <= largest_bytes:
        return division.log_probabilities(hidden_SD, weight_VD, targets_S)[0]
    parts = []
    for chunk in _chunks(len(hidden_SD), row_bytes, largest_bytes):
        part = checkpoint(
            division.log_probabilities, hidden_SD[chunk], weight_VD, targets_S[chunk],
            use_reentrant=False, preserve_rng_state=False,
        )  # fmt: skip
        assert isinstance(part, tuple)
        parts.append(part[0])
    return torch.cat(parts)


def _chunks(num_tokens: int, row_bytes: int, largest_bytes: int) -> Iterator[slice]:
    size = max(1, min(_CHUNK_BYTES, largest_bytes) // row_bytes)
    for start in range(0, num_tokens, size):
        yield slice(start, min(start + size, num_tokens))


class _Summed(torch.autograd.Function):
    @staticmethod
    def forward(ctx, hidden_SD, weight_VD, targets_S, chunks, division, z_loss):  # type: ignore[override]
        cast_VD = weight_VD.to(hidden_SD.dtype)
        needs_hidden, needs_weight = ctx.needs_input_grad[:2]
        d_hidden_SD = torch.empty_like(hidden_SD) if needs_hidden else None
        # Sums over chunks in float32: in bfloat16 each would round the sum anew.
        d_weight_VD = torch.zeros_like(weight_VD, dtype=torch.float32) if needs_weight else None
        total = torch.zeros((), dtype=torch.float32, device=hidden_SD.device)
        penalty = torch.zeros_like(total)
        for chunk in chunks:
            with torch.enable_grad():
                hidden_CD = hidden_SD[chunk].detach().requires_grad_(needs_hidden)
                head_VD = cast_VD.detach().requires_grad_(needs_weight)
                part = _sums(hidden_CD, head_VD, targets_S[chunk], division, z_loss)
            total += part.total.detach()
            penalty += part.penalty
            if not (needs_hidden or needs_weight):
                continue
            wanted = [tensor for tensor in (hidden_CD, head_VD) if tensor.requires_grad]
            gradients = list(torch.autograd.grad(part.total, wanted))
            if d_hidden_SD is not None:
                d_hidden_SD[chunk] = gradients.pop(0)
            if d_weight_VD is not None:
                d_weight_VD += gradients.pop(0)
        ctx.save_for_backward(d_hidden_SD, d_weight_VD)
        ctx.weight_dtype = weight_VD.dtype
        ctx.mark_non_differentiable(penalty)
        return total, penalty

    @staticmethod
    def backward(ctx, d_total, _):  # type: ignore[override]
        d_hidden_SD, d_weight_VD = ctx.saved_tensors
        return (
            None if d_hidden_SD is None else d_hidden_SD * d_total.to(d_hidden_SD.dtype),
            None if d_weight_VD is None else (d_weight_VD * d_total).to(ctx.weight_dtype),
            None,
            None,
            None,
            None,
        )
