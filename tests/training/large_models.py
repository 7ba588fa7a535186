"""Published shapes, and one with as many experts as the largest have."""

from bessemer.model.config import MixtureConfig, ModelConfig

LLAMA_70B = ModelConfig(
    vocab_size=128_256,
    hidden_size=8192,
    num_hidden_layers=80,
    num_attention_heads=64,
    num_key_value_heads=8,
    intermediate_size=28_672,
    max_position_embeddings=8192,
    tie_word_embeddings=False,
)
LLAMA_405B = ModelConfig(
    vocab_size=128_256,
    hidden_size=16_384,
    num_hidden_layers=126,
    num_attention_heads=128,
    num_key_value_heads=8,
    intermediate_size=53_248,
    max_position_embeddings=8192,
    tie_word_embeddings=False,
)
"""Both: Dubey et al. 2024, "The Llama 3 Herd of Models", table 3."""
EXPERTS_200 = ModelConfig(
    vocab_size=128_256,
    hidden_size=4096,
    num_hidden_layers=48,
    num_attention_heads=32,
    num_key_value_heads=8,
    head_dim=128,
    max_position_embeddings=8192,
    tie_word_embeddings=False,
    qk_norm=True,
    mixture=MixtureConfig(num_experts=200, experts_per_token=8, expert_size=1024),
)
