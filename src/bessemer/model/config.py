"""The shape of a model: sizes, their checks, and the sizes that follow from them.

Legend: D hidden size, L layers, H query heads, K key/value heads, E head dimension, F feed-forward
width, V vocabulary, X experts.
"""

from typing import Any, Literal

from pydantic import Field, model_validator

from bessemer.config import Config, Count
from bessemer.model.families import family_problems
from bessemer.model.rope_scaling import Llama3Scaling, RopeScaling


def _default_head_dim(given: dict[str, Any]) -> int:
    return max(1, given["hidden_size"] // max(1, given["num_attention_heads"]))


def _default_intermediate_size(given: dict[str, Any]) -> int:
    # SwiGLU has three matrices where a plain MLP has two; 8/3 D keeps the parameters of the usual 4 D
    # (Shazeer 2020, "GLU Variants Improve Transformer", section 3). Multiples of 64 suit the kernels.
    return -(-given["hidden_size"] * 8 // 3 // 64) * 64


class MixtureConfig(Config):
    """Feed-forward layers as a mixture of experts: a router picks a few SwiGLU experts for each token
    (Shazeer et al. 2017; Jiang et al. 2024, Mixtral)."""

    num_experts: Count
    """Experts a layer, X."""
    experts_per_token: Count
    """Experts that a token is sent to."""
    expert_size: Count
    """Width of one expert."""
    shared_size: Count = 0
    """Width of an expert that every token passes through beside its own (Dai et al. 2024, DeepSeekMoE);
    0: none. With softmax scores it has a sigmoid gate, as in Qwen2-MoE; with sigmoid scores none."""
    scores: Literal["softmax", "sigmoid"] = "softmax"
    """How router logits become the weights of experts: softmax over all of them (Mixtral, Qwen3-MoE), or a
    sigmoid each, with a bias per expert that takes part in the choice alone and balances the load without
    a loss (DeepSeek-AI 2024, DeepSeek-V3, section 2.1.2)."""
    normalize_weights: bool = True
    """Divide a token's weights by their sum (`norm_topk_prob`)."""
    weight_scale: float = 1.0
    """Factor on the weights of sigmoid scores (`routed_scaling_factor`)."""
    dense_layers: tuple[int, ...] = ()
    """Layers that keep one dense feed-forward part of width F."""
    balance_loss: float = 0.001
    """Coefficient of the auxiliary loss that spreads the load, in training (Fedus et al. 2021, Switch
    Transformer, equations 4 to 6); 0: none."""
    balance_rate: float = 0.001
    """Step of the bias of sigmoid scores after every update (DeepSeek-V3, section 4.2); 0: none."""


class ModelConfig(Config):
    """A decoder-only transformer of the Llama / Qwen3 family, or GPT-2 shaped.

    A shape that does not fit together raises one pydantic ValidationError that lists every problem,
    each with its mend.
    """

    family: Literal["llama", "gpt2"] = "llama"
    """llama: RMSNorm, RoPE, SwiGLU. gpt2: LayerNorm, learned positions, GELU, biases throughout (Radford
    et al. 2019); what concerns RoPE, QK-norm and biases is then not read."""
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
    rope_scaling: RopeScaling | None = None
    """Extension of the context beyond what the frequencies were trained for."""
    rms_norm_eps: float = 1e-6
    """Added to the mean square (the variance in LayerNorm) before the root in every norm."""
    tie_word_embeddings: bool = True
    """Use the embedding matrix as output head too (Press & Wolf 2017)."""
    qk_norm: bool = False
    """RMSNorm on every query and key head before RoPE, as Qwen3 does (Henry et al. 2020)."""
    attention_bias: bool = False
    """Biases on the query, key and value projections, as Qwen2 has."""
    attention_out_bias: bool = False
    """A bias on attention's output projection; with attention_bias, what Llama and Qwen3 call so."""
    mlp_bias: bool = False
    """Biases in the feed-forward layers, as Llama may have."""
    sliding_window: Count | None = None
    """Tokens that a query of a windowed layer sees, itself included (Jiang et al. 2023, Mistral 7B)."""
    window_layers: tuple[int, ...] | None = None
    """Layers with the window, from 0; None: all of them."""
    mixture: MixtureConfig | None = None
    """Experts in place of the dense feed-forward layers."""
    future_tokens: Count = Field(default=0, ge=0)
    """Further tokens that extra blocks learn to predict (Gloeckle et al. 2024; DeepSeek-V3, section 2.2).
    Only training uses them: a saved folder leaves them out."""

    @model_validator(mode="after")
    def _check(self) -> "ModelConfig":
        problems = _size_problems(self) + _shape_problems(self) + family_problems(self)
        if problems:
            raise ValueError("the model's shape does not fit together:\n  " + "\n  ".join(problems))
        return self

    def window(self, layer: int) -> int | None:
        """Tokens that the layer's queries see, or None for all before them."""
        is_windowed = self.window_layers is None or layer in self.window_layers
        return self.sliding_window if is_windowed else None

    def is_mixture(self, layer: int) -> bool:
        """Whether the layer has experts."""
        return self.mixture is not None and layer not in self.mixture.dense_layers


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
    values = {name: getattr(config, name) for name in names}
    if config.sliding_window is not None:
        values["sliding_window"] = config.sliding_window
    if config.mixture is not None:
        parts = ("num_experts", "experts_per_token", "expert_size")
        values |= {f"mixture.{name}": getattr(config.mixture, name) for name in parts}
    return [f"{name} is {value}: give a number above zero" for name, value in values.items() if not value > 0]


def _shape_problems(config: ModelConfig) -> list[str]:
    problems = []
    num_heads, num_kv_heads = config.num_attention_heads, config.num_key_value_heads
    if num_kv_heads > 0 and num_heads > 0 and num_heads % num_kv_heads:
        divisors = [str(n) for n in range(1, num_heads + 1) if num_heads % n == 0]
        problems.append(
            f"num_key_value_heads is {num_kv_heads}, which does not divide num_attention_heads {num_heads}: "
            f"choose one of {', '.join(divisors)}"
        )
    if config.head_dim % 2 and config.family == "llama":
        problems.append(
            f"head_dim is {config.head_dim}, but RoPE rotates pairs: choose an even number "
            f"such as {config.head_dim + 1}"
        )
    scaling = config.rope_scaling
    if isinstance(scaling, Llama3Scaling) and scaling.high_freq_factor <= scaling.low_freq_factor:
        problems.append(
            f"rope_scaling: high_freq_factor {scaling.high_freq_factor} is not above low_freq_factor "
            f"{scaling.low_freq_factor}: Llama 3.1 has 4 and 1"
        )
    problems += _layer_problems("window_layers", config.window_layers or (), config)
    if config.window_layers and config.sliding_window is None:
        problems.append("window_layers are named without a sliding_window: give its width in tokens")
    return problems + _mixture_problems(config)


def _mixture_problems(config: ModelConfig) -> list[str]:
    mixture = config.mixture
    if mixture is None:
        return []
    problems = _layer_problems("mixture.dense_layers", mixture.dense_layers, config)
    if mixture.experts_per_token > mixture.num_experts:
        problems.append(
            f"mixture.experts_per_token is {mixture.experts_per_token}, more than the "
            f"{mixture.num_experts} experts there are: lower it"
        )
    return problems


def _layer_problems(name: str, layers: tuple[int, ...], config: ModelConfig) -> list[str]:
    absent = [layer for layer in layers if not 0 <= layer < config.num_hidden_layers]
    last = config.num_hidden_layers - 1
    return [f"{name} names {absent}, but the layers are 0 to {last}: leave them out"] if absent else []


def parameter_count(config: ModelConfig) -> int:
    """Trainable parameters; a tied embedding is counted once, and what a saved folder leaves out is not."""
    head = 0 if config.tie_word_embeddings else config.vocab_size * config.hidden_size
    blocks = sum(_block_parameters(config, layer) for layer in range(config.num_hidden_layers))
    if config.family == "gpt2":
        return embedding_parameter_count(config) + blocks + 2 * config.hidden_size + head
    return embedding_parameter_count(config) + blocks + config.hidden_size + head


def embedding_parameter_count(config: ModelConfig) -> int:
    """Parameters of the input embeddings: V x D, and one more vector a position in the GPT-2 shape."""
    positions = config.max_position_embeddings if config.family == "gpt2" else 0
    return (config.vocab_size + positions) * config.hidden_size


def active_block_parameter_count(config: ModelConfig) -> int:
    """Parameters of the blocks that one token meets: of a mixture's experts, those it is sent to."""
    mixture = config.mixture
    total = sum(_block_parameters(config, layer) for layer in range(config.num_hidden_layers))
    if mixture is None:
        return total
    num_mixtures = sum(config.is_mixture(layer) for layer in range(config.num_hidden_layers))
    return total - num_mixtures * _idle_parameters(config, mixture)


def _idle_parameters(config: ModelConfig, mixture: MixtureConfig) -> int:
    """Parameters of the experts of a layer that a token is not sent to."""
    idle = mixture.num_experts - mixture.experts_per_token
    return idle * 3 * config.hidden_size * mixture.expert_size


def _block_parameters(config: ModelConfig, layer: int) -> int:
    hidden, head_dim = config.hidden_size, config.head_dim
    qkv_width = (config.num_attention_heads + 2 * config.num_key_value_heads) * head_dim
    attention = hidden * qkv_width + config.num_attention_heads * head_dim * hidden
    if config.family == "gpt2":
        width = config.intermediate_size
        return attention + qkv_width + hidden + 2 * hidden * width + width + hidden + 4 * hidden
    norms = 2 * hidden + (2 * head_dim if config.qk_norm else 0)
    biases = (qkv_width if config.attention_bias else 0) + (hidden if config.attention_out_bias else 0)
    return attention + norms + biases + _feed_forward_parameters(config, layer)


def _feed_forward_parameters(config: ModelConfig, layer: int) -> int:
    hidden, mixture = config.hidden_size, config.mixture
    if mixture is None or not config.is_mixture(layer):
        biases = 2 * config.intermediate_size + hidden if config.mlp_bias else 0
        return 3 * hidden * config.intermediate_size + biases
    experts = mixture.num_experts * (3 * hidden * mixture.expert_size + hidden)
    has_gate = mixture.shared_size > 0 and mixture.scores == "softmax"
    return experts + 3 * hidden * mixture.shared_size + (hidden if has_gate else 0)


def flops_per_token(config: ModelConfig, context: int) -> float:
    """Floating-point operations to train on one token: forward and backward, without recomputation.

    6 N + 12 L H E T (Chowdhery et al. 2022, PaLM, appendix B). N are the parameters that take part in
    a matrix product: the output head counts (tied or not), the embedding look-up does not (Hoffmann et
    al. 2022, Chinchilla, appendix F), nor do experts that the token is not sent to. T is `context` in
    tokens, or the window where that is shorter; as in PaLM, the half of the scores that the causal mask
    hides is counted. A forward pass alone is a third of this.
    """
    layers = range(config.num_hidden_layers)
    return sum(layer_flops_per_token(config, layer, context) for layer in layers) + head_flops_per_token(
        config
    )


def layer_flops_per_token(config: ModelConfig, layer: int, context: int) -> float:
    """The share of one block."""
    num_parameters, mixture = _block_parameters(config, layer), config.mixture
    if mixture is not None and config.is_mixture(layer):
        num_parameters -= _idle_parameters(config, mixture)
    window = config.window(layer)
    num_keys = context if window is None else min(context, window)
    return 6.0 * num_parameters + 12.0 * config.num_attention_heads * config.head_dim * num_keys


def head_flops_per_token(config: ModelConfig) -> float:
    """The share of the final norm and the output head."""
    return 6.0 * (config.hidden_size + config.vocab_size * config.hidden_size)
