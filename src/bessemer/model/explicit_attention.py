"""Attention for short documents on CPU: batched matrix products with the probabilities kept.

The forward pass stores softmax(scores) in the compute dtype and the backward pass multiplies it out,
so neither pass does anything but matrix products and one sweep of a softmax. Both go over the tiles of
the mask, so that hidden pairs of tokens cost little. Memory is the area of the tiles times H.

Shapes as in `bessemer.model.attention`, in a tile of it; N = B K is one matrix product each, G = H / K
query heads share a key/value head and are stacked along the rows (R = G T), so that keys and values are
never repeated.
"""

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from bessemer.model.attention_tiles import Tile
from bessemer.model.kernels import is_fused, masked_softmax_, softmax_backward_

if TYPE_CHECKING:
    from bessemer.model.attention import AttentionMask


def explicit_attention(q_BTHE: Tensor, k_BSKE: Tensor, v_BSKE: Tensor, mask: "AttentionMask") -> Tensor:
    """Same contract as `attend`."""
    return _ExplicitAttention.apply(q_BTHE, k_BSKE, v_BSKE, mask.tiles)  # type: ignore[no-any-return]


class _ExplicitAttention(torch.autograd.Function):
    @staticmethod
    def forward(ctx, q_BTHE, k_BSKE, v_BSKE, tiles):  # type: ignore[override]
        num_kv_heads, scale = k_BSKE.shape[2], 1.0 / math.sqrt(q_BTHE.shape[3])
        o_BTHE = torch.empty(q_BTHE.shape, dtype=q_BTHE.dtype, device=q_BTHE.device)
        probabilities = []
        for tile in tiles:
            q_NRE = _stack_rows(q_BTHE[tile.rows, tile.queries], num_kv_heads)
            k_NSE = _stack_rows(k_BSKE[tile.rows, tile.keys], num_kv_heads)
            v_NSE = _stack_rows(v_BSKE[tile.rows, tile.keys], num_kv_heads)
            p_NRS = _probabilities(q_NRE, k_NSE, tile, num_kv_heads, scale)
            part_BTHE = o_BTHE[tile.rows, tile.queries]
            batch, num_queries, num_heads, head_dim = part_BTHE.shape
            part_BHTE = torch.bmm(p_NRS, v_NSE).view(batch, num_heads, num_queries, head_dim)
            part_BTHE.copy_(part_BHTE.transpose(1, 2))
            probabilities.append(p_NRS)
        ctx.save_for_backward(q_BTHE, k_BSKE, v_BSKE, *probabilities)
        ctx.tiles, ctx.scale, ctx.is_fused = tiles, scale, is_fused(q_BTHE)
        return o_BTHE

    @staticmethod
    def backward(ctx, d_o_BTHE):  # type: ignore[override]
        q_BTHE, k_BSKE, v_BSKE, *probabilities = ctx.saved_tensors
        num_kv_heads = k_BSKE.shape[2]
        d_q_BHTE = torch.empty_like(q_BTHE.transpose(1, 2), memory_format=torch.contiguous_format)
        d_k_BKSE = torch.zeros_like(k_BSKE.transpose(1, 2), memory_format=torch.contiguous_format)
        d_v_BKSE = torch.zeros_like(d_k_BKSE)
        for tile, p_NRS in zip(ctx.tiles, probabilities, strict=True):
            q_NRE = _stack_rows(q_BTHE[tile.rows, tile.queries], num_kv_heads)
            k_NSE = _stack_rows(k_BSKE[tile.rows, tile.keys], num_kv_heads)
            v_NSE = _stack_rows(v_BSKE[tile.rows, tile.keys], num_kv_heads)
            d_o_NRE = _stack_rows(d_o_BTHE[tile.rows, tile.queries], num_kv_heads)
            d_p_NRS = torch.bmm(d_o_NRE, v_NSE.transpose(1, 2))
            # dS = scale * P * (dP - rowsum(P * dP)), zero where P is zero: the mask is not needed again.
            if ctx.is_fused:
                d_s_NRS = softmax_backward_(d_p_NRS, p_NRS, ctx.scale)
            else:
                d_s_NRS = torch.ops.aten._softmax_backward_data(d_p_NRS, p_NRS, -1, p_NRS.dtype)
                d_s_NRS.mul_(ctx.scale)
            d_q = d_q_BHTE[tile.rows, :, tile.queries]
            d_q.copy_(torch.bmm(d_s_NRS, k_NSE).view(d_q.shape))
            # Neighbouring tiles share keys.
            d_k, d_v = d_k_BKSE[tile.rows, :, tile.keys], d_v_BKSE[tile.rows, :, tile.keys]
            d_k.add_(torch.bmm(d_s_NRS.mT, q_NRE).view(d_k.shape))
            d_v.add_(torch.bmm(p_NRS.mT, d_o_NRE).view(d_v.shape))
        return d_q_BHTE.transpose(1, 2), d_k_BKSE.transpose(1, 2), d_v_BKSE.transpose(1, 2), None


def _probabilities(q_NRE: Tensor, k_NSE: Tensor, tile: Tile, num_kv_heads: int, scale: float) -> Tensor:
    """softmax(scale q k^T) over the visible keys, [N, R, S]."""
    if is_fused(q_NRE):
        scores_NRS = torch.bmm(q_NRE, k_NSE.transpose(1, 2))
        return masked_softmax_(scores_NRS, tile.visible_BTS, tile.spans_BT2, num_kv_heads, scale)
    # beta = 0: the empty tensor only gives the shape, and the scale costs no pass of its own.
    empty_NRS = q_NRE.new_empty(q_NRE.shape[0], q_NRE.shape[1], k_NSE.shape[1])
    scores_NRS = torch.baddbmm(empty_NRS, q_NRE, k_NSE.transpose(1, 2), beta=0, alpha=scale)
    bias_BTS = tile.bias_BTS(q_NRE.dtype)
    num_rows, num_queries = q_NRE.shape[0] // num_kv_heads, bias_BTS.shape[1]
    scores_NRS.view(num_rows, -1, num_queries, k_NSE.shape[1]).add_(bias_BTS.unsqueeze(1))
    # The CPU kernel of softmax accumulates in float32 whatever the input's dtype.
    return torch.softmax(scores_NRS, dim=-1)


def _stack_rows(x_BTHE: Tensor, num_groups: int) -> Tensor:
    """[B, T, H, E] to [B K, (H / K) T, E]; free when the memory is [B, H, ..., E] and H = K."""
    batch, num_tokens, num_heads, head_dim = x_BTHE.shape
    rows = num_heads // num_groups * num_tokens
    return x_BTHE.transpose(1, 2).reshape(batch * num_groups, rows, head_dim)
