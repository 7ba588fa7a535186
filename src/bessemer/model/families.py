"""Which Hugging Face model class a shape belongs to, and what that class cannot hold.

Every folder that Bessemer writes opens in transformers without custom code, so a shape that no class
there can express is refused when it is configured, not when it is saved.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from bessemer.model.config import MixtureConfig, ModelConfig


@dataclass(frozen=True)
class Family:
    """A model class of transformers, and the options of `ModelConfig` that it can express."""

    architecture: str
    biases: frozenset[str]
    """Sets of biases: "" for none, "qkv", "qkvo" with the output projection, "all" with the MLP too."""
    windows: Literal["none", "uniform", "pattern"] = "none"
    """Whether layers may have a sliding window: all alike, or each its own."""


FAMILIES: dict[str, Family] = {
    "gpt2": Family("GPT2LMHeadModel", frozenset({""})),
    "llama": Family("LlamaForCausalLM", frozenset({"", "qkvo", "all", "mlp"})),
    "mistral": Family("MistralForCausalLM", frozenset({""}), "uniform"),
    "ministral": Family("MinistralForCausalLM", frozenset({""}), "pattern"),
    "qwen2": Family("Qwen2ForCausalLM", frozenset({"qkv"}), "pattern"),
    "qwen3": Family("Qwen3ForCausalLM", frozenset({"", "qkvo"}), "pattern"),
    "mixtral": Family("MixtralForCausalLM", frozenset({""}), "uniform"),
    "qwen2_moe": Family("Qwen2MoeForCausalLM", frozenset({"", "qkv"}), "pattern"),
    "qwen3_moe": Family("Qwen3MoeForCausalLM", frozenset({"", "qkvo"}), "uniform"),
    "dots1": Family("Dots1ForCausalLM", frozenset({"", "qkvo"}), "pattern"),
}
"""By `model_type`."""


def model_type(config: "ModelConfig") -> str:
    """The `model_type` whose class computes what this shape does."""
    if config.family == "gpt2":
        return "gpt2"
    if config.mixture is not None:
        return _mixture_type(config, config.mixture)
    if config.qk_norm:
        return "qwen3"
    if _biases(config) == "qkv":
        return "qwen2"
    return {"none": "llama", "uniform": "mistral", "pattern": "ministral"}[_windows(config)]


def family_problems(config: "ModelConfig") -> list[str]:
    """Why the class that is nearest to this shape cannot hold it, each with its mend; empty if it can."""
    name = model_type(config)
    family = FAMILIES[name]
    biases, windows = _biases(config), _windows(config)
    problems = []
    if biases not in family.biases and name != "gpt2":
        having = "qk_norm and attention_bias" if config.qk_norm and biases == "qkv" else f"biases ({biases})"
        problems.append(
            f"{having} as configured fit no Hugging Face model class; {name}, the nearest, has "
            f"{_choices(family.biases)}: change attention_bias, attention_out_bias or mlp_bias"
        )
    if windows == "pattern" and family.windows != "pattern":
        problems.append(
            f"window_layers: {name} has one sliding_window for all layers: leave window_layers out"
        )
    if windows == "uniform" and family.windows == "none":
        problems.append(f"sliding_window: {name} has none: leave it out")
    if config.mixture is not None:
        problems += _mixture_problems(config, config.mixture, name)
    if name == "gpt2":
        problems += _gpt2_problems(config)
    return problems


def expert_remarks(config: "ModelConfig") -> list[str]:
    """What readers of a mixture make difficult: transformers and vLLM multiply all experts in one product,
    whose rows must be whole multiples of 16 bytes, which are 8 numbers of bfloat16."""
    if config.mixture is None:
        return []
    sizes = {"hidden_size": config.hidden_size, "mixture.expert_size": config.mixture.expert_size}
    odd = {name: size for name, size in sizes.items() if size % 8}
    if not odd:
        return []
    named = " and ".join(f"model.{name} {size}" for name, size in odd.items())
    mends = " and ".join(str(-(-size // 8) * 8) for size in odd.values())
    return [
        f"{named}: not a multiple of 8, so the rows of an expert's matrices are no whole multiples of 16 "
        "bytes in bfloat16, and transformers cannot compute the saved model by its default "
        f'(it can with experts_implementation="eager"): {mends} would do'
    ]


def _mixture_type(config: "ModelConfig", mixture: "MixtureConfig") -> str:
    if mixture.scores == "sigmoid":
        return "dots1"
    if mixture.shared_size:
        return "qwen2_moe"
    return "qwen3_moe" if config.qk_norm else "mixtral"


def _mixture_problems(config: "ModelConfig", mixture: "MixtureConfig", name: str) -> list[str]:
    problems = []
    if config.mlp_bias:
        problems.append("mlp_bias: experts have no biases in any family: turn it off")
    if name != "dots1" and mixture.weight_scale != 1.0:
        problems.append("mixture.weight_scale: only sigmoid scores have it: leave it out")
    if name == "mixtral":
        if not mixture.normalize_weights:
            problems.append(
                "mixture.normalize_weights is off, which mixtral cannot hold: turn qk_norm on for qwen3_moe"
            )
        if mixture.dense_layers:
            problems.append(
                "mixture.dense_layers: mixtral has experts in every layer: turn qk_norm on for qwen3_moe"
            )
    if name == "qwen2_moe" and config.qk_norm:
        problems.append(
            "qk_norm with a shared expert and softmax scores fits no class: turn qk_norm off (qwen2_moe) "
            "or set mixture.scores to sigmoid (dots1)"
        )
    if name == "dots1":
        problems += _dots1_problems(config, mixture)
    return problems


def _dots1_problems(config: "ModelConfig", mixture: "MixtureConfig") -> list[str]:
    problems = []
    if not config.qk_norm:
        problems.append("mixture.scores sigmoid needs qk_norm (dots1): turn it on")
    if mixture.num_experts < 2:
        problems.append(
            "mixture.num_experts is 1, but dots1 looks at the best two of a group: give 2 or more"
        )
    if mixture.shared_size < mixture.expert_size or mixture.shared_size % max(1, mixture.expert_size):
        problems.append(
            f"mixture.shared_size is {mixture.shared_size}; with sigmoid scores it is a multiple of "
            f"expert_size {mixture.expert_size} (dots1): set it to {mixture.expert_size}"
        )
    if sorted(mixture.dense_layers) != list(range(len(mixture.dense_layers))):
        problems.append(
            "mixture.dense_layers: with sigmoid scores (dots1) only the first layers are dense: name 0, 1, …"
        )
    return problems


def _gpt2_problems(config: "ModelConfig") -> list[str]:
    problems = []
    if config.num_attention_heads * config.head_dim != config.hidden_size:
        problems.append("GPT-2's heads together are as wide as hidden_size: leave head_dim out")
    if config.num_key_value_heads != config.num_attention_heads:
        problems.append("GPT-2 has a key/value head for each query head: leave num_key_value_heads out")
    if config.mixture is not None:
        problems.append("mixture: GPT-2 has dense feed-forward layers: choose the llama family")
    if config.future_tokens:
        problems.append("future_tokens: not for the GPT-2 shape: choose the llama family")
    return problems


def _biases(config: "ModelConfig") -> str:
    qkv, out, mlp = config.attention_bias, config.attention_out_bias, config.mlp_bias
    if mlp:
        return "all" if qkv and out else "mlp" if not qkv and not out else "some"
    return ("qkvo" if out else "qkv") if qkv else ("o" if out else "")


def _windows(config: "ModelConfig") -> str:
    if config.sliding_window is None or config.window_layers == ():
        return "none"
    windowed = config.window_layers
    return "uniform" if windowed is None or len(set(windowed)) == config.num_hidden_layers else "pattern"


def _choices(biases: frozenset[str]) -> str:
    return " or ".join(sorted(name or "none" for name in biases))
