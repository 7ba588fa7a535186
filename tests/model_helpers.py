"""Small models with every parameter away from its starting value, and ways to compare gradients."""

import torch
from torch import Tensor

from bessemer.model.config import ModelConfig
from bessemer.model.transformer import Transformer


def tiny_model(
    vocab_size: int = 61, *, seed: int = 0, hidden_size: int = 32, num_layers: int = 2, tied: bool = True
) -> Transformer:
    """A float32 model in which no block is the identity (a fresh one starts so)."""
    config = ModelConfig(
        vocab_size=vocab_size,
        hidden_size=hidden_size,
        num_hidden_layers=num_layers,
        num_attention_heads=2,
        num_key_value_heads=1,
        intermediate_size=64,
        max_position_embeddings=128,
        tie_word_embeddings=tied,
        qk_norm=True,
    )
    model = Transformer(config).initialize(seed)
    generator = torch.Generator().manual_seed(seed + 1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.15 * torch.randn(parameter.shape, generator=generator))
    return model


def gradients(model: Transformer) -> dict[str, Tensor]:
    """A copy of every parameter's gradient."""
    found = {}
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, f"{name} has no gradient"
        found[name] = parameter.grad.clone()
    return found


def assert_same_gradients(ours: dict[str, Tensor], theirs: dict[str, Tensor], relative: float = 1e-5) -> None:
    """Each parameter's gradients differ by less than `relative` of their norm."""
    assert ours.keys() == theirs.keys()
    for name, gradient in ours.items():
        norm = float(gradient.norm())
        assert norm > 0, f"{name} has a zero gradient: the comparison would say nothing"
        assert float((gradient - theirs[name]).norm()) <= relative * norm, name
