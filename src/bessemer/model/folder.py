"""Models on disk: Hugging Face folders with safetensors, written with fixed bytes and read back strictly."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from bessemer.errors import BessemerError
from bessemer.model.huggingface import config_from_huggingface, config_to_huggingface
from bessemer.model.transformer import Block, Transformer
from bessemer.runner.files import write_atomically

TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja")
_SPECIAL_IDS = ("bos_token_id", "eos_token_id", "pad_token_id")


def huggingface_tensors(model: Transformer) -> dict[str, Tensor]:
    """Every parameter under its Hugging Face name, as views into the model's own (fused) parameters.

    Writing to a view writes to the model. A tied head is not listed.
    """
    views: dict[str, Tensor] = {"model.embed_tokens.weight": model.embedding.detach()}
    for layer, block in enumerate(model.blocks):
        assert isinstance(block, Block)
        for name, view in _block_tensors(block).items():
            views[f"model.layers.{layer}.{name}"] = view.detach()
    views["model.norm.weight"] = model.final_norm.detach()
    if model.head is not None:
        views["lm_head.weight"] = model.head.detach()
    return views


def _block_tensors(block: Block) -> dict[str, Tensor]:
    config = block.config
    q_width = config.num_attention_heads * config.head_dim
    kv_width = config.num_key_value_heads * config.head_dim
    q, k, v = block.qkv.split((q_width, kv_width, kv_width))
    gate, up = block.gate_up.chunk(2)
    tensors = {
        "input_layernorm.weight": block.attention_norm,
        "self_attn.q_proj.weight": q,
        "self_attn.k_proj.weight": k,
        "self_attn.v_proj.weight": v,
        "self_attn.o_proj.weight": block.attention_out,
        "post_attention_layernorm.weight": block.feed_forward_norm,
        "mlp.gate_proj.weight": gate,
        "mlp.up_proj.weight": up,
        "mlp.down_proj.weight": block.down,
    }
    if block.qkv_bias is not None:
        biases = block.qkv_bias.split((q_width, kv_width, kv_width))
        tensors |= {f"self_attn.{name}_proj.bias": bias for name, bias in zip("qkv", biases, strict=True)}
    if block.q_norm is not None and block.k_norm is not None:
        tensors |= {"self_attn.q_norm.weight": block.q_norm, "self_attn.k_norm.weight": block.k_norm}
    return tensors


def save_model(
    model: Transformer,
    folder: Path,
    *,
    tokenizer_folder: Path | None,
    generation: Mapping[str, Any],
    card: str,
    dtype: torch.dtype = torch.float32,
) -> None:
    """Write a folder that transformers, vLLM and the llama.cpp converter open; same model, same bytes.

    `generation` is the content of generation_config.json (such as eos_token_id, temperature); its
    special token ids go to config.json too. `card` becomes README.md. The tokenizer's files are
    copied from `tokenizer_folder`, unless it is None. Raises BessemerError when that folder lacks
    tokenizer.json.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {name: view.to("cpu", dtype).contiguous() for name, view in huggingface_tensors(model).items()}
    write_atomically(folder / "model.safetensors", save(tensors, metadata={"format": "pt"}))
    config = config_to_huggingface(model.config, dtype=str(dtype).removeprefix("torch."))
    config |= {name: generation[name] for name in _SPECIAL_IDS if name in generation}
    _write_json(folder / "config.json", config)
    _write_json(folder / "generation_config.json", dict(generation))
    write_atomically(folder / "README.md", card.encode())
    if tokenizer_folder is not None:
        _copy_tokenizer(tokenizer_folder, folder)


def load_model(
    folder: Path, compute_dtype: torch.dtype = torch.float32, device: torch.device | str = "cpu"
) -> Transformer:
    """Read a Hugging Face folder (single or sharded safetensors; Llama, Mistral, Qwen2, Qwen3).

    Parameters become float32 whatever the file's dtype. Raises BessemerError that names every tensor
    that is missing, unexpected or of another shape, or what is wrong with the folder.
    """
    model = Transformer(config_from_huggingface(_read_json(folder / "config.json")), compute_dtype)
    targets = huggingface_tensors(model)
    problems: list[str] = []
    found: set[str] = set()
    for path in _weight_files(folder):
        found |= _read_weights(path, targets, problems)
    problems += [f"{name}: missing" for name in targets if name not in found]
    if problems:
        raise BessemerError(
            f"the weights in {folder} do not fit its config.json:\n  "
            + "\n  ".join(problems)
            + "\nTake the folder whole from where it was made; config.json and weights must belong together."
        )
    return model.to(device)


def check_reload(model: Transformer, folder: Path, seed: int, num_tokens: int = 64) -> float:
    """Largest absolute difference between the logits of `model` and of the folder read back.

    Both run on the same random token ids drawn from `seed`; zero for a float32 folder.
    """
    config = model.config
    device = model.embedding.device
    generator = torch.Generator().manual_seed(seed)
    shape = (2, min(num_tokens, config.max_position_embeddings))
    token_ids_BT = torch.randint(config.vocab_size, shape, generator=generator).to(device)
    reloaded = load_model(folder, model.compute_dtype, device)
    with torch.inference_mode():
        live_BTV = model.logits(model(token_ids_BT))
        read_BTV = reloaded.logits(reloaded(token_ids_BT))
    return float((live_BTV - read_BTV).abs().max())


def _read_weights(path: Path, targets: Mapping[str, Tensor], problems: list[str]) -> set[str]:
    """Copy one file's tensors into `targets`; returns their names and appends what does not fit."""
    try:
        with safe_open(path, framework="pt") as file:
            names = set(file.keys())
            for name in sorted(names):
                shape = tuple(file.get_slice(name).get_shape())
                if name not in targets:
                    if not _may_ignore(name, targets):
                        problems.append(f"{name}: unexpected (in {path.name}, shape {list(shape)})")
                elif shape != targets[name].shape:
                    expected = list(targets[name].shape)
                    problems.append(f"{name}: shape {list(shape)}, expected {expected} (in {path.name})")
                else:
                    targets[name].copy_(file.get_tensor(name))
    except SafetensorError as error:
        raise BessemerError(f"{path} is not a whole safetensors file ({error}): copy it again") from error
    return names


def _may_ignore(name: str, targets: Mapping[str, Tensor]) -> bool:
    """Tied heads that were saved all the same, and the RoPE buffers of old files."""
    return (name == "lm_head.weight" and name not in targets) or name.endswith("rotary_emb.inv_freq")


def _weight_files(folder: Path) -> list[Path]:
    single, index = folder / "model.safetensors", folder / "model.safetensors.index.json"
    if single.is_file():
        return [single]
    if not index.is_file():
        raise BessemerError(
            f"{folder} has neither {single.name} nor {index.name}: only safetensors weights are read; "
            "convert other formats with transformers' save_pretrained first"
        )
    names = sorted(set(_read_json(index).get("weight_map", {}).values()))
    absent = [name for name in names if not (folder / name).is_file()]
    if absent:
        raise BessemerError(
            f"{index} names files that are not there: {', '.join(absent)}; download them again"
        )
    return [folder / name for name in names]


def _read_json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise BessemerError(f"{path} is missing: {path.parent} is not a model folder") from None
    except json.JSONDecodeError as error:
        raise BessemerError(f"{path} is not valid JSON ({error}): copy it again") from error
    if not isinstance(value, dict):
        raise BessemerError(f"{path} does not hold a JSON object: copy it again")
    return value


def _write_json(path: Path, value: Mapping[str, Any]) -> None:
    write_atomically(path, json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False).encode() + b"\n")


def _copy_tokenizer(source: Path, folder: Path) -> None:
    if not (source / TOKENIZER_FILES[0]).is_file():
        raise BessemerError(f"{source} has no {TOKENIZER_FILES[0]}: give the folder of a trained tokenizer")
    for name in TOKENIZER_FILES:
        if (source / name).is_file():
            shutil.copyfile(source / name, folder / name)
