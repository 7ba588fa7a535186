"""The keys of a GPT-2 config.json, which has names of its own for everything."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bessemer.model.config import ModelConfig

_TANH_GELU = ("gelu_new", "gelu_pytorch_tanh")


def gpt2_from_huggingface(values: Mapping[str, Any], problems: list[str]) -> dict[str, Any]:
    """The arguments of ModelConfig; appends what would change the computation and is not supported.

    Sizes that are left out are those of the smallest GPT-2, as in transformers.
    """
    activation = values.get("activation_function", "gelu_new")
    if activation not in _TANH_GELU:
        problems.append(f"activation_function {activation!r} is not supported: only {_TANH_GELU[0]!r} is")
    if values.get("scale_attn_by_inverse_layer_idx"):
        problems.append("scale_attn_by_inverse_layer_idx is on, which is not supported")
    if values.get("scale_attn_weights") is False:
        problems.append("scale_attn_weights is off, which is not supported")
    if values.get("add_cross_attention"):
        problems.append("add_cross_attention is on: only decoders without an encoder are supported")
    hidden_size = _either(values, "n_embd", "hidden_size", 768)
    return {
        "family": "gpt2",
        "vocab_size": values.get("vocab_size", 50_257),
        "hidden_size": hidden_size,
        "num_hidden_layers": _either(values, "n_layer", "num_hidden_layers", 12),
        "num_attention_heads": _either(values, "n_head", "num_attention_heads", 12),
        "intermediate_size": values.get("n_inner") or 4 * hidden_size,
        "max_position_embeddings": _either(values, "n_positions", "max_position_embeddings", 1024),
        "rms_norm_eps": values.get("layer_norm_epsilon", 1e-5),
        "tie_word_embeddings": values.get("tie_word_embeddings", True),
    }


def gpt2_to_huggingface(config: "ModelConfig") -> dict[str, Any]:
    """The keys of the shape; dropout is off, since Bessemer trains without."""
    return {
        "n_embd": config.hidden_size,
        "n_layer": config.num_hidden_layers,
        "n_head": config.num_attention_heads,
        "n_inner": config.intermediate_size,
        "n_positions": config.max_position_embeddings,
        "n_ctx": config.max_position_embeddings,
        "layer_norm_epsilon": config.rms_norm_eps,
        "activation_function": "gelu_new",
        "resid_pdrop": 0.0,
        "embd_pdrop": 0.0,
        "attn_pdrop": 0.0,
        # Left out, they would be those of GPT-2's own vocabulary; `save_weights` puts in what it is told.
        "bos_token_id": None,
        "eos_token_id": None,
    }


def _either(values: Mapping[str, Any], name: str, other: str, default: int) -> int:
    return values.get(name, values.get(other, default))
