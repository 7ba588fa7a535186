"""The shape of a model: sizes, their checks, and the sizes that follow from them.

Legend: D hidden size, L layers, H query heads, K key/value heads, E head dimension, F feed-forward
width, V vocabulary.
"""

from typing import Any

from pydantic import Field, model_validator

from bessemer.config import Config, Count


def _default_head_dim(given: dict[str, Any]) -> int:
    return max(1, given["hidden_size"] // max(1, given["num_attention_heads"]))


def _default_intermediate_size(given: dict[str, Any]) -> int:
    # SwiGLU has three matrices where a plain MLP has two; 8/3 D keeps the parameters of the usual 4 D
    # (Shazeer 2020, "GLU Variants Improve Transformer", section 3). Multiples of 64 suit the kernels.
    return -(-given["hidden_size"] * 8 // 3 // 64) * 64


class ModelConfig(Config):
    """A decoder-only transformer of the Llama / Qwen3 family.

    A shape that does not fit together raises one pydantic ValidationError that lists every problem,
    each with its mend.
    """

    vocab_size: Count
    """Tokens in the vocabulary, V."""
    hidden_size: Count
    """Width of the residual stream, D."""
    num_hidden_layers: Count
    """Transformer blocks, L."""
    num_attention_heads: Count
    """Query heads, H."""
    num_key_value_heads: Count = Field(default_factory=lambda given: given["num_attention_heads"])
    """Key/value heads, K; each serves H / K query heads (GQA, Ainslie et al. 2023). Default: H."""
    head_dim: Count = Field(default_factory=_default_head_dim)
    """Width of one head, E; even, for RoPE. Default: D // H."""
    intermediate_size: Count = Field(default_factory=_default_intermediate_size)
    """Width of the SwiGLU feed-forward layer, F. Default: 8/3 D, rounded up to a multiple of 64."""
    max_position_embeddings: Count = 2048
    """Longest sequence in tokens."""
    rope_theta: float = 10_000.0
    """Base of the rotary frequencies (Su et al. 2021, RoFormer, section 3.2.2)."""
    rms_norm_eps: float = 1e-6
    """Added to the mean square before the root in every RMSNorm."""
    tie_word_embeddings: bool = True
    """Use the embedding matrix as output head too (Press & Wolf 2017)."""
    qk_norm: bool = False
    """RMSNorm on every query and key head before RoPE, as Qwen3 does (Henry et al. 2020)."""
    attention_bias: bool = False
    """Biases on the query, key and value projections, as Qwen2 has."""

    @model_validator(mode="after")
    def _check(self) -> "ModelConfig":
        problems = _size_problems(self) + _shape_problems(self)
        if problems:
            raise ValueError("the model's shape does not fit together:\n  " + "\n  ".join(problems))
        return self


def _size_problems(config: ModelConfig) -> list[str]:
    names = (
        "vocab_size",
        "hidden_size",
        "num_hidden_layers",
        "num_attention_heads",
        "num_key_value_heads",
        "head_dim",
        "intermediate_size",
        "max_position_embeddings",
        "rope_theta",
        "rms_norm_eps",
    )
    return [
        f"{name} is {getattr(config, name)}: give a number above zero"
        for name in names
        if not getattr(config, name) > 0
    ]


def _shape_problems(config: ModelConfig) -> list[str]:
    problems = []
    num_heads, num_kv_heads = config.num_attention_heads, config.num_key_value_heads
    if num_kv_heads > 0 and num_heads > 0 and num_heads % num_kv_heads:
        divisors = [str(n) for n in range(1, num_heads + 1) if num_heads % n == 0]
        problems.append(
            f"num_key_value_heads is {num_kv_heads}, which does not divide num_attention_heads {num_heads}: "
            f"choose one of {', '.join(divisors)}"
        )
    if config.head_dim % 2:
        problems.append(
            f"head_dim is {config.head_dim}, but RoPE rotates pairs: choose an even number "
            f"such as {config.head_dim + 1}"
        )
    if config.qk_norm and config.attention_bias:
        problems.append(
            "qk_norm and attention_bias are both on, which no Hugging Face model class can hold: "
            "turn one of them off"
        )
    return problems


def parameter_count(config: ModelConfig) -> int:
    """Trainable parameters; a tied embedding is counted once."""
    head = 0 if config.tie_word_embeddings else config.vocab_size * config.hidden_size
    final_norm = config.hidden_size
    return embedding_parameter_count(config) + _block_parameter_count(config) + final_norm + head


def embedding_parameter_count(config: ModelConfig) -> int:
    """Parameters of the input embedding, V x D."""
    return config.vocab_size * config.hidden_size


def _block_parameter_count(config: ModelConfig) -> int:
    hidden, head_dim = config.hidden_size, config.head_dim
    qkv_width = (config.num_attention_heads + 2 * config.num_key_value_heads) * head_dim
    attention = hidden * qkv_width + config.num_attention_heads * head_dim * hidden
    feed_forward = 3 * hidden * config.intermediate_size
    norms = 2 * hidden + (2 * head_dim if config.qk_norm else 0)
    biases = qkv_width if config.attention_bias else 0
    return config.num_hidden_layers * (attention + feed_forward + norms + biases)


def flops_per_token(config: ModelConfig, context: int) -> float:
    """Floating-point operations to train on one token: forward and backward, without recomputation.

    6 N + 12 L H E T (Chowdhery et al. 2022, PaLM, appendix B). N are the parameters that take part in
    a matrix product: the output head counts (tied or not), the embedding look-up does not (Hoffmann et
    al. 2022, Chinchilla, appendix F). T is `context` in tokens; as in PaLM, the half of the scores that
    the causal mask hides is counted. A forward pass alone is a third of this.
    """
    head = config.vocab_size * config.hidden_size
    num_parameters = _block_parameter_count(config) + config.hidden_size + head
    attention_width = config.num_attention_heads * config.head_dim
    return 6.0 * num_parameters + 12.0 * config.num_hidden_layers * attention_width * context
