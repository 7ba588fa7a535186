"""Layers of the stages of a pipeline, against all splits that there are."""

from itertools import combinations, pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bessemer.errors import BessemerError
from bessemer.model.config import MixtureConfig, ModelConfig, flops_per_token, layer_flops_per_token
from bessemer.training.parallel.pipeline_split import balanced_split, check_split, layer_ranges, split_layers


def stage_costs(costs: list[int], counts: tuple[int, ...], first: int, last: int) -> list[float]:
    found = [float(sum(costs[layer] for layer in layers)) for layers in layer_ranges(counts)]
    found[0] += first
    found[-1] += last
    return found


@given(
    st.lists(st.integers(0, 9), min_size=1, max_size=9),
    st.integers(1, 9),
    st.integers(0, 20),
    st.integers(0, 20),
)
def test_no_split_has_a_cheaper_worst_stage(costs: list[int], num_stages: int, first: int, last: int) -> None:
    num_stages = min(num_stages, len(costs))
    cuts = [(0, *inner, len(costs)) for inner in combinations(range(1, len(costs)), num_stages - 1)]
    splits = [tuple(stop - start for start, stop in pairwise(cut)) for cut in cuts]

    def value(counts: tuple[int, ...]) -> tuple[float, float]:
        by_stage = stage_costs(costs, counts, first, last)
        return max(by_stage), sum(cost * cost for cost in by_stage)

    ours = split_layers(tuple(float(cost) for cost in costs), num_stages, float(first), float(last))
    assert ours in splits
    assert value(ours) == min(value(counts) for counts in splits)


def test_equal_layers_are_spread_evenly_and_a_dear_head_takes_some_off_the_last_stage() -> None:
    assert split_layers((1.0,) * 8, 4) == (2, 2, 2, 2)
    assert split_layers((1.0,) * 9, 3, last=3.0) == (4, 4, 1)
    assert split_layers((1.0,) * 9, 3, first=3.0) == (1, 4, 4)


def test_llama_405b_on_16_stages() -> None:
    """126 layers (Dubey et al. 2024, table 3). A layer costs 6 x 3.19 B + 12 x 16,384 x 8,192 = 20.7 G
    operations a token, the head 6 x 16,384 x 128,256 = 12.6 G: less than a layer, so that of two stages with
    7 layers where the others have 8, the last is one, as in Llama's own split (ibid., section 3.3.2)."""
    config = ModelConfig(
        vocab_size=128_256,
        hidden_size=16_384,
        num_hidden_layers=126,
        num_attention_heads=128,
        num_key_value_heads=8,
        intermediate_size=53_248,
        tie_word_embeddings=False,
    )
    layer = 6 * (2 * 16_384**2 + 2 * 16_384 * 1024 + 3 * 16_384 * 53_248 + 2 * 16_384) + 12 * 16_384 * 8192
    assert layer_flops_per_token(config, 5, 8192) == layer
    counts = balanced_split(config, 16, 8192)
    assert sorted(counts) == [7] * 2 + [8] * 14
    assert counts[-1] == 7


def test_costs_of_layers_and_head_are_all_of_the_model_s() -> None:
    shape = {
        "vocab_size": 100,
        "hidden_size": 32,
        "num_hidden_layers": 3,
        "num_attention_heads": 2,
        "qk_norm": True,
    }
    mixture = MixtureConfig(num_experts=8, experts_per_token=2, expert_size=16, dense_layers=(0,))
    config = ModelConfig(**shape, mixture=mixture)
    dense, _, experts = by_layer = [layer_flops_per_token(config, layer, 64) for layer in range(3)]
    assert flops_per_token(config, 64) == sum(by_layer) + 6 * (32 + 100 * 32)
    # Of experts, a token meets two, 3 x 32 x 16 numbers each, and all of the router.
    width = config.intermediate_size
    assert experts - dense == 6 * (2 * 3 * 32 * 16 + 8 * 32) - 6 * 3 * 32 * width


def test_a_window_makes_a_layer_cheaper() -> None:
    config = ModelConfig(
        vocab_size=100,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        sliding_window=8,
        window_layers=(1,),
    )
    whole, windowed = (layer_flops_per_token(config, layer, 64) for layer in range(2))
    assert whole - windowed == 12 * 32 * (64 - 8)


@pytest.mark.parametrize(
    ("num_stages", "counts", "words"),
    [
        (5, None, "needs as many layers, but the model has 4"),
        (2, (1, 2), "2 numbers above zero whose sum is 4"),
        (2, (4, 0), "2 numbers above zero whose sum is 4"),
        (3, (2, 2), "3 numbers above zero whose sum is 4"),
    ],
)
def test_what_does_not_fit_is_named(num_stages: int, counts: tuple[int, ...] | None, words: str) -> None:
    with pytest.raises(BessemerError, match=words):
        check_split(num_stages, 4, counts)
