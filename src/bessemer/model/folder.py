"""Models on disk: Hugging Face folders with safetensors, written with fixed bytes and read back strictly."""

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from bessemer.errors import BessemerError
from bessemer.formats.gguf import GGUF_SUFFIX
from bessemer.model.config import ModelConfig
from bessemer.model.gguf import load_gguf
from bessemer.model.huggingface import config_from_huggingface, config_to_huggingface
from bessemer.model.tensor_names import (
    canonical_name,
    huggingface_tensors,
    is_superfluous,
    parameter_of_tensors,
)
from bessemer.model.transformer import Transformer
from bessemer.runner.files import write_atomically
from bessemer.tokenization.tokenizer import copy_tokenizer

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
    """`save_weights` of a model in this process."""
    save_weights(
        model.config,
        model.state_dict(),
        folder,
        tokenizer_folder=tokenizer_folder,
        generation=generation,
        card=card,
        dtype=dtype,
        max_shard_bytes=max_shard_bytes,
    )


def parameter_order(config: ModelConfig) -> list[str]:
    """The names of the parameters that a folder holds, in the order in which `save_weights` asks for them."""
    return list(dict.fromkeys(parameter_of_tensors(Transformer.without_values(config)).values()))


def save_weights(
    config: ModelConfig,
    weights: Mapping[str, Tensor],
    folder: Path,
    *,
    tokenizer_folder: Path | None,
    generation: Mapping[str, Any],
    card: str,
    dtype: torch.dtype = torch.float32,
    max_shard_bytes: int = MAX_SHARD_BYTES,
) -> None:
    """Write a folder that transformers, vLLM and the llama.cpp converter open; same model, same bytes.

    `weights` are asked for once each, in `parameter_order`, and let go of when the file that they belong to
    is written: no more than one file's are held. `generation` is the content of generation_config.json (such
    as eos_token_id, temperature); its special token ids go to config.json too. Weights beyond
    `max_shard_bytes` are cut into several files with an index. `card` becomes README.md. The tokenizer's
    files are copied from `tokenizer_folder`, unless it is None. Raises BessemerError when that folder lacks
    tokenizer.json.
    """
    folder.mkdir(parents=True, exist_ok=True)
    _write_weights(config, weights, folder, dtype, max_shard_bytes)
    shape = config_to_huggingface(config, dtype=str(dtype).removeprefix("torch."))
    shape |= {name: generation[name] for name in _SPECIAL_IDS if name in generation}
    _write_json(folder / "config.json", shape)
    _write_json(folder / "generation_config.json", dict(generation))
    write_atomically(folder / "README.md", card.encode())
    if tokenizer_folder is not None:
        copy_tokenizer(tokenizer_folder, folder)


def load_model(
    folder: Path, compute_dtype: torch.dtype = torch.float32, device: torch.device | str = "cpu"
) -> Transformer:
    """Read a Hugging Face folder (single or sharded safetensors) of a family in `bessemer.model.families`,
    or a GGUF file (see `bessemer.model.gguf`).

    Parameters become float32 whatever the file's dtype. Raises BessemerError that names every tensor
    that is missing, unexpected or of another shape, or what is wrong with the folder.
    """
    if folder.suffix == GGUF_SUFFIX:
        return load_gguf(folder, compute_dtype, device)
    model = Transformer(read_config(folder), compute_dtype)
    targets = huggingface_tensors(model)
    places = locate_weights(folder, model.config, targets)
    for path in sorted(set(places.values())):
        with opened(path) as file:
            for key in sorted(file.keys()):
                name = canonical_name(key, model.config.family)
                if places.get(name) == path:
                    targets[name].copy_(file.get_tensor(key))
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


def _write_weights(
    config: ModelConfig,
    weights: Mapping[str, Tensor],
    folder: Path,
    dtype: torch.dtype,
    max_shard_bytes: int,
) -> None:
    """model.safetensors, or shards that each stay under the limit (or hold one tensor) and their index,
    under the names that transformers gives them. Files of an earlier save that are not part of it go."""
    shapes = Transformer.without_values(config)
    shards = _shards(huggingface_tensors(shapes), dtype, max_shard_bytes)
    names = ["model.safetensors"]
    if len(shards) > 1:
        names = [
            f"model-{number:05d}-of-{len(shards):05d}.safetensors" for number in range(1, len(shards) + 1)
        ]
    values = _OneByOne(weights, parameter_of_tensors(shapes))
    for name, views in zip(names, shards, strict=True):
        tensors = {key: values.take(key, view).to("cpu", dtype).contiguous() for key, view in views.items()}
        write_atomically(folder / name, save(tensors, metadata={"format": "pt"}))
        del tensors
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


class _OneByOne:
    """A folder's tensors from the model's, which are asked for once and kept until their last view is
    taken."""

    def __init__(self, weights: Mapping[str, Tensor], parameter_of: Mapping[str, str]) -> None:
        self._weights, self._parameter_of = weights, parameter_of
        self._num_left = Counter(parameter_of.values())
        self._kept: dict[str, Tensor] = {}

    def take(self, key: str, like: Tensor) -> Tensor:
        """The tensor `key`, which lies in its parameter as `like` does in one on the meta device."""
        name = self._parameter_of[key]
        if name not in self._kept:
            self._kept[name] = self._weights[name].detach().contiguous()
        value = self._kept[name]
        self._num_left[name] -= 1
        if not self._num_left[name]:
            del self._kept[name]
        return value.as_strided(like.shape, like.stride(), value.storage_offset() + like.storage_offset())


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


def read_config(folder: Path) -> ModelConfig:
    """The shape of a Hugging Face folder's model."""
    return config_from_huggingface(_read_json(folder / "config.json"))


def locate_weights(folder: Path, config: ModelConfig, targets: Mapping[str, Tensor]) -> dict[str, Path]:
    """The file that holds each of a model's tensors, by the name of `huggingface_tensors`; only headers are
    read. Raises BessemerError that names every tensor that is missing, unexpected or of another shape."""
    problems: list[str] = []
    places: dict[str, Path] = {}
    found: set[str] = set()
    for path in weight_files(folder):
        with opened(path) as file:
            for key in sorted(file.keys()):
                name, shape = canonical_name(key, config.family), tuple(file.get_slice(key).get_shape())
                found.add(name)
                if name in targets and shape == targets[name].shape:
                    places[name] = path
                elif name in targets:
                    expected = list(targets[name].shape)
                    problems.append(f"{name}: shape {list(shape)}, expected {expected} (in {path.name})")
                elif name != "lm_head.weight" and not is_superfluous(name, config.family):
                    # A tied head may be saved.
                    problems.append(f"{name}: unexpected (in {path.name}, shape {list(shape)})")
    problems += [f"{name}: missing" for name in targets if name not in found]
    if problems:
        raise BessemerError(
            f"the weights in {folder} do not fit its config.json:\n  "
            + "\n  ".join(problems)
            + "\nTake the folder whole from where it was made; config.json and weights must belong together."
        )
    return places


@contextmanager
def opened(path: Path) -> Iterator[Any]:
    """A safetensors file. Raises BessemerError where it is not whole."""
    try:
        with safe_open(path, framework="pt") as file:
            yield file
    except SafetensorError as error:
        raise BessemerError(f"{path} is not a whole safetensors file ({error}): copy it again") from error


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files of a model folder. Raises BessemerError where they are not all there."""
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
