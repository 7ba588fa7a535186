"""One dial for the size of a model: depth. Width, heads, batch, rates and token budget follow from it.

Every derived value can be set by hand in the recipe; the stage prints what it derived.
"""

from typing import Any

from bessemer.config import Config, Count
from bessemer.model.config import MixtureConfig, ModelConfig


class ModelDial(Config):
    """Size of the model. `depth` alone is enough; the rest overrides what it derives."""

    depth: Count = 4
    """Transformer blocks."""
    hidden_size: Count | None = None
    """Width; default 64 · depth, the aspect ratio of small Llama-shaped models."""
    num_attention_heads: Count | None = None
    """Query heads; default one per 64 of width."""
    num_key_value_heads: Count | None = None
    """Key/value heads; default half of the query heads when even, else as many."""
    head_dim: Count | None = None
    """Width of one head; default width / query heads. Qwen3's smallest models have wider ones."""
    intermediate_size: Count | None = None
    """Feed-forward width; default 8/3 of the width, rounded up to a multiple of 64."""
    max_position_embeddings: Count = 2048
    """Longest sequence in tokens that the model is declared for."""
    rope_theta: float = 10_000.0
    """Base of the rotary frequencies."""
    tie_word_embeddings: bool = True
    """Use the embedding as output head too: at a small width the vocabulary is most of the model."""
    qk_norm: bool = True
    """Normalise queries and keys (Qwen3); keeps attention logits bounded at high learning rates."""
    sliding_window: Count | None = None
    """Tokens that the layers in `window_layers` see."""
    window_layers: tuple[int, ...] | None = None
    """Layers with the window, from 0; default all."""
    mixture: MixtureConfig | None = None
    """Experts in place of dense feed-forward layers."""
    future_tokens: Count = 0
    """Further tokens that extra blocks learn to predict; the saved model has none of them."""


def model_config(dial: ModelDial, vocab_size: int) -> ModelConfig:
    """The full model config that a dial stands for. Raises ValueError when sizes do not fit together."""
    hidden_size = dial.hidden_size or 64 * dial.depth
    num_heads = dial.num_attention_heads or max(1, hidden_size // 64)
    num_kv_heads = dial.num_key_value_heads or (num_heads // 2 if num_heads % 2 == 0 else num_heads)
    given: dict[str, Any] = {
        "vocab_size": vocab_size,
        "hidden_size": hidden_size,
        "num_hidden_layers": dial.depth,
        "num_attention_heads": num_heads,
        "num_key_value_heads": num_kv_heads,
        "max_position_embeddings": dial.max_position_embeddings,
        "rope_theta": dial.rope_theta,
        "tie_word_embeddings": dial.tie_word_embeddings,
        "qk_norm": dial.qk_norm,
        "sliding_window": dial.sliding_window,
        "window_layers": dial.window_layers,
        "mixture": dial.mixture,
        "future_tokens": dial.future_tokens,
    }
    # Left out where the model's shape has a default of its own.
    own = {"head_dim": dial.head_dim, "intermediate_size": dial.intermediate_size}
    given |= {name: value for name, value in own.items() if value is not None}
    return ModelConfig(**given)
