"""One dial for the size of a model: depth. Width, heads, batch, rates and token budget follow from it.

Every derived value can be set by hand in the recipe; the stage prints what it derived.
"""

from typing import Any, Literal

from pydantic import Field, ValidationError

from bessemer.config import Config, Count
from bessemer.config_faults import messages
from bessemer.model.config import MixtureConfig, ModelConfig
from bessemer.model.families import model_type

FamilyName = Literal[
    "llama", "mistral", "ministral", "qwen2", "qwen3", "mixtral", "qwen2_moe", "qwen3_moe", "dots1", "gpt2"
]
"""A `model_type` of `bessemer.model.families.FAMILIES`."""

_QK_NORM = ("qwen3", "qwen3_moe", "dots1")
_QKV_BIAS = ("qwen2", "qwen2_moe")
"""Families that always have biases on query, key and value, and on nothing else."""
_TRAITS: dict[str, str] = {
    "llama": "no qk_norm, no sliding_window, no mixture",
    "mistral": "one sliding_window in all layers, no qk_norm, no mixture",
    "ministral": "a sliding_window in some layers (window_layers), no qk_norm, no mixture",
    "qwen2": "attention_bias (on query, key and value alone), no qk_norm, no mixture",
    "qwen3": "qk_norm, no mixture",
    "mixtral": "a mixture with softmax scores and no shared expert, no qk_norm",
    "qwen2_moe": "a mixture with softmax scores and a shared expert, no qk_norm",
    "qwen3_moe": "a mixture with softmax scores and no shared expert, qk_norm",
    "dots1": "a mixture with sigmoid scores and a shared expert, qk_norm",
    "gpt2": "learnt positions, LayerNorm, GELU, biases throughout",
}
"""What `bessemer.model.families.model_type` tells a family by."""
ANY_VOCABULARY = 260
"""For a shape that is looked at before the tokenizer is learnt: its other sizes are what is checked."""
_LEAST_POSITIONS = 2048
"""RoPE's angles cost nothing, and what is trained on short rows may be asked for longer ones."""


class ModelDial(Config):
    """Size and family of the model. `depth` alone is enough; the rest overrides what it derives."""

    depth: Count = 4
    """Transformer blocks."""
    family: FamilyName | None = None
    """The class of transformers that the model is to be, by its `model_type`: sets the keys that are left
    out, and refuses those that contradict it. Default: what the other keys make it, qwen3 without any."""
    hidden_size: Count | None = None
    """Width; default 64 · depth, the aspect ratio of small Llama-shaped models."""
    num_attention_heads: Count | None = None
    """Query heads; default one per 64 of width."""
    num_key_value_heads: Count | None = None
    """Key/value heads; default half of the query heads when even, else as many. gpt2: as many."""
    head_dim: Count | None = None
    """Width of one head; default width / query heads. Qwen3's smallest models have wider ones."""
    intermediate_size: Count | None = None
    """Feed-forward width; default 8/3 of the width, rounded up to a multiple of 64. gpt2: 4 of the width."""
    max_position_embeddings: Count | None = None
    """Longest sequence in tokens that the model is declared for; default 2048, or `sequence_length` where
    that is more. gpt2, which learns a vector a position: default `sequence_length`."""
    rope_theta: float | None = None
    """Base of the rotary frequencies; default 10,000."""
    tie_word_embeddings: bool = True
    """Use the embedding as output head too: at a small width the vocabulary is most of the model."""
    qk_norm: bool | None = None
    """Normalise queries and keys (Qwen3); keeps attention logits bounded at high learning rates. Default: as
    the family has it, on without one."""
    attention_bias: bool | None = None
    """Biases in attention, as `attention_bias` of the family's config.json: qwen2 and qwen2_moe have them on
    query, key and value, the others on the output too. Default: those two have them, the others have not."""
    attention_out_bias: bool | None = None
    """A bias on attention's output alone; default: as attention_bias says."""
    mlp_bias: bool | None = None
    """Biases in the feed-forward layers, as llama may have; default off."""
    sliding_window: Count | None = None
    """Tokens that the layers in `window_layers` see."""
    window_layers: tuple[int, ...] | None = None
    """Layers with the window, from 0; default all."""
    mixture: MixtureConfig | None = None
    """Experts in place of dense feed-forward layers."""
    future_tokens: Count = Field(default=0, ge=0)
    """Further tokens that extra blocks learn to predict; the saved model has none of them."""


def model_config(dial: ModelDial, vocab_size: int, sequence_length: int = 0) -> ModelConfig:
    """The full model config that a dial stands for. `sequence_length` is that of the rows it is trained on; 0
    where there are none. Raises ValueError when sizes do not fit together, or do not fit the family."""
    _refuse(_gpt2_contradictions(dial) if dial.family == "gpt2" else [])
    hidden_size = dial.hidden_size or 64 * dial.depth
    num_heads = dial.num_attention_heads or max(1, hidden_size // 64)
    given: dict[str, Any] = {
        "vocab_size": vocab_size,
        "hidden_size": hidden_size,
        "num_hidden_layers": dial.depth,
        "num_attention_heads": num_heads,
        "tie_word_embeddings": dial.tie_word_embeddings,
        "sliding_window": dial.sliding_window,
        "window_layers": dial.window_layers,
        "mixture": dial.mixture,
        "future_tokens": dial.future_tokens,
    }
    of_family = _of_gpt2 if dial.family == "gpt2" else _of_rope
    given |= of_family(dial, hidden_size, num_heads, sequence_length)
    own = ("num_key_value_heads", "head_dim", "intermediate_size", "max_position_embeddings", "rope_theta")
    given |= {name: getattr(dial, name) for name in own if getattr(dial, name) is not None}
    try:
        shape = ModelConfig(**given)
    except ValidationError as error:
        raise ValueError("model: " + "; ".join(messages(error))) from None
    if dial.family is not None and (found := model_type(shape)) != dial.family:
        _refuse(
            [
                f"family is {dial.family} ({_TRAITS[dial.family]}), but the other keys make a {found} "
                f"({_TRAITS[found]}): change them, or name that family"
            ]
        )
    return shape


def _of_gpt2(dial: ModelDial, hidden_size: int, num_heads: int, sequence_length: int) -> dict[str, Any]:
    """Defaults of Radford et al. 2019: as many key/value heads, a feed-forward layer of four times the width;
    and no position that training never meets."""
    return {
        "family": "gpt2",
        "num_key_value_heads": num_heads,
        "intermediate_size": 4 * hidden_size,
        "max_position_embeddings": sequence_length or 1024,
        "rms_norm_eps": 1e-5,
    }


def _of_rope(dial: ModelDial, hidden_size: int, num_heads: int, sequence_length: int) -> dict[str, Any]:
    family = dial.family
    attention_bias = family in _QKV_BIAS if dial.attention_bias is None else dial.attention_bias
    out_bias = attention_bias and family not in _QKV_BIAS
    return {
        "num_key_value_heads": num_heads // 2 if num_heads % 2 == 0 else num_heads,
        "max_position_embeddings": max(_LEAST_POSITIONS, sequence_length),
        "rope_theta": 10_000.0,
        "qk_norm": (family is None or family in _QK_NORM) if dial.qk_norm is None else dial.qk_norm,
        "attention_bias": attention_bias,
        "attention_out_bias": out_bias if dial.attention_out_bias is None else dial.attention_out_bias,
        "mlp_bias": bool(dial.mlp_bias),
    }


def _gpt2_contradictions(dial: ModelDial) -> list[str]:
    """Keys that a GPT-2 shape has no use for; ModelConfig refuses the rest."""
    problems = []
    if dial.rope_theta is not None:
        problems.append("rope_theta: gpt2 learns a vector for every position and has no RoPE: leave it out")
    if dial.qk_norm:
        problems.append("qk_norm: gpt2 has none: leave it out, or choose family qwen3")
    without = [
        name for name in ("attention_bias", "attention_out_bias", "mlp_bias") if getattr(dial, name) is False
    ]
    if without:
        problems.append(
            f"{' and '.join(without)}: gpt2 has biases throughout: leave it out, or choose family llama"
        )
    return problems


def _refuse(problems: list[str]) -> None:
    if problems:
        raise ValueError("; ".join(f"model.{problem}" for problem in problems))
