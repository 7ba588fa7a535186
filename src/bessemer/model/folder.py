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
from bessemer.model.tensor_names import canonical_name, huggingface_tensors, is_superfluous
from bessemer.model.transformer import Transformer
from bessemer.runner.files import write_atomically

TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja")
MAX_SHARD_BYTES = 5 * 10**9
"""Largest weight file that `save_model` writes, the limit of the hub's usual folders."""
_SPECIAL_IDS = ("bos_token_id", "eos_token_id", "pad_token_id")


def save_model(
    model: Transformer,
    folder: Path,
    *,
    tokenizer_folder: Path | None,
    generation: Mapping[str, Any],
    card: str,
    dtype: torch.dtype = torch.float32,
    max_shard_bytes: int = MAX_SHARD_BYTES,
) -> None:
    """Write a folder that transformers, vLLM and the llama.cpp converter open; same model, same bytes.

    `generation` is the content of generation_config.json (such as eos_token_id, temperature); its
    special token ids go to config.json too. Weights beyond `max_shard_bytes` are cut into several files
    with an index. `card` becomes README.md. The tokenizer's files are
    copied from `tokenizer_folder`, unless it is None. Raises BessemerError when that folder lacks
    tokenizer.json.
    """
    folder.mkdir(parents=True, exist_ok=True)
    _write_weights(model, folder, dtype, max_shard_bytes)
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
    """Read a Hugging Face folder (single or sharded safetensors) of a family in `bessemer.model.families`.

    Parameters become float32 whatever the file's dtype. Raises BessemerError that names every tensor
    that is missing, unexpected or of another shape, or what is wrong with the folder.
    """
    model = Transformer(config_from_huggingface(_read_json(folder / "config.json")), compute_dtype)
    targets = huggingface_tensors(model)
    problems: list[str] = []
    found: set[str] = set()
    for path in _weight_files(folder):
        found |= _read_weights(path, targets, model.config.family, problems)
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


def _write_weights(model: Transformer, folder: Path, dtype: torch.dtype, max_shard_bytes: int) -> None:
    """model.safetensors, or shards that each stay under the limit (or hold one tensor) and their index,
    under the names that transformers gives them. Files of an earlier save that are not part of it go."""
    shards = _shards(huggingface_tensors(model), dtype, max_shard_bytes)
    names = ["model.safetensors"]
    if len(shards) > 1:
        names = [
            f"model-{number:05d}-of-{len(shards):05d}.safetensors" for number in range(1, len(shards) + 1)
        ]
    for name, views in zip(names, shards, strict=True):
        tensors = {key: view.to("cpu", dtype).contiguous() for key, view in views.items()}
        write_atomically(folder / name, save(tensors, metadata={"format": "pt"}))
    index = folder / "model.safetensors.index.json"
    if len(shards) > 1:
        weight_map = {key: name for name, views in zip(names, shards, strict=True) for key in views}
        total_size = sum(view.numel() for views in shards for view in views.values()) * dtype.itemsize
        _write_json(index, {"metadata": {"total_size": total_size}, "weight_map": weight_map})
    else:
        index.unlink(missing_ok=True)
    for path in folder.glob("model*.safetensors"):
        if path.name not in names:
            path.unlink()


def _shards(views: Mapping[str, Tensor], dtype: torch.dtype, max_shard_bytes: int) -> list[dict[str, Tensor]]:
    shards: list[dict[str, Tensor]] = [{}]
    used_bytes = 0
    for name, view in views.items():
        num_bytes = view.numel() * dtype.itemsize
        if shards[-1] and used_bytes + num_bytes > max_shard_bytes:
            shards.append({})
            used_bytes = 0
        shards[-1][name] = view
        used_bytes += num_bytes
    return shards


def _read_weights(path: Path, targets: Mapping[str, Tensor], family: str, problems: list[str]) -> set[str]:
    """Copy one file's tensors into `targets`; returns their names and appends what does not fit."""
    found: set[str] = set()
    try:
        with safe_open(path, framework="pt") as file:
            for key in sorted(file.keys()):
                name = canonical_name(key, family)
                shape = tuple(file.get_slice(key).get_shape())
                if name in targets and shape == targets[name].shape:
                    targets[name].copy_(file.get_tensor(key))
                elif name in targets:
                    expected = list(targets[name].shape)
                    problems.append(f"{name}: shape {list(shape)}, expected {expected} (in {path.name})")
                elif name != "lm_head.weight" and not is_superfluous(
                    name, family
                ):  # a tied head may be saved
                    problems.append(f"{name}: unexpected (in {path.name}, shape {list(shape)})")
                found.add(name)
    except SafetensorError as error:
        raise BessemerError(f"{path} is not a whole safetensors file ({error}): copy it again") from error
    return found


def _weight_files(folder: Path) -> list[Path]:
    single, index = folder / "model.safetensors", folder / "model.safetensors.index.json"
    if single.is_file():
        return [single]
    if not index.is_file():
        raise BessemerError(
            f"{folder} has neither {single.name} nor {index.name}: only safetensors weights are read; "
            "convert other formats with transformers' save_pretrained first"
        )
    weight_map = _read_json(index).get("weight_map")
    if not isinstance(weight_map, dict) or not all(isinstance(name, str) for name in weight_map.values()):
        raise BessemerError(f"{index} has no weight_map from tensors to files: copy it again")
    names = sorted(set(weight_map.values()))
    outside = [name for name in names if Path(name).name != name]
    if outside:
        raise BessemerError(f"{index} names files outside its folder: {', '.join(outside)}; do not use it")
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
