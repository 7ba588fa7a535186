"""SwiGLU, forward and backward in one pass each (Shazeer 2020, "GLU Variants Improve Transformer").

Shapes: S rows, F feed-forward width; gate and up lie side by side in one row of 2 F.
"""

import numpy as np
import torch
from torch import Tensor

from bessemer.model.kernels.numbers import exp, narrow, widen
from bessemer.model.kernels.threads import Kernel, arguments, next_chunk, tensor

_ROWS_PER_CHUNK = 32
_ONE = np.float32(1.0)


def fused_swiglu(gate_up: Tensor) -> Tensor:
    """Same contract as `bessemer.model.layers.swiglu`, in bfloat16 or float32 on the CPU; computed in
    float32 and rounded once."""
    return _SwiGLU.apply(gate_up)  # type: ignore[no-any-return]


class _SwiGLU(torch.autograd.Function):
    @staticmethod
    def forward(ctx, gate_up: Tensor) -> Tensor:  # type: ignore[override]
        gate_up = gate_up.contiguous()
        ctx.save_for_backward(gate_up)
        width = gate_up.shape[-1] // 2
        out = gate_up.new_empty(*gate_up.shape[:-1], width)
        num_rows = out.numel() // width
        _forward(_chunks(num_rows), gate_up, out, num_rows, width)
        return out

    @staticmethod
    def backward(ctx, d_out: Tensor) -> Tensor:  # type: ignore[override]
        (gate_up,) = ctx.saved_tensors
        d_gate_up = torch.empty_like(gate_up)
        width = gate_up.shape[-1] // 2
        num_rows = gate_up.numel() // (2 * width)
        _backward(_chunks(num_rows), gate_up, d_out.contiguous(), d_gate_up, num_rows, width)
        return d_gate_up


def _chunks(num_rows: int) -> int:
    return -(-num_rows // _ROWS_PER_CHUNK)


@Kernel
def _forward(job):
    words = arguments(job, 4)
    num_rows, width = words[2], words[3]
    gate_up_SF = tensor(words[0], job, (num_rows, 2 * width))
    out_SF = tensor(words[1], job, (num_rows, width))
    chunk = next_chunk(job)
    while chunk >= 0:
        for row in range(chunk * _ROWS_PER_CHUNK, min(num_rows, (chunk + 1) * _ROWS_PER_CHUNK)):
            gates, ups, out = gate_up_SF[row, :width], gate_up_SF[row, width:], out_SF[row]
            for i in range(width):
                gate = widen(gates[i])
                out[i] = narrow(gate / (_ONE + exp(-gate)) * widen(ups[i]), out)
        chunk = next_chunk(job)


@Kernel
def _backward(job):
    """d silu(g) / d g = sigmoid(g) (1 + g (1 - sigmoid(g)))."""
    words = arguments(job, 5)
    num_rows, width = words[3], words[4]
    gate_up_SF = tensor(words[0], job, (num_rows, 2 * width))
    d_out_SF = tensor(words[1], job, (num_rows, width))
    d_gate_up_SF = tensor(words[2], job, (num_rows, 2 * width))
    chunk = next_chunk(job)
    while chunk >= 0:
        for row in range(chunk * _ROWS_PER_CHUNK, min(num_rows, (chunk + 1) * _ROWS_PER_CHUNK)):
            gates, ups, d_out = gate_up_SF[row, :width], gate_up_SF[row, width:], d_out_SF[row]
            d_gates, d_ups = d_gate_up_SF[row, :width], d_gate_up_SF[row, width:]
            for i in range(width):
                gate, gradient = widen(gates[i]), widen(d_out[i])
                sigmoid = _ONE / (_ONE + exp(-gate))
                d_silu = sigmoid * (_ONE + gate * (_ONE - sigmoid))
                d_gates[i] = narrow(gradient * widen(ups[i]) * d_silu, d_gates)
                d_ups[i] = narrow(gradient * gate * sigmoid, d_ups)
        chunk = next_chunk(job)
