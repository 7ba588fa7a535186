"""From the joint projection to attention's operands in one pass: split, QK-norm, RoPE, transpose.

Shapes: B batch, T tokens, H query heads, K key/value heads, N = H + K, E head dimension, C chunks of
tokens. A head's pairs are (i, i + E/2), as in `bessemer.model.rope`.
"""

import numpy as np
import torch
from numba import njit
from torch import Tensor

from bessemer.model.kernels.numbers import narrow, widen
from bessemer.model.kernels.threads import Kernel, arguments, as_float32, next_chunk, num_chunks, tensor
from bessemer.model.rope import Rotation

_TOKENS_PER_CHUNK = 32


def fused_heads(
    qkv_BTX: Tensor,
    norms: tuple[Tensor, Tensor] | None,
    rotation: Rotation,
    num_kv_heads: int,
    eps: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """q_BTHE, k_BTKE and v_BTKE, each laid out as [B, heads, T, E] in memory.

    `qkv_BTX` holds a token's H query heads, K key heads and K value heads, X = (H + 2 K) E. Query and
    key heads are divided by their root mean square and scaled by `norms` (for queries, for keys) where
    given, then rotated (see `bessemer.model.rope`). Computed in float32 and rounded once.
    """
    norm_2E = None if norms is None else torch.stack(norms)
    q, k, v = _Heads.apply(qkv_BTX, norm_2E, *rotation, num_kv_heads, eps)  # type: ignore[misc]
    return q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)


class _Heads(torch.autograd.Function):
    @staticmethod
    def forward(ctx, qkv_BTX, norm_2E, cos_B1TE, sin_B1TE, num_kv_heads, eps):  # type: ignore[override]
        qkv_BTX, cos_B1TE, sin_B1TE = qkv_BTX.contiguous(), cos_B1TE.contiguous(), sin_B1TE.contiguous()
        batch, num_tokens, width = qkv_BTX.shape
        head_dim = cos_B1TE.shape[-1]
        num_heads = width // head_dim - 2 * num_kv_heads
        num_normed = num_heads + num_kv_heads
        q_BHTE = qkv_BTX.new_empty(batch, num_heads, num_tokens, head_dim)
        k_BKTE = qkv_BTX.new_empty(batch, num_kv_heads, num_tokens, head_dim)
        v_BKTE = torch.empty_like(k_BKTE)
        has_norm = norm_2E is not None
        norm_2E = norm_2E.detach().float() if has_norm else torch.ones(2, head_dim)
        inverse_rms_BTN = torch.ones(batch, num_tokens, num_normed)
        sizes = (batch, num_tokens, num_heads, num_kv_heads, head_dim, len(cos_B1TE), int(has_norm))
        arrays = (qkv_BTX, norm_2E, cos_B1TE, sin_B1TE, q_BHTE, k_BKTE, v_BKTE, inverse_rms_BTN)
        _forward(_chunks(sizes), *arrays, *sizes, eps)
        ctx.save_for_backward(qkv_BTX, norm_2E, cos_B1TE, sin_B1TE, inverse_rms_BTN)
        ctx.sizes = sizes
        return q_BHTE, k_BKTE, v_BKTE

    @staticmethod
    def backward(ctx, *d_heads):  # type: ignore[override]
        d_q_BHTE, d_k_BKTE, d_v_BKTE = (d_head.contiguous() for d_head in d_heads)
        qkv_BTX, norm_2E, cos_B1TE, sin_B1TE, inverse_rms_BTN = ctx.saved_tensors
        has_norm = ctx.sizes[-1] == 1
        d_qkv_BTX = torch.empty_like(qkv_BTX)
        # One sum a chunk, added up in the order of the chunks: the same bytes for any threads.
        d_norm_C2E = torch.zeros(_chunks(ctx.sizes), *norm_2E.shape)
        saved = (qkv_BTX, norm_2E, cos_B1TE, sin_B1TE, inverse_rms_BTN)
        _backward(_chunks(ctx.sizes), *saved, d_q_BHTE, d_k_BKTE, d_v_BKTE, d_qkv_BTX, d_norm_C2E, *ctx.sizes)
        return d_qkv_BTX, d_norm_C2E.sum(0) if has_norm else None, None, None, None, None


def _chunks(sizes: tuple[int, ...]) -> int:
    return -(-sizes[0] * sizes[1] // _TOKENS_PER_CHUNK)


# Both helpers are inlined by numba itself. A call that is left to LLVM goes to the helper's own machine code
# in the process that compiles it, and to the kernel's copy of it once the kernel comes from the disk cache;
# the two round differently.
@njit(inline="always")
def _normalize_and_rotate(x, weight, cos, sin, has_norm, eps, out):
    """One head; returns 1 / rms (1 without a norm)."""
    head_dim, half = len(weight), len(weight) // 2
    inverse_rms = np.float32(1.0)
    if has_norm:
        total = np.float32(0.0)
        for i in range(head_dim):
            value = widen(x[i])
            total += value * value
        inverse_rms = np.float32(1.0) / np.sqrt(total / np.float32(head_dim) + eps)
    x_high, weight_high, out_high = x[half:], weight[half:], out[half:]
    for i in range(half):
        low = widen(x[i]) * inverse_rms * weight[i]
        high = widen(x_high[i]) * inverse_rms * weight_high[i]
        out[i] = narrow(low * widen(cos[i]) - high * widen(sin[i]), out)
        out_high[i] = narrow(high * widen(cos[i]) + low * widen(sin[i]), out)
    return inverse_rms


@njit(inline="always")
def _backward_head(x, weight, cos, sin, inverse_rms, has_norm, d_out, d_x, d_weight, d_normed):
    """Rotate back, then the backward of RMSNorm (see `rms_norm`). `d_normed` is room for one head."""
    head_dim, half = len(weight), len(weight) // 2
    d_out_high, d_normed_high = d_out[half:], d_normed[half:]
    for i in range(half):
        low, high = widen(d_out[i]), widen(d_out_high[i])
        d_normed[i] = low * widen(cos[i]) + high * widen(sin[i])
        d_normed_high[i] = high * widen(cos[i]) - low * widen(sin[i])
    if not has_norm:
        for i in range(head_dim):
            d_x[i] = narrow(d_normed[i], d_x)
        return
    along = np.float32(0.0)
    for i in range(head_dim):
        normed_gradient = widen(x[i]) * inverse_rms * d_normed[i]
        along += normed_gradient * weight[i]
        d_weight[i] += normed_gradient
    along = along / np.float32(head_dim) * inverse_rms
    for i in range(head_dim):
        d_x[i] = narrow((d_normed[i] * weight[i] - widen(x[i]) * along) * inverse_rms, d_x)


@Kernel
def _forward(job):
    words = arguments(job, 16)
    batch, num_tokens, num_heads, num_kv_heads = words[8], words[9], words[10], words[11]
    head_dim, angle_rows, has_norm = words[12], words[13] * words[9], words[14] != 0
    eps = as_float32(words[15])
    total, num_normed, half = batch * num_tokens, num_heads + num_kv_heads, head_dim // 2
    qkv = tensor(words[0], job, (total, num_normed + num_kv_heads, head_dim))
    norms = tensor(words[1], np.float32, (2, head_dim))
    cosines = tensor(words[2], job, (angle_rows, head_dim))
    sines = tensor(words[3], job, (angle_rows, head_dim))
    q = tensor(words[4], job, (batch, num_heads, num_tokens, head_dim))
    k = tensor(words[5], job, (batch, num_kv_heads, num_tokens, head_dim))
    v = tensor(words[6], job, (batch, num_kv_heads, num_tokens, head_dim))
    inverse_rms = tensor(words[7], np.float32, (total, num_normed))
    chunk = next_chunk(job)
    while chunk >= 0:
        for token in range(chunk * _TOKENS_PER_CHUNK, min(total, (chunk + 1) * _TOKENS_PER_CHUNK)):
            row, place = token // num_tokens, token % num_tokens
            # The second halves: there the sine is not negated.
            cos, sin = cosines[token % angle_rows, half:], sines[token % angle_rows, half:]
            for head in range(num_normed):
                kind = 0 if head < num_heads else 1
                out = q[row, head, place] if kind == 0 else k[row, head - num_heads, place]
                inverse_rms[token, head] = _normalize_and_rotate(
                    qkv[token, head], norms[kind], cos, sin, has_norm, eps, out
                )
            for head in range(num_kv_heads):
                v[row, head, place, :] = qkv[token, num_normed + head]
        chunk = next_chunk(job)


@Kernel
def _backward(job):
    words = arguments(job, 17)
    batch, num_tokens, num_heads, num_kv_heads = words[10], words[11], words[12], words[13]
    head_dim, angle_rows, has_norm = words[14], words[15] * words[11], words[16] != 0
    total, num_normed, half = batch * num_tokens, num_heads + num_kv_heads, head_dim // 2
    qkv = tensor(words[0], job, (total, num_normed + num_kv_heads, head_dim))
    norms = tensor(words[1], np.float32, (2, head_dim))
    cosines = tensor(words[2], job, (angle_rows, head_dim))
    sines = tensor(words[3], job, (angle_rows, head_dim))
    inverse_rms = tensor(words[4], np.float32, (total, num_normed))
    d_q = tensor(words[5], job, (batch, num_heads, num_tokens, head_dim))
    d_k = tensor(words[6], job, (batch, num_kv_heads, num_tokens, head_dim))
    d_v = tensor(words[7], job, (batch, num_kv_heads, num_tokens, head_dim))
    d_qkv = tensor(words[8], job, (total, num_normed + num_kv_heads, head_dim))
    d_norms = tensor(words[9], np.float32, (num_chunks(job), 2, head_dim))
    room = np.empty(head_dim, dtype=np.float32)
    chunk = next_chunk(job)
    while chunk >= 0:
        for token in range(chunk * _TOKENS_PER_CHUNK, min(total, (chunk + 1) * _TOKENS_PER_CHUNK)):
            row, place = token // num_tokens, token % num_tokens
            # The second halves: there the sine is not negated.
            cos, sin = cosines[token % angle_rows, half:], sines[token % angle_rows, half:]
            for head in range(num_normed):
                kind = 0 if head < num_heads else 1
                gradients = d_q[row, head, place] if kind == 0 else d_k[row, head - num_heads, place]
                _backward_head(
                    qkv[token, head], norms[kind], cos, sin, inverse_rms[token, head], has_norm,
                    gradients, d_qkv[token, head], d_norms[chunk, kind], room,
                )  # fmt: skip
            for head in range(num_kv_heads):
                d_qkv[token, num_normed + head, :] = d_v[row, head, place]
        chunk = next_chunk(job)
