"""FlashAttention's recurrence, written to be read: attention in tiles, without a matrix of T x S scores.

A softmax over keys that come block by block needs three running values a query: the highest score m so
far, the sum l of exp(score - m), and the output o = sum of exp(score - m) v. A block with a higher
score rescales what came before by exp(m_old - m_new); o / l at the end is the exact result (Milakov &
Gimelshein 2018, "Online normalizer calculation for softmax"; Dao et al. 2022, FlashAttention,
algorithm 1). The backward pass keeps nothing but o and L = m + log l, and computes the probabilities
again block by block, P = exp(S - L) (Dao 2023, FlashAttention-2, algorithm 2).

Shapes as in `bessemer.model.attention`; N = B K products, R = (H / K) T rows of queries, C keys in a
block.
"""

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from bessemer.model.attention import AttentionMask

_KEYS_PER_BLOCK = 64


def online_softmax_attention(
    q_BTHE: Tensor, k_BSKE: Tensor, v_BSKE: Tensor, mask: "AttentionMask", block: int = _KEYS_PER_BLOCK
) -> Tensor:
    """Same contract as `attend`; `block` keys at a time. The mask's rows are read block by block."""
    batch, num_tokens, num_heads, head_dim = q_BTHE.shape
    num_kv_heads = k_BSKE.shape[2]
    group = num_heads // num_kv_heads
    q_NRE = q_BTHE.transpose(1, 2).reshape(batch * num_kv_heads, group * num_tokens, head_dim)
    k_NSE, v_NSE = (x.transpose(1, 2).reshape(batch * num_kv_heads, -1, head_dim) for x in (k_BSKE, v_BSKE))
    # One row of the mask for every row of queries: the same for all heads.
    visible_BTS = mask.boolean_BTS.expand(batch, -1, -1)
    visible_NRS = visible_BTS.repeat_interleave(num_kv_heads, 0).repeat(1, group, 1)
    o_NRE = _OnlineSoftmax.apply(q_NRE, k_NSE, v_NSE, visible_NRS, block)
    return o_NRE.view(batch, num_heads, num_tokens, head_dim).transpose(1, 2)  # type: ignore[union-attr]


class _OnlineSoftmax(torch.autograd.Function):
    @staticmethod
    def forward(ctx, q_NRE, k_NSE, v_NSE, visible_NRS, block):  # type: ignore[override]
        scale = 1.0 / math.sqrt(q_NRE.shape[-1])
        q, k, v = (_wide(x) for x in (q_NRE, k_NSE, v_NSE))
        highest_NR1 = q.new_full((*q.shape[:2], 1), -math.inf)
        total_NR1 = torch.zeros_like(highest_NR1)
        o_NRE = torch.zeros_like(q)
        for keys in _blocks(k.shape[1], block):
            scores_NRC = _scores(q, k[:, keys], visible_NRS[:, :, keys], scale)
            new_highest_NR1 = torch.maximum(highest_NR1, scores_NRC.amax(-1, keepdim=True))
            # A query that has seen nothing yet has -inf on both sides: there is nothing to rescale.
            finite_NR1 = new_highest_NR1.masked_fill(new_highest_NR1 == -math.inf, 0.0)
            rescale_NR1 = (highest_NR1 - finite_NR1).exp()
            weights_NRC = (scores_NRC - finite_NR1).exp()
            total_NR1 = total_NR1 * rescale_NR1 + weights_NRC.sum(-1, keepdim=True)
            o_NRE = o_NRE * rescale_NR1 + weights_NRC @ v[:, keys]
            highest_NR1 = new_highest_NR1
        o_NRE = (o_NRE / total_NR1).to(q_NRE.dtype)
        log_total_NR1 = highest_NR1 + total_NR1.log()
        ctx.save_for_backward(q_NRE, k_NSE, v_NSE, visible_NRS, o_NRE, log_total_NR1)
        ctx.scale, ctx.block = scale, block
        return o_NRE

    @staticmethod
    def backward(ctx, d_o_NRE):  # type: ignore[override]
        q_NRE, k_NSE, v_NSE, visible_NRS, o_NRE, log_total_NR1 = ctx.saved_tensors
        q, k, v, d_o, o = (_wide(x) for x in (q_NRE, k_NSE, v_NSE, d_o_NRE, o_NRE))
        d_q, d_k, d_v = torch.zeros_like(q), torch.zeros_like(k), torch.zeros_like(v)
        # sum(P * dP) over all keys, which is sum(dO * O) over the head: known before any block.
        along_NR1 = (d_o * o).sum(-1, keepdim=True)
        for keys in _blocks(k.shape[1], ctx.block):
            scores_NRC = _scores(q, k[:, keys], visible_NRS[:, :, keys], ctx.scale)
            p_NRC = (scores_NRC - log_total_NR1).exp()
            d_v[:, keys] = p_NRC.mT @ d_o
            d_s_NRC = p_NRC * (d_o @ v[:, keys].mT - along_NR1) * ctx.scale
            d_q += d_s_NRC @ k[:, keys]
            d_k[:, keys] = d_s_NRC.mT @ q
        return d_q.to(q_NRE.dtype), d_k.to(k_NSE.dtype), d_v.to(v_NSE.dtype), None, None


def _scores(q_NRE: Tensor, k_NCE: Tensor, visible_NRC: Tensor, scale: float) -> Tensor:
    return (q_NRE @ k_NCE.mT * scale).masked_fill(~visible_NRC, -math.inf)


def _blocks(num_keys: int, block: int) -> list[slice]:
    return [slice(start, min(start + block, num_keys)) for start in range(0, num_keys, block)]


def _wide(x: Tensor) -> Tensor:
    """float64 stays, all else is computed in float32."""
    return x if x.dtype == torch.float64 else x.float()
