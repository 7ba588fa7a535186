"""From logits to tokens: temperature, top-k, top-p, and random numbers that belong to a request.

Shapes: B rows, V vocabulary.
"""

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from bessemer.config import Config, Count

_MASK_64 = (1 << 64) - 1


class SamplingParams(Config):
    """How completions are drawn."""

    temperature: float = Field(default=1.0, ge=0.0)
    """Divides the logits; 0 takes the most likely token (greedy)."""
    top_p: float = Field(default=1.0, gt=0.0, le=1.0)
    """Keep the smallest set of most likely tokens with at least this probability (Holtzman et al. 2020)."""
    top_k: int = Field(default=0, ge=0)
    """Keep this many most likely tokens (Fan et al. 2018); 0 keeps all."""
    max_new_tokens: Count = Field(default=128, gt=0)
    """Longest completion in tokens, the stop token included."""


def sample(logits_BV: Tensor, params: SamplingParams, uniforms_B: Tensor) -> Tensor:
    """One token a row, by inverting the cumulative distribution at `uniforms_B` (float64 in [0, 1)).

    Greedy decoding ignores the uniforms; the lowest id wins among equals.
    """
    if params.temperature == 0:
        return logits_BV.argmax(dim=-1)
    probabilities_BV = restrict(torch.softmax(logits_BV.float() / params.temperature, dim=-1), params)
    # float64: with many tokens a float32 sum loses the rare ones.
    cumulative_BV = probabilities_BV.cumsum(dim=-1, dtype=torch.float64)
    total_B1 = cumulative_BV[:, -1:]
    # Rounding may lift u * total to the total itself, beyond the last token that has any probability.
    below_total_B1 = torch.nextafter(total_B1, torch.zeros_like(total_B1))
    targets_B1 = torch.minimum(uniforms_B.unsqueeze(1) * total_B1, below_total_B1)
    return torch.searchsorted(cumulative_BV, targets_B1, right=True).squeeze(1)


def restrict(probabilities_BV: Tensor, params: SamplingParams) -> Tensor:
    """Zero what top-k, and then top-p of what is left, leave out; not renormalised.

    Tokens exactly as likely as the last one that stays also stay, so the result does not depend on
    the order of the vocabulary.
    """
    if 0 < params.top_k < probabilities_BV.shape[1]:
        least_B1 = probabilities_BV.topk(params.top_k, dim=-1).values[:, -1:]
        probabilities_BV = probabilities_BV.where(probabilities_BV >= least_B1, 0.0)
    if params.top_p < 1.0:
        least_B1 = _least_in_nucleus(probabilities_BV, params.top_p)
        probabilities_BV = probabilities_BV.where(probabilities_BV >= least_B1, 0.0)
    return probabilities_BV


def _least_in_nucleus(probabilities_BV: Tensor, top_p: float) -> Tensor:
    """Probability of the last token of the smallest set that reaches `top_p` of the row's mass, [B, 1].

    Looks at the few most likely tokens first: sorting whole rows is what makes top-p slow.
    """
    vocab_size = probabilities_BV.shape[1]
    wanted_B1 = top_p * probabilities_BV.sum(dim=-1, keepdim=True, dtype=torch.float64)
    count = min(64, vocab_size)
    while True:
        largest_BC = probabilities_BV.topk(count, dim=-1).values
        mass_BC = largest_BC.cumsum(dim=-1, dtype=torch.float64)
        if count == vocab_size or bool((mass_BC[:, -1:] >= wanted_B1).all()):
            last_B1 = torch.searchsorted(mass_BC, wanted_B1).clamp_(max=count - 1)
            return largest_BC.gather(1, last_B1)
        count = min(8 * count, vocab_size)


def log_probability(logits_BV: Tensor, tokens_B: Tensor) -> Tensor:
    """The model's own log-softmax of each token, over the full vocabulary at temperature 1, float32 [B]."""
    logits_BV = logits_BV.float()
    chosen_B = logits_BV.gather(1, tokens_B.unsqueeze(1)).squeeze(1)
    return chosen_B - logits_BV.logsumexp(dim=-1)


def request_uniforms(seed: int, requests: np.ndarray, steps: np.ndarray) -> np.ndarray:
    """A float64 in [0, 1) for each (request, step): a function of its arguments and nothing else.

    A counter-based generator: no state, so what a request draws cannot depend on who shares its
    batch. Three rounds of SplitMix64's finaliser (Steele et al. 2014, "Fast Splittable Pseudorandom
    Number Generators", section 2) over seed, request and step.
    """
    state = np.full(len(requests), seed & _MASK_64, dtype=np.uint64)
    for word in (np.zeros_like(requests), requests, steps):
        state = _mix(state + word.astype(np.uint64) + np.uint64(0x9E3779B97F4A7C15))
    return (state >> np.uint64(11)).astype(np.float64) * 2.0**-53


def _mix(state: np.ndarray) -> np.ndarray:
    state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return state ^ (state >> np.uint64(31))
