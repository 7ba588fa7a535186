"""The small differentiable pieces of a block: RMSNorm, SwiGLU, and a linear map in the compute dtype.

Each is one autograd function with few sweeps over memory: at the sizes that train on a CPU, memory
and per-operation overhead cost as much as the matrix products.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from bessemer.model.kernels import fused_rms_norm, fused_swiglu, is_fused


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """x / sqrt(mean(x^2) + eps) * weight over the last dimension (Zhang & Sennrich 2019, equation 4).

    Computed in float32 whatever x's dtype, then cast back, and scaled in that dtype, as transformers'
    LlamaRMSNorm does.
    """
    if is_fused(x):
        return fused_rms_norm(x, weight, eps)
    return _RMSNorm.apply(x, weight, eps)  # type: ignore[no-any-return]


class _RMSNorm(torch.autograd.Function):
    """Saves the input and one number a row; plain autograd keeps three float32 copies."""

    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, eps: float) -> Tensor:  # type: ignore[override]
        wide = x.float()
        inverse_rms = wide.square().mean(dim=-1, keepdim=True).add_(eps).rsqrt_()
        ctx.save_for_backward(x, weight, inverse_rms)
        return (wide * inverse_rms).to(x.dtype).mul_(weight.to(x.dtype))

    @staticmethod
    def backward(ctx, d_out: Tensor) -> tuple[Tensor, Tensor, None]:  # type: ignore[override]
        x, weight, inverse_rms = ctx.saved_tensors
        normed = x * inverse_rms
        product = d_out * normed
        d_weight = product.reshape(-1, x.shape[-1]).sum(0)
        # d x = (d n - n mean(d n * n)) / rms with d n = d out * weight: the part of the gradient
        # along n cannot change n. The mean is a matrix-vector product with the weight.
        along = (product @ (weight.float() / x.shape[-1])).unsqueeze(-1)
        d_x = (d_out * weight.float()).addcmul_(normed, along, value=-1).mul_(inverse_rms)
        return d_x.to(x.dtype), d_weight.to(weight.dtype), None


def swiglu(gate_up: Tensor) -> Tensor:
    """silu(gate) * up, where the last dimension holds gate then up (Shazeer 2020, section 2).

    [..., 2 F] to [..., F].
    """
    if is_fused(gate_up):
        return fused_swiglu(gate_up)
    return _SwiGLU.apply(gate_up)  # type: ignore[no-any-return]


class _SwiGLU(torch.autograd.Function):
    """Keeps only its input; plain autograd keeps silu(gate) too and copies the halves' gradients."""

    @staticmethod
    def forward(ctx, gate_up: Tensor) -> Tensor:  # type: ignore[override]
        ctx.save_for_backward(gate_up)
        gate, up = gate_up.chunk(2, dim=-1)
        return F.silu(gate).mul_(up)

    @staticmethod
    def backward(ctx, d_out: Tensor) -> Tensor:  # type: ignore[override]
        (gate_up,) = ctx.saved_tensors
        gate, up = gate_up.chunk(2, dim=-1)
        d_gate_up = torch.empty_like(gate_up)
        d_gate, d_up = d_gate_up.chunk(2, dim=-1)
        torch.mul(F.silu(gate), d_out, out=d_up)
        torch.ops.aten.silu_backward.grad_input(d_out * up, gate, grad_input=d_gate)
        return d_gate_up


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x weight^T + bias in x's dtype; the parameters, kept in float32, are cast on the way in.

    The cast is part of the graph: gradients arrive in the parameters' own dtype.
    """
    return F.linear(x, weight.to(x.dtype), None if bias is None else bias.to(x.dtype))


def layer_norm(x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    """(x - mean) / sqrt(variance + eps) * weight + bias over the last dimension (Ba et al. 2016), in
    float32 whatever x's dtype, then cast back."""
    return F.layer_norm(x.float(), weight.shape, weight.float(), bias.float(), eps).to(x.dtype)


def gelu(x: Tensor) -> Tensor:
    """The tanh form of the Gaussian error linear unit (Hendrycks & Gimpel 2016, section 2), as in GPT-2."""
    return F.gelu(x, approximate="tanh")
