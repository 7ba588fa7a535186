"""The softmax of attention in place: scale, mask, exponentials and their sum in one visit to a row.

Shapes: B batch, T query tokens, S key tokens, K key/value heads; scores are [B K, G T, S], where the
G query heads of a key/value head lie along the rows. Masks are [B or 1, T, S].
"""

import numpy as np
import torch
from numba import njit
from torch import Tensor

from bessemer.model.kernels.numbers import MATHS, exp, highest_visible, narrow, where, widen
from bessemer.model.kernels.threads import Kernel, arguments, as_float32, next_chunk, tensor

_ROWS_PER_CHUNK = 64
# Elements that LLVM's unrolled loops take at a time with AVX-512.
_LANES = 64


def visible_spans(visible_BTS: Tensor) -> Tensor:
    """int32 [B, T, 2]: the first key that each query sees, and one past the last."""
    bits_BTS = visible_BTS.to(torch.uint8)
    first_BT = bits_BTS.argmax(dim=-1)
    stop_BT = bits_BTS.shape[-1] - bits_BTS.flip(-1).argmax(dim=-1)
    return torch.stack((first_BT, stop_BT), dim=-1).int()


def masked_softmax_(
    scores_NRS: Tensor, visible_BTS: Tensor, spans_BT2: Tensor, num_kv_heads: int, scale: float
) -> Tensor:
    """Overwrite scores by softmax(scale * scores) over the keys that are visible; zero elsewhere.

    `spans_BT2` is `visible_spans(visible_BTS)`; what lies outside is not read. Returns its argument.
    """
    num_rows, num_keys = scores_NRS.shape[0] * scores_NRS.shape[1], scores_NRS.shape[2]
    num_chunks = -(-num_rows // _ROWS_PER_CHUNK)
    masks_B, num_queries, _ = visible_BTS.shape
    # Rows of the scores that share one mask: all of them, or the rows of one batch entry.
    rows_per_mask = num_rows if masks_B == 1 else num_kv_heads * scores_NRS.shape[1]
    sizes = (num_rows, num_keys, num_queries, rows_per_mask, masks_B)
    _forward(num_chunks, scores_NRS, visible_BTS.contiguous(), spans_BT2, *sizes, scale)
    return scores_NRS


def softmax_backward_(d_p_NRS: Tensor, p_NRS: Tensor, scale: float) -> Tensor:
    """Overwrite dP by dS = scale * P * (dP - sum(P * dP)), which is zero where P is. Returns dS."""
    num_rows, num_keys = p_NRS.shape[0] * p_NRS.shape[1], p_NRS.shape[2]
    _backward(-(-num_rows // _ROWS_PER_CHUNK), d_p_NRS, p_NRS, num_rows, num_keys, scale)
    return d_p_NRS


@njit(fastmath=MATHS, error_model="numpy", forceinline=True)
def _softmax_row(scores, visible, scale, weights):
    """`weights` is float32 room for one row."""
    peak = highest_visible(scores, visible)
    total = np.float32(0.0)
    for i in range(len(scores)):
        weight = where(visible[i], exp((widen(scores[i]) - peak) * scale), np.float32(0.0))
        weights[i] = weight
        total += weight
    inverse = np.float32(1.0) / total
    for i in range(len(scores)):
        scores[i] = narrow(weights[i] * inverse, scores)


@Kernel
def _forward(job):
    words = arguments(job, 9)
    num_rows, num_keys, num_queries, rows_per_mask, masks = words[3], words[4], words[5], words[6], words[7]
    scale = as_float32(words[8])
    scores_RS = tensor(words[0], job, (num_rows, num_keys))
    visible_TS = tensor(words[1], np.uint8, (masks * num_queries, num_keys))
    spans_T2 = tensor(words[2], np.int32, (masks * num_queries, 2))
    weights = np.empty(num_keys, dtype=np.float32)
    chunk = next_chunk(job)
    while chunk >= 0:
        for row in range(chunk * _ROWS_PER_CHUNK, min(num_rows, (chunk + 1) * _ROWS_PER_CHUNK)):
            query = row // rows_per_mask * num_queries + row % num_queries
            # Whole vectors: what is left over after them costs as much again, one by one.
            first = np.int64(spans_T2[query, 0]) // _LANES * _LANES
            stop = min(num_keys, -(-np.int64(spans_T2[query, 1]) // _LANES) * _LANES)
            scores = scores_RS[row]
            scores[:first] = 0
            _softmax_row(scores[first:stop], visible_TS[query, first:stop], scale, weights)
            scores[stop:] = 0
        chunk = next_chunk(job)


@Kernel
def _backward(job):
    words = arguments(job, 5)
    num_rows, num_keys = words[2], words[3]
    scale = as_float32(words[4])
    d_p_RS = tensor(words[0], job, (num_rows, num_keys))
    p_RS = tensor(words[1], job, (num_rows, num_keys))
    chunk = next_chunk(job)
    while chunk >= 0:
        for row in range(chunk * _ROWS_PER_CHUNK, min(num_rows, (chunk + 1) * _ROWS_PER_CHUNK)):
            d_p, p = d_p_RS[row], p_RS[row]
            along = np.float32(0.0)
            for i in range(num_keys):
                along += widen(d_p[i]) * widen(p[i])
            for i in range(num_keys):
                d_p[i] = narrow(widen(p[i]) * (widen(d_p[i]) - along) * scale, d_p)
        chunk = next_chunk(job)
