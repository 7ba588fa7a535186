"""The output head and its cross-entropy as one function that never holds float32 logits.

Shapes: S supervised tokens, D hidden, V vocabulary, C tokens in a chunk.
"""

import math

import numpy as np
import torch
from numba import njit
from torch import Tensor

from bessemer.model.kernels.numbers import MATHS, exp, highest, narrow, widen
from bessemer.model.kernels.threads import Kernel, arguments, next_chunk, tensor

_ROWS_PER_CHUNK = 8
# The logits of this many tokens stay in cache between the product that makes them and the softmax.
_TOKENS_PER_PRODUCT = 1024


def linear_cross_entropy(hidden_SD: Tensor, weight_VD: Tensor, targets_S: Tensor) -> tuple[Tensor, Tensor]:
    """log softmax(hidden weight^T)[target] and log Z, the logarithm of the softmax's divisor, of every token:
    float32 [S] each; on the CPU.

    Targets are int64; raises IndexError for one outside the vocabulary.
    The products run in the hidden's dtype (bfloat16 or float32) and the softmax in float32. Where a
    gradient will be needed, the forward pass leaves softmax - onehot, minus the gradient of the first
    result by the logits, in the logits' own memory [S, V]; the backward pass is two products. That of log Z
    is softmax, the same numbers and a onehot, which is a row of the head: it costs no third product.
    """
    _check_targets(targets_S, len(weight_VD))
    return _LinearCrossEntropy.apply(hidden_SD, weight_VD, targets_S)  # type: ignore[no-any-return]


def _check_targets(targets_S: Tensor, vocab_size: int) -> None:
    """The kernel writes where a target points."""
    if targets_S.numel() and not 0 <= int(targets_S.min()) <= int(targets_S.max()) < vocab_size:
        raise IndexError(
            f"targets run from {int(targets_S.min())} to {int(targets_S.max())}, outside the vocabulary "
            f"of {vocab_size}"
        )


class _LinearCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx, hidden_SD, weight_VD, targets_S):  # type: ignore[override]
        num_tokens, vocab_size = len(hidden_SD), len(weight_VD)
        cast_VD = weight_VD.to(hidden_SD.dtype)
        is_training = any(ctx.needs_input_grad)
        kept = num_tokens if is_training else min(num_tokens, _TOKENS_PER_PRODUCT)
        logits_SV = hidden_SD.new_empty(kept, vocab_size)
        log_probabilities_S = torch.empty(num_tokens, dtype=torch.float32)
        log_totals_S = torch.empty(num_tokens, dtype=torch.float32)
        for start in range(0, num_tokens, _TOKENS_PER_PRODUCT):
            tokens = slice(start, min(start + _TOKENS_PER_PRODUCT, num_tokens))
            count = tokens.stop - start
            logits_CV = logits_SV[tokens] if is_training else logits_SV[:count]
            torch.mm(hidden_SD[tokens], cast_VD.T, out=logits_CV)
            results = (log_probabilities_S[tokens], log_totals_S[tokens])
            arrays = (logits_CV, targets_S[tokens].contiguous(), *results)
            _softmax_minus_onehot(-(-count // _ROWS_PER_CHUNK), *arrays, count, vocab_size, int(is_training))
        if is_training:
            ctx.save_for_backward(hidden_SD, cast_VD, logits_SV, targets_S)
            ctx.weight_dtype = weight_VD.dtype
            ctx.set_materialize_grads(False)  # None says that log Z was not used
        return log_probabilities_S, log_totals_S

    @staticmethod
    def backward(ctx, d_out_S, d_log_totals_S):  # type: ignore[override]
        hidden_SD, cast_VD, d_logits_SV, targets_S = ctx.saved_tensors
        if d_out_S is None:
            d_out_S = torch.zeros(len(hidden_SD))
        # Rows are scaled on the narrow side of both products, which is D wide and not V.
        scale_S1 = (-d_out_S if d_log_totals_S is None else d_log_totals_S - d_out_S).unsqueeze(1)
        d_hidden_SD = torch.mm(d_logits_SV, cast_VD) * scale_S1
        d_weight_VD = torch.mm(d_logits_SV.T, (hidden_SD * scale_S1).to(hidden_SD.dtype))
        d_weight_VD = d_weight_VD.to(ctx.weight_dtype)
        if d_log_totals_S is not None:
            at_target_S1 = d_log_totals_S.unsqueeze(1)
            d_hidden_SD += cast_VD.index_select(0, targets_S) * at_target_S1
            d_weight_VD.index_add_(0, targets_S, (hidden_SD * at_target_S1).to(d_weight_VD.dtype))
        return d_hidden_SD.to(hidden_SD.dtype), d_weight_VD, None


@njit(fastmath=MATHS, error_model="numpy", forceinline=True)
def _log_probability(logits, target, weights, is_training):
    """And log Z. `weights` is float32 room for one row. Overwrites the logits when training."""
    peak = highest(logits)
    total = np.float32(0.0)
    for i in range(len(logits)):
        weight = exp(widen(logits[i]) - peak)
        weights[i] = weight
        total += weight
    log_sum = np.float32(math.log(total))
    log_probability = widen(logits[target]) - peak - log_sum
    if is_training:
        inverse = np.float32(1.0) / total
        for i in range(len(logits)):
            logits[i] = narrow(weights[i] * inverse, logits)
        logits[target] = narrow(weights[target] * inverse - np.float32(1.0), logits)
    return log_probability, peak + log_sum


@Kernel
def _softmax_minus_onehot(job):
    words = arguments(job, 7)
    num_rows, vocab_size, is_training = words[4], words[5], words[6] != 0
    logits_SV = tensor(words[0], job, (num_rows, vocab_size))
    targets_S = tensor(words[1], np.int64, (num_rows,))
    log_probabilities_S = tensor(words[2], np.float32, (num_rows,))
    log_totals_S = tensor(words[3], np.float32, (num_rows,))
    weights = np.empty(vocab_size, dtype=np.float32)
    chunk = next_chunk(job)
    while chunk >= 0:
        for row in range(chunk * _ROWS_PER_CHUNK, min(num_rows, (chunk + 1) * _ROWS_PER_CHUNK)):
            log_probability, log_total = _log_probability(
                logits_SV[row], targets_S[row], weights, is_training
            )
            log_probabilities_S[row] = log_probability
            log_totals_S[row] = log_total
        chunk = next_chunk(job)
