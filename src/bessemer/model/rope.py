"""Rotary position embeddings (Su et al. 2021, RoFormer), in Hugging Face's half-split convention.

Shapes: B batch, T tokens, N heads, E head dimension.
"""

import torch
from torch import Tensor

from bessemer.model.rope_scaling import RopeScaling

Rotation = tuple[Tensor, Tensor]
"""cos and signed sin, each [B or 1, 1, T, E], in the compute dtype."""


def rope_table(
    head_dim: int, num_positions: int, theta: float, scaling: RopeScaling | None = None
) -> tuple[Tensor, Tensor]:
    """cos and signed sin, float32 [positions, E], of the angles position * theta^(-2i/E) (RoFormer,
    equation 15); with `scaling`, of its frequencies and times its amplitude.

    Both hold the E/2 angles twice, the sine negated in the first half: a rotation is then
    x * cos + swap_halves(x) * sin.
    """
    exponents = torch.arange(0, head_dim, 2, dtype=torch.float32) / head_dim
    frequencies = 1.0 / theta**exponents
    if scaling is not None:
        frequencies = scaling.frequencies(frequencies, theta)
    angles = torch.outer(torch.arange(num_positions, dtype=torch.float32), frequencies)
    cos, sin = angles.cos(), angles.sin()
    if scaling is not None and scaling.amplitude != 1.0:
        cos, sin = cos * scaling.amplitude, sin * scaling.amplitude
    return torch.cat((cos, cos), dim=1), torch.cat((-sin, sin), dim=1)


def rotate(x_BTNE: Tensor, rotation: Rotation) -> Tensor:
    """Rotate the pairs (i, i + E/2) of every head by the token's angles; same shape and dtype as x.

    The result is laid out as [B, N, T, E] in memory, which is what attention's matrix products want.
    """
    return _Rotate.apply(x_BTNE.transpose(1, 2), *rotation).transpose(1, 2)  # type: ignore[union-attr]


class _Rotate(torch.autograd.Function):
    """On [B, N, T, E]. Saves nothing of the input: the gradient is the opposite rotation (times the same
    amplitude)."""

    @staticmethod
    def forward(ctx, x_BNTE: Tensor, cos_B1TE: Tensor, sin_B1TE: Tensor) -> Tensor:  # type: ignore[override]
        ctx.save_for_backward(cos_B1TE, sin_B1TE)
        out_BNTE = x_BNTE.clone(memory_format=torch.contiguous_format)
        swapped_BNTE = _swap_halves(out_BNTE)
        return out_BNTE.mul_(cos_B1TE).add_(swapped_BNTE.mul_(sin_B1TE))

    @staticmethod
    def backward(ctx, d_out_BNTE: Tensor) -> tuple[Tensor, None, None]:  # type: ignore[override]
        cos_B1TE, sin_B1TE = ctx.saved_tensors
        swapped_BNTE = _swap_halves(d_out_BNTE)
        return (d_out_BNTE * cos_B1TE).sub_(swapped_BNTE.mul_(sin_B1TE)), None, None


def _swap_halves(x_BNTE: Tensor) -> Tensor:
    """A copy with the two halves of every head exchanged; `roll` does it in one pass."""
    return x_BNTE.roll(x_BNTE.shape[-1] // 2, dims=-1)
