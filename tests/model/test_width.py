"""The coordinate check (Yang et al. 2022, "Tensor Programs V", appendix D.1): what a few updates change in
the activations does not depend on the width. And without the rules it does, so the check can fail."""

import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from bessemer.model import ModelConfig, Transformer
from bessemer.model.width import learning_rate_scales, start_for_width
from bessemer.training.optimizers import OptimizerConfig, Optimizers

WIDTHS = {"adamw": (64, 128, 256), "muon": (32, 64, 128)}
"""The first is the base width. Muon's, which costs the cube of it, are narrower."""


SHAPES = {
    "tied": {"qk_norm": True},
    "untied": {"qk_norm": True, "tie_word_embeddings": False},
    "gpt2": {"family": "gpt2"},
    "biases": {"attention_bias": True},
}


def model_of(width, shape="tied"):
    config = ModelConfig(
        vocab_size=64,
        hidden_size=width,
        num_hidden_layers=2,
        num_attention_heads=width // 16,
        head_dim=16,
        max_position_embeddings=32,
        **SHAPES[shape],
    )
    return Transformer(config).initialize(0)


def changes(width, kind, base_width, shape):
    """Root mean square of what three updates changed in each block's output and in the logits."""
    model = model_of(width, shape)
    start_for_width(model, base_width)
    optimizers = Optimizers(
        model,
        OptimizerConfig(kind=kind, learning_rate=3e-3, muon_learning_rate=0.02, base_width=base_width),
    )
    token_ids = torch.randint(64, (4, 33), generator=torch.Generator().manual_seed(1))
    outputs = {}
    for number, block in enumerate(model.blocks):
        block.register_forward_hook(lambda _, __, out, number=number: outputs.update({number: out.detach()}))

    def forward():
        logits = model.logits(model(token_ids[:, :-1]))
        return logits, {**outputs, "logits": logits.detach()}

    _, before = forward()
    for _ in range(3):
        logits, _ = forward()
        optimizers.zero_grad()
        F.cross_entropy(logits.flatten(0, 1), token_ids[:, 1:].flatten()).backward()
        optimizers.step()
    _, after = forward()
    return {name: float((after[name] - before[name]).square().mean().sqrt()) for name in after}


def slopes(kind, base_width, shape):
    """Powers of the width that the changes grow with."""
    widths = WIDTHS[kind]
    measured = [changes(width, kind, base_width, shape) for width in widths]
    return {
        name: float(np.polyfit(np.log2(widths), [math.log2(each[name]) for each in measured], 1)[0])
        for name in measured[0]
    }


@pytest.mark.parametrize(
    ("kind", "shape"),
    [
        ("adamw", "tied"),
        ("muon", "tied"),
        ("adamw", "gpt2"),
        *(pytest.param(kind, "untied", marks=pytest.mark.slow) for kind in WIDTHS),
        *(pytest.param(kind, "biases", marks=pytest.mark.slow) for kind in WIDTHS),
        pytest.param("muon", "gpt2", marks=pytest.mark.slow),
    ],
)
def test_updates_change_activations_and_logits_alike_at_every_width(kind, shape):
    for name, slope in slopes(kind, WIDTHS[kind][0], shape).items():
        assert abs(slope) < 0.35, (name, slope)


@pytest.mark.parametrize(("kind", "parts"), [("adamw", (0, 1, "logits")), ("muon", ("logits",))])
def test_without_the_rules_the_changes_grow_with_the_width(kind, parts):
    growing = slopes(kind, None, "tied")
    assert all(growing[part] > 0.5 for part in parts), growing


def test_at_the_base_width_nothing_is_scaled():
    model, plain = model_of(64), model_of(64)
    start_for_width(model, 64)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), plain.parameters(), strict=True))
    assert set(learning_rate_scales(model, 64).values()) == {1.0}
    assert set(learning_rate_scales(model_of(128), None).values()) == {1.0}


def test_rates_of_matrices_and_of_the_final_norm_follow_the_width():
    optimizers = Optimizers(
        model_of(256), OptimizerConfig(kind="adamw", learning_rate=1e-2, weight_decay=0.1, base_width=64)
    )
    rates = {
        (group["weight_decay"], round(group["lr"], 6)): len(group["params"])
        for group in optimizers.all[0].param_groups
    }
    # The embedding; 7 vectors outside; 2 x 4 matrices; the final norm.
    assert rates == {(0.1, 0.01): 1, (0.0, 0.01): 8, (0.1, 0.0025): 8, (0.0, 0.0025): 1}
    optimizers.set_learning_rate_factor(0.5)
    assert {round(group["lr"], 6) for group in optimizers.all[0].param_groups} == {0.005, 0.00125}
