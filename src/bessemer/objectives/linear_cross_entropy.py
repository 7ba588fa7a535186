"""Output head and cross-entropy for any number of tokens, without the logits of all of them at once.

With a large vocabulary the logits are the largest tensor of a step: 4,096 tokens at a vocabulary of
128,000 are 2.1 GB in float32, three times over with softmax and gradient. Here a chunk of tokens at a
time goes through head and loss, on every device.

Shapes: S supervised tokens, D hidden, V vocabulary, C tokens in a chunk.
"""

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from bessemer.model.division import WHOLE, Division

LARGEST_LOGITS_BYTES = 2**26
"""Up to this size the logits are kept whole, which saves a pass over the head's gradient per chunk."""
_CHUNK_BYTES = 2**25
"""Size of a chunk's logits: large enough for efficient products, small beside any model."""


def summed_log_probability(
    hidden_SD: Tensor,
    weight_VD: Tensor,
    targets_S: Tensor,
    largest_bytes: int = LARGEST_LOGITS_BYTES,
    division: Division = WHOLE,
) -> Tensor:
    """Sum over the tokens of log softmax(hidden weight^T)[target], a float32 scalar. `weight_VD` are the
    rows of the head that this process holds.

    Since every token weighs the same in a sum, gradients can be computed in the forward pass, up to one
    factor (Hsu et al. 2024, Liger Kernel, arXiv:2410.10989, section 3.2): no product is done twice.
    """
    row_bytes = division.head_rows(weight_VD) * hidden_SD.element_size()
    if len(hidden_SD) * row_bytes <= largest_bytes:
        return division.log_probabilities(hidden_SD, weight_VD, targets_S).sum()
    chunks = _chunks(len(hidden_SD), row_bytes, largest_bytes)
    return _Summed.apply(hidden_SD, weight_VD, targets_S, chunks, division)  # type: ignore[no-any-return]


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
        return division.log_probabilities(hidden_SD, weight_VD, targets_S)
    parts = []
    for chunk in _chunks(len(hidden_SD), row_bytes, largest_bytes):
        part = checkpoint(
            division.log_probabilities, hidden_SD[chunk], weight_VD, targets_S[chunk],
            use_reentrant=False, preserve_rng_state=False,
        )  # fmt: skip
        assert isinstance(part, Tensor)
        parts.append(part)
    return torch.cat(parts)


def _chunks(num_tokens: int, row_bytes: int, largest_bytes: int) -> Iterator[slice]:
    size = max(1, min(_CHUNK_BYTES, largest_bytes) // row_bytes)
    for start in range(0, num_tokens, size):
        yield slice(start, min(start + size, num_tokens))


class _Summed(torch.autograd.Function):
    @staticmethod
    def forward(ctx, hidden_SD, weight_VD, targets_S, chunks, division):  # type: ignore[override]
        cast_VD = weight_VD.to(hidden_SD.dtype)
        needs_hidden, needs_weight = ctx.needs_input_grad[:2]
        d_hidden_SD = torch.empty_like(hidden_SD) if needs_hidden else None
        # Sums over chunks in float32: in bfloat16 each would round the sum anew.
        d_weight_VD = torch.zeros_like(weight_VD, dtype=torch.float32) if needs_weight else None
        total = torch.zeros((), dtype=torch.float32, device=hidden_SD.device)
        for chunk in chunks:
            with torch.enable_grad():
                hidden_CD = hidden_SD[chunk].detach().requires_grad_(needs_hidden)
                head_VD = cast_VD.detach().requires_grad_(needs_weight)
                part = division.log_probabilities(hidden_CD, head_VD, targets_S[chunk]).sum()
            total += part.detach()
            if not (needs_hidden or needs_weight):
                continue
            wanted = [tensor for tensor in (hidden_CD, head_VD) if tensor.requires_grad]
            gradients = list(torch.autograd.grad(part, wanted))
            if d_hidden_SD is not None:
                d_hidden_SD[chunk] = gradients.pop(0)
            if d_weight_VD is not None:
                d_weight_VD += gradients.pop(0)
        ctx.save_for_backward(d_hidden_SD, d_weight_VD)
        ctx.weight_dtype = weight_VD.dtype
        return total

    @staticmethod
    def backward(ctx, d_total):  # type: ignore[override]
        d_hidden_SD, d_weight_VD = ctx.saved_tensors
        return (
            None if d_hidden_SD is None else d_hidden_SD * d_total.to(d_hidden_SD.dtype),
            None if d_weight_VD is None else (d_weight_VD * d_total).to(ctx.weight_dtype),
            None,
            None,
            None,
        )
