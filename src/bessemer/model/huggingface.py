"""Between ModelConfig and Hugging Face's config.json, as transformers 4 and 5 write it.

Reading refuses whatever would change the computation and is not supported, all problems at once;
keys that do not change it are ignored.
"""

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from bessemer.errors import BessemerError
from bessemer.model.config import ModelConfig

# Defaults that transformers takes for keys that a config.json leaves out.
_DEFAULTS: dict[str, dict[str, Any]] = {
    "llama": {"rms_norm_eps": 1e-6, "rope_theta": 10_000.0, "max_position_embeddings": 2048},
    "mistral": {"rms_norm_eps": 1e-6, "rope_theta": 10_000.0, "max_position_embeddings": 131_072},
    "qwen2": {"rms_norm_eps": 1e-6, "rope_theta": 10_000.0, "max_position_embeddings": 32_768},
    "qwen3": {"rms_norm_eps": 1e-6, "rope_theta": 10_000.0, "max_position_embeddings": 32_768},
}
_KEY_VALUE_HEADS = {"mistral": 8, "qwen2": 32, "qwen3": 32}
_HEAD_DIM = {"qwen3": 128}
_SIZES = ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")


def config_from_huggingface(values: Mapping[str, Any]) -> ModelConfig:
    """Map the content of a config.json of model_type llama, mistral, qwen2 or qwen3.

    Raises BessemerError that lists every setting that is missing or not supported.
    """
    model_type = values.get("model_type")
    if model_type not in _DEFAULTS:
        known = ", ".join(sorted(_DEFAULTS))
        raise BessemerError(
            f"config.json: model_type {model_type!r} is not supported; choose one of: {known}"
        )
    rope_theta, rope_problems = _rope(values, _DEFAULTS[model_type]["rope_theta"])
    problems = _missing(values) + rope_problems + _unsupported(values, model_type)
    if problems:
        raise BessemerError("config.json cannot be used:\n  " + "\n  ".join(problems))
    num_heads = values["num_attention_heads"]
    num_kv_heads = _or(values.get("num_key_value_heads"), _KEY_VALUE_HEADS.get(model_type, num_heads))
    head_dim = _or(values.get("head_dim"), _HEAD_DIM.get(model_type, values["hidden_size"] // num_heads))
    try:
        return ModelConfig(
            **{name: values[name] for name in _SIZES},
            num_key_value_heads=num_kv_heads,
            head_dim=head_dim,
            max_position_embeddings=values.get(
                "max_position_embeddings", _DEFAULTS[model_type]["max_position_embeddings"]
            ),
            rope_theta=rope_theta,
            rms_norm_eps=values.get("rms_norm_eps", _DEFAULTS[model_type]["rms_norm_eps"]),
            tie_word_embeddings=values.get("tie_word_embeddings", False),
            qk_norm=model_type == "qwen3",
            attention_bias=model_type == "qwen2",
        )
    except ValidationError as error:
        faults = "\n  ".join(fault["msg"] for fault in error.errors())
        raise BessemerError(f"config.json cannot be used:\n  {faults}") from error


def config_to_huggingface(config: ModelConfig, dtype: str = "float32") -> dict[str, Any]:
    """The content of config.json: Qwen3 with QK-norm, Qwen2 with biases, Llama otherwise.

    Keys that transformers 5 renamed are written under both names, so that readers of either
    generation (and vLLM and the llama.cpp converter) find them.
    """
    if config.qk_norm:
        model_type, architecture = "qwen3", "Qwen3ForCausalLM"
    elif config.attention_bias:
        model_type, architecture = "qwen2", "Qwen2ForCausalLM"
    else:
        model_type, architecture = "llama", "LlamaForCausalLM"
    values: dict[str, Any] = {
        "architectures": [architecture],
        "model_type": model_type,
        "vocab_size": config.vocab_size,
        "hidden_size": config.hidden_size,
        "intermediate_size": config.intermediate_size,
        "num_hidden_layers": config.num_hidden_layers,
        "num_attention_heads": config.num_attention_heads,
        "num_key_value_heads": config.num_key_value_heads,
        "head_dim": config.head_dim,
        "hidden_act": "silu",
        "max_position_embeddings": config.max_position_embeddings,
        "initializer_range": 0.02,
        "rms_norm_eps": config.rms_norm_eps,
        "use_cache": True,
        "tie_word_embeddings": config.tie_word_embeddings,
        "rope_theta": config.rope_theta,
        "rope_parameters": {"rope_type": "default", "rope_theta": config.rope_theta},
        "attention_dropout": 0.0,
        "torch_dtype": dtype,
        "dtype": dtype,
    }
    if model_type == "llama":
        values |= {"attention_bias": False, "mlp_bias": False}
    if model_type == "qwen3":
        values |= {"attention_bias": False}
    if model_type in ("qwen2", "qwen3"):
        values |= {"use_sliding_window": False, "sliding_window": None}
    return values


def _or(value: Any, default: Any) -> Any:
    return default if value is None else value


def _missing(values: Mapping[str, Any]) -> list[str]:
    return [
        f"{name} is missing: take the folder's original config.json" for name in _SIZES if name not in values
    ]


def _rope(values: Mapping[str, Any], default_theta: float) -> tuple[float, list[str]]:
    """RoPE's base and what is wrong: `rope_parameters` (transformers 5) wins over the older keys."""
    rope = values.get("rope_parameters") or values.get("rope_scaling") or {}
    rope_type = rope.get("rope_type", rope.get("type", "default"))
    theta = float(rope.get("rope_theta", values.get("rope_theta", default_theta)))
    if rope_type != "default":
        return theta, [
            f"RoPE scaling of type {rope_type!r} is not supported: use a model with plain RoPE "
            "(rope_type 'default'), or the base model from before its context was extended"
        ]
    partial = rope.get("partial_rotary_factor", values.get("partial_rotary_factor", 1.0))
    if partial not in (None, 1.0):
        return theta, [f"partial_rotary_factor {partial} is not supported: only whole heads are rotated"]
    return theta, []


def _unsupported(values: Mapping[str, Any], model_type: str) -> list[str]:
    problems = []
    if (activation := values.get("hidden_act", "silu")) not in ("silu", "swish"):
        problems.append(f"hidden_act {activation!r} is not supported: only 'silu' (SwiGLU) is")
    if values.get("mlp_bias"):
        problems.append("mlp_bias is on: biases in the feed-forward layers are not supported")
    if model_type in ("llama", "qwen3") and values.get("attention_bias"):
        problems.append("attention_bias is on: a bias on the output projection is not supported")
    if values.get("quantization_config"):
        problems.append("quantization_config is set: load the model's unquantised weights")
    window, longest = values.get("sliding_window"), values.get("max_position_embeddings", 0)
    uses_window = values.get("use_sliding_window", False) if model_type != "mistral" else window is not None
    if uses_window and window is not None and window < longest:
        problems.append(
            f"sliding_window {window} is shorter than max_position_embeddings {longest}, which is not "
            f"supported: set max_position_embeddings to {window} or less in config.json to stay inside it"
        )
    return problems
