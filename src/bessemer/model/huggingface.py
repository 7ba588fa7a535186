"""Between ModelConfig and Hugging Face's config.json, as transformers 4 and 5 write it.

Reading refuses whatever would change the computation and is not supported, all problems at once;
keys that do not change it are ignored. GPT-2's keys are in `bessemer.model.huggingface_gpt2`.
"""

from collections.abc import Mapping
from typing import Any

from pydantic import TypeAdapter, ValidationError

from bessemer.config_faults import messages
from bessemer.errors import BessemerError
from bessemer.model.config import ModelConfig
from bessemer.model.families import FAMILIES, model_type
from bessemer.model.huggingface_gpt2 import gpt2_from_huggingface, gpt2_to_huggingface
from bessemer.model.huggingface_moe import mixture_from_huggingface, mixture_to_huggingface
from bessemer.model.rope_scaling import RopeScaling

# Defaults that transformers takes for keys that a config.json leaves out.
_COMMON = {"rms_norm_eps": 1e-6, "rope_theta": 10_000.0, "max_position_embeddings": 32_768}
_DEFAULTS: dict[str, dict[str, Any]] = {
    "llama": {**_COMMON, "max_position_embeddings": 2048},
    "mistral": {**_COMMON, "max_position_embeddings": 131_072, "num_key_value_heads": 8},
    "ministral": {**_COMMON, "max_position_embeddings": 131_072, "num_key_value_heads": 8},
    "qwen2": {**_COMMON, "num_key_value_heads": 32},
    "qwen3": {**_COMMON, "num_key_value_heads": 32, "head_dim": 128},
    "mixtral": {
        "rms_norm_eps": 1e-5,
        "rope_theta": 1_000_000.0,
        "max_position_embeddings": 131_072,
        "num_key_value_heads": 8,
    },
    "qwen2_moe": {**_COMMON, "num_key_value_heads": 16},
    "qwen3_moe": {**_COMMON, "num_key_value_heads": 4},
    "dots1": {**_COMMON, "max_position_embeddings": 2048, "num_key_value_heads": 32},
}
_SIZES = ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")
_QK_NORM = {"qwen3", "qwen3_moe", "dots1"}
_FULL, _SLIDING = "full_attention", "sliding_attention"


def config_from_huggingface(values: Mapping[str, Any]) -> ModelConfig:
    """Map the content of a config.json of a supported `model_type` (see `bessemer.model.families`).

    Raises BessemerError that lists every setting that is missing or not supported.
    """
    kind = values.get("model_type")
    if kind not in FAMILIES:
        known = ", ".join(FAMILIES)
        raise BessemerError(f"config.json: model_type {kind!r} is not supported; choose one of: {known}")
    problems = _strange_values(values)
    if problems:
        raise BessemerError("config.json cannot be used:\n  " + "\n  ".join(problems))
    try:
        read = gpt2_from_huggingface if kind == "gpt2" else _given
        given = read(values, problems)
        if problems:
            raise BessemerError("config.json cannot be used:\n  " + "\n  ".join(problems))
        return ModelConfig(**given)
    except ValidationError as error:
        faults = "\n  ".join(messages(error))
        raise BessemerError(f"config.json cannot be used:\n  {faults}") from error


def config_to_huggingface(config: ModelConfig, dtype: str = "float32") -> dict[str, Any]:
    """The content of config.json, of the family that `bessemer.model.families.model_type` names.

    Keys that transformers 5 renamed are written under both names, so that readers of either
    generation (and vLLM and the llama.cpp converter) find them.
    """
    kind = model_type(config)
    values: dict[str, Any] = {
        "architectures": [FAMILIES[kind].architecture],
        "model_type": kind,
        "vocab_size": config.vocab_size,
        "initializer_range": 0.02,
        "use_cache": True,
        "tie_word_embeddings": config.tie_word_embeddings,
        "torch_dtype": dtype,
        "dtype": dtype,
    }
    if kind == "gpt2":
        return values | gpt2_to_huggingface(config)
    values |= {
        "hidden_size": config.hidden_size,
        "intermediate_size": config.intermediate_size,
        "num_hidden_layers": config.num_hidden_layers,
        "num_attention_heads": config.num_attention_heads,
        "num_key_value_heads": config.num_key_value_heads,
        "head_dim": config.head_dim,
        "hidden_act": "silu",
        "max_position_embeddings": config.max_position_embeddings,
        "rms_norm_eps": config.rms_norm_eps,
        "attention_dropout": 0.0,
    }
    values |= _rope_keys(config) | _window_keys(config, kind)
    if kind == "llama":
        values |= {"attention_bias": config.attention_bias, "mlp_bias": config.mlp_bias}
    if kind in _QK_NORM:
        values |= {"attention_bias": config.attention_bias}
    if kind == "qwen2_moe":
        values |= {"qkv_bias": config.attention_bias}
    if config.mixture is not None:
        values |= mixture_to_huggingface(config.mixture, kind)
    return values


def _strange_values(values: Mapping[str, Any]) -> list[str]:
    """What is not of the kind that its key has in every family: sizes are whole numbers above zero."""
    sizes = (
        *_SIZES,
        "num_key_value_heads",
        "head_dim",
        "max_position_embeddings",
        "n_embd",
        "n_head",
        "n_layer",
    )
    problems = [
        f"{name} is {values[name]!r}: a whole number above zero belongs there"
        for name in sizes
        if values.get(name) is not None and (type(values[name]) is not int or values[name] < 1)
    ]
    kinds = {"rope_scaling": dict, "rope_parameters": dict, "layer_types": list, "mlp_only_layers": list}
    return problems + [
        f"{name} is {values[name]!r}: a JSON {'object' if kind is dict else 'list'} belongs there"
        for name, kind in kinds.items()
        if values.get(name) is not None and not isinstance(values[name], kind)
    ]


def _given(values: Mapping[str, Any], problems: list[str]) -> dict[str, Any]:
    """The arguments of ModelConfig; appends what is missing or not supported."""
    kind = values["model_type"]
    problems += [
        f"{name} is missing: take the folder's original config.json" for name in _SIZES if name not in values
    ]
    defaults = _DEFAULTS[kind]
    num_heads, hidden_size = values.get("num_attention_heads", 1), values.get("hidden_size", 1)
    num_layers = values.get("num_hidden_layers", 0)
    longest = values.get("max_position_embeddings", defaults["max_position_embeddings"])
    theta, scaling = _rope(values, defaults["rope_theta"], longest, problems)
    window, window_layers = _windows(values, kind, num_layers, problems)
    _refuse_unsupported(values, kind, problems)
    has_bias = bool(values.get("attention_bias")) and kind in {"llama", *_QK_NORM}
    has_qkv_bias = kind == "qwen2" or (kind == "qwen2_moe" and values.get("qkv_bias", True))
    num_kv_heads = values.get("num_key_value_heads", defaults.get("num_key_value_heads"))
    return {
        **{name: values.get(name) for name in _SIZES},
        "num_key_value_heads": num_heads if num_kv_heads is None else num_kv_heads,
        "head_dim": values.get("head_dim") or defaults.get("head_dim", hidden_size // num_heads),
        "max_position_embeddings": longest,
        "rope_theta": theta,
        "rope_scaling": scaling,
        "rms_norm_eps": values.get("rms_norm_eps", defaults["rms_norm_eps"]),
        "tie_word_embeddings": values.get("tie_word_embeddings", False),
        "qk_norm": kind in _QK_NORM,
        "attention_bias": has_bias or has_qkv_bias,
        "attention_out_bias": has_bias,
        "mlp_bias": kind == "llama" and bool(values.get("mlp_bias")),
        "sliding_window": window,
        "window_layers": window_layers,
        "mixture": mixture_from_huggingface(values, kind, problems),
    }


def _rope(
    values: Mapping[str, Any], default_theta: float, longest: int, problems: list[str]
) -> tuple[float, RopeScaling | None]:
    """RoPE's base and its extension: `rope_parameters` (transformers 5) or the older keys."""
    rope = values.get("rope_scaling") or values.get("rope_parameters") or {}
    if any(name in rope for name in (_FULL, _SLIDING)):
        problems.append("rope_parameters differ by layer type, which is not supported: choose another model")
        return default_theta, None
    kind = rope.get("rope_type", rope.get("type", "default"))
    theta = float(rope.get("rope_theta") or values.get("rope_theta") or default_theta)
    partial = rope.get("partial_rotary_factor", values.get("partial_rotary_factor", 1.0))
    if partial not in (None, 1.0):
        problems.append(f"partial_rotary_factor {partial} is not supported: only whole heads are rotated")
    if kind == "default":
        return theta, None
    if kind not in ("linear", "llama3", "yarn"):
        problems.append(
            f"RoPE scaling of type {kind!r} is not supported: use a model with 'default', 'linear', "
            "'llama3' or 'yarn', or the base model from before its context was extended"
        )
        return theta, None
    return theta, _scaling(dict(rope), kind, values, longest, problems)


def _scaling(
    rope: dict[str, Any], kind: str, values: Mapping[str, Any], longest: int, problems: list[str]
) -> RopeScaling | None:
    original = values.get("original_max_position_embeddings") or rope.get("original_max_position_embeddings")
    unread = ("type", "rope_theta", "partial_rotary_factor")
    given: dict[str, Any] = {name: value for name, value in rope.items() if name not in unread}
    given = {name: value for name, value in given.items() if value is not None}
    given["rope_type"] = kind
    if kind != "linear":
        given["original_max_position_embeddings"] = original or longest
    else:
        given.pop("original_max_position_embeddings", None)
    if kind == "yarn" and "factor" not in given:
        given["factor"] = longest / given["original_max_position_embeddings"]
    try:
        return TypeAdapter(RopeScaling).validate_python(given)
    except ValidationError as error:
        for fault in error.errors():
            name = ".".join(str(part) for part in fault["loc"][1:])
            problems.append(f"RoPE scaling {kind!r}: {name}: {fault['msg']}")
        return None


def _rope_keys(config: ModelConfig) -> dict[str, Any]:
    theta, scaling = config.rope_theta, config.rope_scaling
    if scaling is None:
        return {"rope_theta": theta, "rope_parameters": {"rope_type": "default", "rope_theta": theta}}
    parameters = {
        name: value
        for name, value in scaling.model_dump().items()
        if value is not None and (name, value) != ("truncate", True)
    }
    return {
        "rope_theta": theta,
        "rope_parameters": {**parameters, "rope_theta": theta},
        "rope_scaling": parameters,
    }


def _windows(
    values: Mapping[str, Any], kind: str, num_layers: int, problems: list[str]
) -> tuple[int | None, tuple[int, ...] | None]:
    """The sliding window and its layers (None: all), by the rules of each family's class."""
    if kind == "llama":
        return None, None
    is_used = values.get("use_sliding_window", False) if kind.startswith("qwen") else True
    default = None if kind == "mixtral" else 4096
    window = values.get("sliding_window", default) if is_used else None
    if kind in ("mistral", "mixtral", "qwen3_moe"):
        if values.get("layer_types") and len(set(values["layer_types"])) > 1:
            problems.append(f"layer_types: {kind} has one kind of layer: use ministral for a pattern")
        return window or None, None
    types = values.get("layer_types") or _default_layer_types(values, kind, num_layers, window)
    strange = sorted({str(name) for name in types} - {_FULL, _SLIDING})
    if strange or len(types) != num_layers:
        problems.append(
            f"layer_types has {len(types)} entries for {num_layers} layers, of kinds "
            f"{', '.join(sorted({str(name) for name in types}))}: only {_FULL} and {_SLIDING} are supported"
        )
        return None, None
    layers = tuple(layer for layer, name in enumerate(types) if name == _SLIDING)
    if not layers or not window:
        return None, None
    return window, None if len(layers) == num_layers else layers


def _default_layer_types(
    values: Mapping[str, Any], kind: str, num_layers: int, window: int | None
) -> list[str]:
    """What each class derives when layer_types is left out."""
    if not window:
        return [_FULL] * num_layers
    if kind == "ministral":
        return [_SLIDING] * num_layers
    limit = values.get("max_window_layers", 62 if kind == "dots1" else 28)
    if kind == "qwen2_moe":
        return [_SLIDING if layer % 2 == 0 and layer < limit else _FULL for layer in range(num_layers)]
    return [_SLIDING if layer >= limit else _FULL for layer in range(num_layers)]


def _window_keys(config: ModelConfig, kind: str) -> dict[str, Any]:
    windows = [config.window(layer) for layer in range(config.num_hidden_layers)]
    used = next((window for window in windows if window is not None), None)
    keys: dict[str, Any] = {}
    if kind in ("mistral", "ministral", "mixtral", "dots1"):
        keys |= {"sliding_window": used}
    if kind.startswith("qwen"):
        keys |= {"use_sliding_window": used is not None, "sliding_window": used}
    if used is not None and FAMILIES[kind].windows == "pattern":
        keys["layer_types"] = [_FULL if window is None else _SLIDING for window in windows]
        # What readers without layer_types go by, where the pattern is one that it can say.
        if kind in ("qwen2", "qwen3", "dots1"):
            keys["max_window_layers"] = next(n for n, window in enumerate(windows) if window is not None)
    return keys


def _refuse_unsupported(values: Mapping[str, Any], kind: str, problems: list[str]) -> None:
    if (activation := values.get("hidden_act", "silu")) not in ("silu", "swish"):
        problems.append(f"hidden_act {activation!r} is not supported: only 'silu' (SwiGLU) is")
    if values.get("mlp_bias") and kind != "llama":
        problems.append(f"mlp_bias is on, which {kind} does not have")
    if values.get("attention_bias") and kind not in {"llama", *_QK_NORM}:
        problems.append(f"attention_bias is on, which {kind} does not have")
    if values.get("quantization_config"):
        problems.append("quantization_config is set: load the model's unquantised weights")
