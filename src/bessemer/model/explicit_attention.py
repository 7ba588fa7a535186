"""Attention for short sequences on CPU: batched matrix products with the probabilities kept.

The forward pass stores softmax(scores) in the compute dtype and the backward pass multiplies it out,
so neither pass does anything but matrix products and one sweep of a softmax. Memory is B H T S.

Shapes as in `bessemer.model.attention`; N = B K is one matrix product each, G = H / K query heads
share a key/value head and are stacked along the rows, so that keys and values are never repeated.
"""

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from bessemer.model.kernels import is_fused, masked_softmax_, softmax_backward_

if TYPE_CHECKING:
    from bessemer.model.attention import AttentionMask


def explicit_attention(q_BTHE: Tensor, k_BSKE: Tensor, v_BSKE: Tensor, mask: "AttentionMask") -> Tensor:
    """Same contract as `attend`."""
    return _ExplicitAttention.apply(q_BTHE, k_BSKE, v_BSKE, mask)  # type: ignore[no-any-return]


class _ExplicitAttention(torch.autograd.Function):
    @staticmethod
    def forward(ctx, q_BTHE, k_BSKE, v_BSKE, mask):  # type: ignore[override]
        num_kv_heads = k_BSKE.shape[2]
        q_NRE = _stack_rows(q_BTHE, num_kv_heads)
        k_NSE, v_NSE = _stack_rows(k_BSKE, num_kv_heads), _stack_rows(v_BSKE, num_kv_heads)
        scale = 1.0 / math.sqrt(q_BTHE.shape[3])
        ctx.is_fused = is_fused(q_NRE)
        if ctx.is_fused:
            scores_NRS = torch.bmm(q_NRE, k_NSE.transpose(1, 2))
            p_NRS = masked_softmax_(scores_NRS, mask.boolean_BTS, mask.spans_BT2, num_kv_heads, scale)
        else:
            p_NRS = _probabilities(q_NRE, k_NSE, mask.bias_BTS(q_NRE.dtype), q_BTHE.shape, scale)
        o_NRE = torch.bmm(p_NRS, v_NSE)
        ctx.save_for_backward(q_NRE, k_NSE, v_NSE, p_NRS)
        ctx.shapes, ctx.scale = (q_BTHE.shape, k_BSKE.shape), scale
        return _by_query_head(o_NRE, q_BTHE.shape).transpose(1, 2)

    @staticmethod
    def backward(ctx, d_o_BTHE):  # type: ignore[override]
        q_NRE, k_NSE, v_NSE, p_NRS = ctx.saved_tensors
        q_shape, kv_shape = ctx.shapes
        d_o_NRE = _stack_rows(d_o_BTHE, kv_shape[2])
        d_v_NSE = torch.bmm(p_NRS.transpose(1, 2), d_o_NRE)
        d_p_NRS = torch.bmm(d_o_NRE, v_NSE.transpose(1, 2))
        # dS = scale * P * (dP - rowsum(P * dP)), zero where P is zero: the mask is not needed again.
        if ctx.is_fused:
            d_s_NRS = softmax_backward_(d_p_NRS, p_NRS, ctx.scale)
        else:
            d_s_NRS = torch.ops.aten._softmax_backward_data(d_p_NRS, p_NRS, -1, p_NRS.dtype).mul_(ctx.scale)
        d_q_NRE = torch.bmm(d_s_NRS, k_NSE)
        d_k_NSE = torch.bmm(d_s_NRS.transpose(1, 2), q_NRE)
        return (
            _by_query_head(d_q_NRE, q_shape).transpose(1, 2),
            _by_query_head(d_k_NSE, kv_shape).transpose(1, 2),
            _by_query_head(d_v_NSE, kv_shape).transpose(1, 2),
            None,
        )


def _probabilities(
    q_NRE: Tensor, k_NSE: Tensor, bias_BTS: Tensor, shape_BTHE: torch.Size, scale: float
) -> Tensor:
    """softmax(scale q k^T + bias) with torch's own operations, [N, R, S]."""
    # beta = 0: the empty tensor only gives the shape, and the scale costs no pass of its own.
    empty_NRS = q_NRE.new_empty(q_NRE.shape[0], q_NRE.shape[1], k_NSE.shape[1])
    scores_NRS = torch.baddbmm(empty_NRS, q_NRE, k_NSE.transpose(1, 2), beta=0, alpha=scale)
    _by_query_head(scores_NRS, shape_BTHE).add_(bias_BTS.unsqueeze(1))
    # The CPU kernel of softmax accumulates in float32 whatever the input's dtype.
    return torch.softmax(scores_NRS, dim=-1)


def _stack_rows(x_BTHE: Tensor, num_groups: int) -> Tensor:
    """[B, T, H, E] to contiguous [B K, (H / K) T, E]; free when the memory already is [B, H, T, E]."""
    batch, num_tokens, num_heads, head_dim = x_BTHE.shape
    rows = num_heads // num_groups * num_tokens
    return x_BTHE.transpose(1, 2).reshape(batch * num_groups, rows, head_dim)


def _by_query_head(x_NRX: Tensor, shape_BTHE: torch.Size) -> Tensor:
    """[B K, G T, X] viewed as [B, H, T, X]."""
    batch, num_tokens, num_heads, _ = shape_BTHE
    return x_NRX.view(batch, num_heads, num_tokens, x_NRX.shape[2])
