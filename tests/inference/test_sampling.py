import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from bessemer.inference.sampling import SamplingParams, log_probability, request_uniforms, restrict, sample

LOGITS_V = torch.tensor([1.0, -1.0, 0.5, 2.0, -3.0, 0.0])


def by_enumeration(probabilities, top_k, top_p):
    """The published rules, one token at a time, most likely first."""
    ranked = sorted(range(len(probabilities)), key=lambda token: -probabilities[token])
    kept = ranked[:top_k] if top_k else ranked
    total = sum(probabilities[token] for token in kept)
    nucleus, mass = set(), 0.0
    for token in kept:
        if mass >= top_p * total:
            break
        nucleus.add(token)
        mass += probabilities[token]
    return nucleus


@settings(deadline=None, max_examples=200)
@given(
    weights=st.lists(st.integers(1, 10_000), min_size=2, max_size=200, unique=True),
    top_k=st.integers(0, 210),
    top_p=st.floats(0.01, 0.999),
)
def test_top_k_and_top_p_keep_what_enumeration_keeps(weights, top_k, top_p):
    probabilities = torch.tensor(weights, dtype=torch.float64) / sum(weights)
    kept = restrict(probabilities.unsqueeze(0), SamplingParams(top_k=top_k, top_p=top_p))[0]
    actual = set(kept.nonzero().squeeze(1).tolist())
    expected = by_enumeration(probabilities.tolist(), top_k, top_p)
    # At a mass that equals top_p up to rounding, either side of the boundary is right.
    assert len(actual ^ expected) <= 1
    if actual != expected:
        total = sum(sorted(probabilities.tolist(), reverse=True)[: top_k or None])
        smaller = min(actual, expected, key=len)
        assert float(probabilities[list(smaller)].sum()) == pytest.approx(top_p * total, rel=1e-9)
    assert torch.equal(kept[list(actual)], probabilities[list(actual)])


def test_tokens_as_likely_as_the_last_one_kept_also_stay():
    probabilities = torch.tensor([[0.2, 0.4, 0.2, 0.2]])
    assert restrict(probabilities, SamplingParams(top_k=2)).count_nonzero() == 4
    assert restrict(probabilities, SamplingParams(top_p=0.5)).count_nonzero() == 4
    assert restrict(probabilities, SamplingParams(top_p=0.4)).count_nonzero() == 1


@pytest.mark.parametrize(
    "params",
    [SamplingParams(), SamplingParams(temperature=0.5), SamplingParams(top_k=3), SamplingParams(top_p=0.8)],
)
def test_sampled_frequencies_match_the_probabilities(params):
    num_samples = 20_000
    uniforms = request_uniforms(3, np.arange(num_samples), np.zeros(num_samples, dtype=np.int64))
    tokens = sample(LOGITS_V.expand(num_samples, -1), params, torch.from_numpy(uniforms))
    counts = np.bincount(tokens.numpy(), minlength=len(LOGITS_V))
    probabilities = torch.softmax(LOGITS_V / params.temperature, dim=0).tolist()
    kept = sorted(by_enumeration(probabilities, params.top_k, params.top_p))
    expected = np.array([probabilities[token] for token in kept])
    expected *= num_samples / expected.sum()
    assert counts.sum() == counts[kept].sum()
    chi_square = float((np.square(counts[kept] - expected) / expected).sum())
    assert chi_square < 20.5  # 99.9 % point of chi-square with 5 degrees of freedom


def test_temperature_zero_takes_the_most_likely_token():
    uniforms = torch.tensor([0.0, 0.999], dtype=torch.float64)
    assert sample(LOGITS_V.expand(2, -1), SamplingParams(temperature=0.0), uniforms).tolist() == [3, 3]


def test_the_ends_of_the_unit_interval_never_draw_an_impossible_token():
    logits = torch.tensor([[-math.inf, 1.0, 2.0, -math.inf]])
    ends = torch.tensor([0.0, 1.0 - 2.0**-53], dtype=torch.float64)
    assert sample(logits.expand(2, -1), SamplingParams(), ends).tolist() == [1, 2]


def test_log_probabilities_are_over_the_full_vocabulary():
    tokens = torch.tensor([0, 4])
    expected = torch.log_softmax(LOGITS_V, dim=0)[tokens]
    torch.testing.assert_close(log_probability(LOGITS_V.expand(2, -1), tokens), expected)


def test_uniforms_depend_on_seed_request_and_step_and_on_nothing_else():
    requests, steps = np.array([0, 1, 0, 7]), np.array([0, 0, 1, 3])
    together = request_uniforms(5, requests, steps)
    alone = [request_uniforms(5, requests[i : i + 1], steps[i : i + 1])[0] for i in range(4)]
    assert together.tolist() == alone
    assert len(set(together) | set(request_uniforms(6, requests, steps))) == 8


def test_uniforms_are_uniform_and_uncorrelated():
    requests, steps = (grid.ravel() for grid in np.meshgrid(np.arange(200), np.arange(200), indexing="ij"))
    grid = request_uniforms(0, requests, steps).reshape(200, 200)
    assert grid.min() >= 0.0
    assert grid.max() < 1.0
    counts = np.histogram(grid, bins=20, range=(0, 1))[0]
    assert float((np.square(counts - 2000) / 2000).sum()) < 43.8  # 99.9 % point, 19 degrees of freedom
    for first, second in ((grid[:-1], grid[1:]), (grid[:, :-1], grid[:, 1:])):
        assert abs(np.corrcoef(first.ravel(), second.ravel())[0, 1]) < 0.02


@pytest.mark.parametrize("wrong", [{"temperature": -1}, {"top_p": 0}, {"top_k": -1}, {"max_new_tokens": 0}])
def test_impossible_parameters_are_refused(wrong):
    with pytest.raises(ValidationError):
        SamplingParams(**wrong)
