"""RMSNorm, forward and backward in one pass over memory each (Zhang & Sennrich 2019, equation 4).

Shapes: S rows, D the width that is normalised, C chunks of rows.
"""

import numpy as np
import torch
from numba import njit
from torch import Tensor

from bessemer.model.kernels.numbers import MATHS, narrow, widen
from bessemer.model.kernels.threads import Kernel, arguments, as_float32, next_chunk, num_chunks, tensor

_ROWS_PER_CHUNK = 64


def fused_rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """Same contract as `bessemer.model.layers.rms_norm`; x is bfloat16 or float32 on the CPU."""
    return _RMSNorm.apply(x, weight, eps)  # type: ignore[no-any-return]


class _RMSNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, eps: float) -> Tensor:  # type: ignore[override]
        x = x.contiguous()
        weight_D = weight.detach().float().contiguous()
        width = x.shape[-1]
        num_rows = x.numel() // width
        out = torch.empty_like(x)
        inverse_rms_S = torch.empty(num_rows, dtype=torch.float32)
        _forward(_chunks(num_rows), x, weight_D, out, inverse_rms_S, num_rows, width, eps)
        ctx.save_for_backward(x, weight_D, inverse_rms_S)
        ctx.weight_dtype = weight.dtype
        return out

    @staticmethod
    def backward(ctx, d_out: Tensor) -> tuple[Tensor, Tensor, None]:  # type: ignore[override]
        x, weight_D, inverse_rms_S = ctx.saved_tensors
        d_out = d_out.contiguous()
        num_rows, width = len(inverse_rms_S), len(weight_D)
        d_x = torch.empty_like(x)
        # One sum a chunk, added up in the order of the chunks: the same bytes for any threads.
        d_weight_CD = torch.zeros(_chunks(num_rows), width)
        arrays = (x, d_out, weight_D, inverse_rms_S, d_x, d_weight_CD)
        _backward(_chunks(num_rows), *arrays, num_rows, width)
        return d_x, d_weight_CD.sum(0).to(ctx.weight_dtype), None


def _chunks(num_rows: int) -> int:
    return -(-num_rows // _ROWS_PER_CHUNK)


@njit(fastmath=MATHS, error_model="numpy", forceinline=True)
def normalize_row(x, weight, out, eps):
    """out = weight * x / rms; returns 1 / rms. The normalised value is rounded to the element type
    before it is scaled, as transformers' LlamaRMSNorm does."""
    width = len(weight)
    total = np.float32(0.0)
    for i in range(width):
        value = widen(x[i])
        total += value * value
    inverse_rms = np.float32(1.0) / np.sqrt(total / np.float32(width) + eps)
    for i in range(width):
        normed = widen(narrow(widen(x[i]) * inverse_rms, out))
        out[i] = narrow(normed * widen(narrow(weight[i], out)), out)
    return inverse_rms


@njit(fastmath=MATHS, error_model="numpy", forceinline=True)
def normalize_row_backward(x, d_out, weight, inverse_rms, d_x, d_weight):
    """d_x = (d_n - n mean(d_n n)) / rms with n = x / rms and d_n = weight d_out: the part of the
    gradient along n cannot change n. Adds n d_out to d_weight."""
    width = len(weight)
    along = np.float32(0.0)
    for i in range(width):
        normed_gradient = widen(x[i]) * inverse_rms * widen(d_out[i])
        along += normed_gradient * weight[i]
        d_weight[i] += normed_gradient
    along = along / np.float32(width) * inverse_rms
    for i in range(width):
        d_x[i] = narrow((widen(d_out[i]) * weight[i] - widen(x[i]) * along) * inverse_rms, d_x)


@Kernel
def _forward(job):
    words = arguments(job, 7)
    num_rows, width, eps = words[4], words[5], as_float32(words[6])
    x_SD = tensor(words[0], job, (num_rows, width))
    weight_D = tensor(words[1], np.float32, (width,))
    out_SD = tensor(words[2], job, (num_rows, width))
    inverse_rms_S = tensor(words[3], np.float32, (num_rows,))
    chunk = next_chunk(job)
    while chunk >= 0:
        for row in range(chunk * _ROWS_PER_CHUNK, min(num_rows, (chunk + 1) * _ROWS_PER_CHUNK)):
            inverse_rms_S[row] = normalize_row(x_SD[row], weight_D, out_SD[row], eps)
        chunk = next_chunk(job)


@Kernel
def _backward(job):
    words = arguments(job, 8)
    num_rows, width = words[6], words[7]
    x_SD = tensor(words[0], job, (num_rows, width))
    d_out_SD = tensor(words[1], job, (num_rows, width))
    weight_D = tensor(words[2], np.float32, (width,))
    inverse_rms_S = tensor(words[3], np.float32, (num_rows,))
    d_x_SD = tensor(words[4], job, (num_rows, width))
    d_weight_CD = tensor(words[5], np.float32, (num_chunks(job), width))
    chunk = next_chunk(job)
    while chunk >= 0:
        for row in range(chunk * _ROWS_PER_CHUNK, min(num_rows, (chunk + 1) * _ROWS_PER_CHUNK)):
            normalize_row_backward(
                x_SD[row], d_out_SD[row], weight_D, inverse_rms_S[row], d_x_SD[row], d_weight_CD[chunk]
            )
        chunk = next_chunk(job)
