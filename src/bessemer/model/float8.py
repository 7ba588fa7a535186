"""Products of a block's matrices in 8 bits, for GPUs that multiply float8 twice as fast as bfloat16.

Values and weights are rounded to float8 e4m3 (Micikevicius et al. 2022, "FP8 Formats for Deep Learning",
section 3), each row by a scale of its own, found anew for every product: a token with large values costs the
others no precision. The gradient of the input is computed in float8 as well; that of the weight, a sum over
all tokens, stays in the input's type, as in torchao's recipe `rowwise_with_gw_hp`. Weights and their
gradients are float32 as ever; norms, attention, embedding, head, routers and experts are untouched.

Shapes: N tokens, O and I outputs and inputs of a matrix.
"""

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.functional import ScalingType

from bessemer.errors import BessemerError
from bessemer.model.block import Block
from bessemer.model.division import Division, Whole
from bessemer.model.gpt2 import Gpt2Block
from bessemer.model.transformer import Transformer

LARGEST = torch.finfo(torch.float8_e4m3fn).max
"""448: what the largest value of a row becomes at the most."""
_SMALLEST = 1e-30
"""A row's largest value is taken for at least this, so that rows of zeros have a scale."""
_MULTIPLE = 16
"""Sizes of a matrix that cuBLAS multiplies in float8 are multiples of it."""
_LEAST_CAPABILITY = (8, 9)
"""CUDA compute capability from which GPUs have float8 products: Ada Lovelace and Hopper."""


def multiply_in_float8(model: Transformer) -> None:
    """Have the products of all blocks run in float8; `multiply_plainly` takes it back.

    Raises BessemerError, with the mend, where the device, its type or the model's sizes do not allow it.
    """
    if model.device.type == "cuda":
        if torch.cuda.get_device_capability(model.device) < _LEAST_CAPABILITY:
            raise BessemerError("float8: this GPU has no float8 products: set it to off")
        if model.compute_dtype != torch.bfloat16:
            raise BessemerError(
                "float8: its products give bfloat16 on a GPU: set compute_dtype to bfloat16, or float8 to off"
            )
    for block in model.blocks:
        for name, parameter in block.named_parameters(recurse=False):
            if parameter.ndim == 2 and any(size % _MULTIPLE for size in parameter.shape):
                raise BessemerError(
                    f"float8: {name} is {parameter.shape[0]} x {parameter.shape[1]}, and both must be "
                    f"multiples of {_MULTIPLE}: choose hidden_size, intermediate_size and head_dim so, or "
                    "set float8 to off"
                )
    _divide_blocks(model, _IN_FLOAT8)


def multiply_plainly(model: Transformer) -> None:
    """Take back `multiply_in_float8`."""
    _divide_blocks(model, model.division)


def _divide_blocks(model: Transformer, division: Division) -> None:
    for block in model.blocks:
        assert isinstance(block, Block | Gpt2Block)
        block.division = division


class _Float8(Whole):
    """One process holds all, and multiplies in float8."""

    def read(self, x_TI: Tensor, weight_OI: Tensor, bias_O: Tensor | None) -> Tensor:
        return float8_linear(x_TI, weight_OI, bias_O)

    def write(self, x_TI: Tensor, weight_OI: Tensor, bias_O: Tensor | None) -> Tensor:
        return float8_linear(x_TI, weight_OI, bias_O)


_IN_FLOAT8 = _Float8()


def float8_linear(x_TI: Tensor, weight_OI: Tensor, bias_O: Tensor | None = None) -> Tensor:
    """x weight^T + bias, [..., I] to [..., O] in x's dtype: float8 operands, wide sums."""
    y_TO: Tensor = _Float8Linear.apply(x_TI, weight_OI.to(x_TI.dtype))  # type: ignore[assignment]
    return y_TO if bias_O is None else y_TO + bias_O.to(y_TO.dtype)


def to_float8(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Rows [R, C] to float8 [R, C] and float32 scales [R, 1] with rows ≈ float8 · scale.

    Scales are powers of two, so that dividing by them rounds nothing.
    """
    largest = rows.abs().amax(dim=1, keepdim=True).float().clamp(min=_SMALLEST)
    exponent = torch.frexp(largest / LARGEST).exponent
    scale = torch.ldexp(torch.ones_like(largest), exponent)
    return (rows.float() / scale).to(torch.float8_e4m3fn), scale


def _product(left_RK: Tensor, right_CK: Tensor) -> Tensor:
    """left right^T, [R, C] in left's dtype, of float8 roundings of both."""
    left, left_scale = to_float8(left_RK)
    right, right_scale = to_float8(right_CK)
    return F.scaled_mm(
        left,
        right.t(),
        left_scale,
        ScalingType.RowWise,
        right_scale.t(),
        ScalingType.RowWise,
        output_dtype=left_RK.dtype,
    )


class _Float8Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x_TI: Tensor, weight_OI: Tensor) -> Tensor:  # type: ignore[override]
        ctx.save_for_backward(x_TI, weight_OI)
        y_NO = _product(x_TI.reshape(-1, x_TI.shape[-1]), weight_OI)
        return y_NO.view(*x_TI.shape[:-1], -1)

    @staticmethod
    def backward(ctx, d_y_TO: Tensor) -> tuple[Tensor | None, Tensor | None]:  # type: ignore[override]
        x_TI, weight_OI = ctx.saved_tensors
        d_y_NO = d_y_TO.reshape(-1, d_y_TO.shape[-1])
        d_x_TI = d_weight_OI = None
        if ctx.needs_input_grad[0]:
            d_x_TI = _product(d_y_NO, weight_OI.t().contiguous()).view_as(x_TI)
        if ctx.needs_input_grad[1]:
            d_weight_OI = d_y_NO.t() @ x_TI.reshape(-1, x_TI.shape[-1])
        return d_x_TI, d_weight_OI
