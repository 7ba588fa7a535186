"""Optimizer state in 8 bits: blockwise dynamic quantisation (Dettmers et al. 2022, arXiv:2110.02861).

A tensor is cut into blocks of 2,048 values; each block keeps its value of the largest magnitude in float32
and all values, divided by that, as the nearest of 256 numbers. The numbers are those of the paper's dynamic
tree (section 1.3, figure 2): a unary exponent of ten and a linear fraction share the bits, so that
small values keep their relative precision over seven orders of magnitude.

Since the largest is kept with its sign, it becomes the number 1 and comes back as it was: what has been
rounded once is not changed by rounding it again in the same blocks. Checkpoints rely on that, which hold
float32 and no codes.
"""

from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

WIDENED_BYTES = 4
"""Of a value in a checkpoint, which is float32."""
BLOCK = 2048
"""Values that share one scale (section 2.1)."""
_LEAST_SCALE = 2.0**-100
"""Blocks of smaller values are zeros: their products with the smallest number would lose bits of their own.
Updates do not see them beside the eps of AdamW (1e-8) and of Muon."""


@dataclass(frozen=True)
class Quantized:
    """What a process holds of a tensor, in 8 bits."""

    codes: Tensor
    """uint8 in the tensor's shape; sharded as the tensor is, where it is sharded."""
    scales: Tensor
    """float32 [blocks], of the codes held here, laid end to end."""
    is_signed: bool


@cache
def dynamic_map(*, is_signed: bool) -> Tensor:
    """The 256 numbers in [-1, 1] or (0, 1], ascending, float32.

    With i leading zeros the exponent is 10^-i, and the bits that are left after the marker cut
    (0.1, 1] evenly; each number stands in the middle of its interval. One is added, and zero where there
    is a sign. Without a sign the numbers are second moments, by whose root an update is divided: a small
    one that became zero would make the update huge (Li et al. 2023, arXiv:2309.01507, section 3.2), so
    the smallest number is 5.5e-8.
    """
    numbers = [0.0, 1.0] if is_signed else [0.55e-7, 1.0]
    for exponent in range(7):
        # The largest magnitudes (exponent 0) have the most fraction bits; without a sign there is one more.
        num_fractions = 2 ** (6 - exponent + (0 if is_signed else 1))
        edges = torch.linspace(0.1, 1.0, num_fractions + 1, dtype=torch.float64)
        middles = (edges[:-1] + edges[1:]) / 2 * 10.0**-exponent
        numbers += middles.tolist()
        if is_signed:
            numbers += (-middles).tolist()
    assert len(numbers) == 256
    return torch.tensor(sorted(numbers), dtype=torch.float32)


def quantize(values: Tensor, *, is_signed: bool) -> tuple[Tensor, Tensor]:
    """Codes, uint8 of the same shape, and the scale of each block with its sign, float32 [blocks].

    `values` is float32; without a sign it must not be negative.
    """
    flat = values.detach().reshape(-1)
    num_blocks = -(-flat.numel() // BLOCK)
    padded = torch.nn.functional.pad(flat, (0, num_blocks * BLOCK - flat.numel())).view(num_blocks, BLOCK)
    lowest, highest = padded.aminmax(dim=1)
    scales = torch.where(highest >= -lowest, highest, lowest)
    scales = torch.where(scales.abs() < _LEAST_SCALE, 0.0, scales)
    unit = padded / torch.where(scales == 0, 1.0, scales).unsqueeze(1)
    numbers = dynamic_map(is_signed=is_signed).to(values.device)
    borders = (numbers[:-1] + numbers[1:]) / 2
    codes = torch.bucketize(unit, borders).to(torch.uint8)
    return codes.view(-1)[: flat.numel()].view(values.shape), scales


def dequantize(codes: Tensor, scales: Tensor, *, is_signed: bool) -> Tensor:
    """Float32 values of the codes' shape."""
    numbers = dynamic_map(is_signed=is_signed).to(codes.device)
    flat = numbers[codes.reshape(-1).int()]
    num_values, num_blocks = flat.numel(), len(scales)
    padded = torch.nn.functional.pad(flat, (0, num_blocks * BLOCK - num_values)).view(num_blocks, BLOCK)
    return (padded * scales.unsqueeze(1)).view(-1)[:num_values].view(codes.shape)
