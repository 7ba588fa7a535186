"""Models from GGUF files: llama.cpp's names for shapes and tensors, in ours.

Architectures: llama (with Mistral's and Mixtral's files, which go by that name), qwen2, qwen3, qwen3moe.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import ValidationError
from torch import Tensor

from bessemer.config_faults import messages
from bessemer.errors import BessemerError
from bessemer.formats.gguf import GgufFile
from bessemer.model.config import MixtureConfig, ModelConfig
from bessemer.model.rope_scaling import LinearScaling, Llama3Scaling, RopeScaling, YarnScaling
from bessemer.model.tensor_names import huggingface_tensors
from bessemer.model.transformer import Transformer

_ARCHITECTURES = ("llama", "qwen2", "qwen3", "qwen3moe")
_ROPE_FACTORS = "rope_freqs.weight"
_NAMES = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "lm_head": "output",
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "mlp.gate": "ffn_gate_inp",
    "block_sparse_moe.gate": "ffn_gate_inp",
    "gate_proj": "ffn_gate_exps",
    "up_proj": "ffn_up_exps",
    "down_proj": "ffn_down_exps",
    "w1": "ffn_gate_exps",
    "w3": "ffn_up_exps",
    "w2": "ffn_down_exps",
}
_EXPERT = re.compile(r"(?:mlp|block_sparse_moe)\.experts\.(\d+)\.(\w+)")


def load_gguf(
    path: Path, compute_dtype: torch.dtype = torch.float32, device: torch.device | str = "cpu"
) -> Transformer:
    """Read a model of a GGUF file; parameters become float32 whatever the file's quantisation.

    Raises BessemerError for a file that is damaged, of another architecture, or whose tensors do not
    fit its metadata.
    """
    file = GgufFile(path)
    model = Transformer(config_from_gguf(file), compute_dtype)
    architecture = file.metadata["general.architecture"]
    problems: list[str] = []
    used = {_ROPE_FACTORS}
    for name, target in huggingface_tensors(model).items():
        theirs, expert = gguf_name(name)
        used.add(theirs)
        shape = file.tensors[theirs].shape if theirs in file.tensors else None
        found = shape if shape is None or expert is None else shape[1:]
        if found != target.shape:
            problems.append(f"{theirs}: " + ("missing" if found is None else f"shape {list(found)}"))
            continue
        value = torch.from_numpy(np.array(file.read(theirs, expert)))
        if architecture == "llama" and theirs.split(".")[-2] in ("attn_q", "attn_k"):
            value = _halves_apart(value, model.config.head_dim)
        target.copy_(value)
    problems += [f"{name}: unexpected" for name in file.tensors if name not in used]
    if problems:
        raise BessemerError(f"the tensors of {path} do not fit its metadata:\n  " + "\n  ".join(problems))
    return model.to(device)


def gguf_name(name: str) -> tuple[str, int | None]:
    """llama.cpp's name of a tensor of a Hugging Face folder, and the expert in it where all are one."""
    stem, _, kind = name.rpartition(".")
    prefix, expert = "", None
    if match := re.fullmatch(r"model\.layers\.(\d+)\.(.+)", stem):
        prefix, stem = f"blk.{match[1]}.", match[2]
    if match := _EXPERT.fullmatch(stem):
        expert, stem = int(match[1]), match[2]
    return f"{prefix}{_NAMES[stem]}.{kind}", expert


def config_from_gguf(file: GgufFile) -> ModelConfig:
    """The shape that a file's metadata describes. Raises BessemerError for what is missing or not
    supported."""
    architecture = file.metadata.get("general.architecture")
    if architecture not in _ARCHITECTURES:
        raise BessemerError(
            f"{file.path}: architecture {architecture!r} is not supported; choose one of: "
            f"{', '.join(_ARCHITECTURES)}"
        )
    keys = _Keys(file, architecture)
    hidden_size, num_heads = keys.size("embedding_length"), keys.size("attention.head_count")
    head_dim = keys.size("attention.key_length", hidden_size // max(1, num_heads))
    embedding = file.tensors.get("token_embd.weight")
    if embedding is None:
        raise BessemerError(f"{file.path} has no token_embd.weight: it holds no whole model")
    theta = keys.number("rope.freq_base", 10_000.0)
    has_bias = "blk.0.attn_q.bias" in file.tensors
    if (turned := keys.size("rope.dimension_count", head_dim)) != head_dim:
        raise BessemerError(f"{file.path}: only {turned} of {head_dim} dimensions are rotated: not supported")
    try:
        return ModelConfig(
            vocab_size=embedding.shape[0],
            hidden_size=hidden_size,
            num_hidden_layers=keys.size("block_count"),
            num_attention_heads=num_heads,
            num_key_value_heads=keys.size("attention.head_count_kv", num_heads),
            head_dim=head_dim,
            intermediate_size=keys.size("feed_forward_length", 1),
            max_position_embeddings=keys.size("context_length"),
            rope_theta=theta,
            rope_scaling=_scaling(file, keys, head_dim, theta),
            rms_norm_eps=keys.number("attention.layer_norm_rms_epsilon", 1e-6),
            tie_word_embeddings="output.weight" not in file.tensors,
            qk_norm="blk.0.attn_q_norm.weight" in file.tensors,
            attention_bias=has_bias,
            attention_out_bias="blk.0.attn_output.bias" in file.tensors,
            mixture=_mixture(keys),
        )
    except ValidationError as error:
        faults = "\n  ".join(messages(error))
        raise BessemerError(f"{file.path} cannot be used:\n  {faults}") from error


class _Keys:
    """Metadata under an architecture's prefix."""

    def __init__(self, file: GgufFile, architecture: str) -> None:
        self._file, self._prefix = file, architecture

    def get(self, name: str) -> Any:
        return self._file.metadata.get(f"{self._prefix}.{name}")

    def size(self, name: str, default: int | None = None) -> int:
        """A whole number; some files have one for every layer, which must then be alike."""
        value = self.get(name)
        if isinstance(value, list) and len(set(value)) == 1:
            value = value[0]
        value = default if value is None else value
        if not isinstance(value, int) or isinstance(value, bool):
            raise BessemerError(
                f"{self._file.path}: {self._prefix}.{name} is {value!r}: one whole number is needed there"
            )
        return value

    def number(self, name: str, default: float) -> float:
        value = self.get(name)
        return default if not isinstance(value, int | float) else float(f"{value:.7g}")


def _mixture(keys: _Keys) -> MixtureConfig | None:
    num_experts = keys.size("expert_count", 0)
    if not num_experts:
        return None
    size = keys.size("expert_feed_forward_length", keys.size("feed_forward_length", 1))
    return MixtureConfig(
        num_experts=num_experts, experts_per_token=keys.size("expert_used_count"), expert_size=size
    )


def _scaling(file: GgufFile, keys: _Keys, head_dim: int, theta: float) -> RopeScaling | None:
    if _ROPE_FACTORS in file.tensors:
        return _llama3_scaling(file.path, file.read(_ROPE_FACTORS), head_dim, theta)
    kind, factor = keys.get("rope.scaling.type"), keys.number("rope.scaling.factor", 1.0)
    if kind == "linear":
        return LinearScaling(factor=factor)
    if kind == "yarn":
        original = keys.size("rope.scaling.original_context_length")
        return YarnScaling(factor=factor, original_max_position_embeddings=original)
    if kind in (None, "none"):
        return None
    raise BessemerError(f"{file.path}: RoPE scaling of type {kind!r} is not supported")


def _llama3_scaling(path: Path, factors: np.ndarray, head_dim: int, theta: float) -> Llama3Scaling:
    """Files of Llama 3 hold the divisor of every frequency, not the rule: the rule of the released models
    (ramp from 1 to 4 turns in 8,192 tokens) is taken if it gives these divisors."""
    scaling = Llama3Scaling(
        factor=float(factors.max()),
        low_freq_factor=1.0,
        high_freq_factor=4.0,
        original_max_position_embeddings=8192,
    )
    plain_E2 = theta ** -(torch.arange(0, head_dim, 2, dtype=torch.float32) / head_dim)
    expected = (plain_E2 / scaling.frequencies(plain_E2, theta)).numpy()
    if factors.shape != expected.shape or not np.allclose(factors, expected, rtol=1e-3):
        raise BessemerError(
            f"{path}: {_ROPE_FACTORS} does not follow Llama 3's rule, the only one known here"
        )
    return scaling


def _halves_apart(rows: Tensor, head_dim: int) -> Tensor:
    """Undo llama.cpp's order of a rotated head's rows, in which the two of a pair are neighbours; here the
    first of all pairs come first (see `bessemer.model.rope`)."""
    heads = rows.unflatten(0, (-1, head_dim // 2, 2))
    return heads.transpose(1, 2).reshape(rows.shape)


def special_ids(metadata: Mapping[str, Any]) -> dict[str, int]:
    """The file's special tokens as generation_config.json names them."""
    names = {"bos_token_id": "bos", "eos_token_id": "eos", "pad_token_id": "padding"}
    values = {name: metadata.get(f"tokenizer.ggml.{theirs}_token_id") for name, theirs in names.items()}
    return {name: value for name, value in values.items() if isinstance(value, int)}
