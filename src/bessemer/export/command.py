"""`bessemer export MODEL --to …`: a checked copy of a model folder."""

import shutil
from fnmatch import fnmatch
from pathlib import Path

from bessemer.errors import BessemerError, ConfigError
from bessemer.model.folder import load_model
from bessemer.runner.files import fsync_tree, replace_folder, sha256_of
from bessemer.runner.progress import data_size

_FORMATS = ("gguf", "ggml", "onnx", "mlx", "awq", "gptq", "openvino", "coreml", "tensorrt")
"""Names that are taken for a format, not for a folder."""
_MODEL_FILES = (
    "config.json",
    "generation_config.json",
    "*.safetensors",
    "*.safetensors.index.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "chat_template.jinja",
    "README.md",
    "LICENSE*",
)


def export_model(model_folder: Path, to: str) -> str:
    """Copy a model folder to the folder `to`, whole or not at all; returns what was done, in words.

    The weights must fit the config and the copy must equal the source byte for byte. An older model at
    `to` is replaced. Raises ConfigError for a format that is not supported, BessemerError when `to`
    holds anything but a model, or when the source is not sound.
    """
    if to.lower() in _FORMATS:
        raise ConfigError(
            f"--to {to}: only Hugging Face folders are written so far; give a folder (./{to} for one of that "
            "name) and convert that with the format's own tool, such as llama.cpp's convert_hf_to_gguf.py"
        )
    source, target = model_folder.resolve(), Path(to).expanduser().resolve()
    _check_target(source, target)
    load_model(source)
    names = [path.name for path in sorted(source.iterdir()) if path.is_file() and _is_model_file(path.name)]
    partial = target.with_name(f".{target.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    for name in names:
        shutil.copyfile(source / name, partial / name)
    changed = [name for name in names if sha256_of(source / name) != sha256_of(partial / name)]
    if changed:
        raise BessemerError(
            f"copied to {partial}, but not equal to the source: {', '.join(changed)}. The disk is faulty or "
            "the model was being written; try again"
        )
    fsync_tree(partial)
    replace_folder(partial, target)
    size_bytes = sum((target / name).stat().st_size for name in names)
    return f"{target}: {len(names)} files, {data_size(size_bytes)}, equal to {model_folder}; the weights load"


def _is_model_file(name: str) -> bool:
    return any(fnmatch(name, pattern) for pattern in _MODEL_FILES)


def _check_target(source: Path, target: Path) -> None:
    """Raise BessemerError where a copy would destroy something."""
    if target == source or target in source.parents or source in target.parents:
        raise BessemerError(
            f"--to {target} and the model {source} lie within each other: give another folder"
        )
    if not target.exists():
        return
    if not target.is_dir():
        raise BessemerError(f"--to {target} is a file: give a folder")
    others = sorted(path.name for path in target.iterdir() if path.is_dir() or not _is_model_file(path.name))
    is_model = (target / "config.json").is_file()
    if others or (any(target.iterdir()) and not is_model):
        found = ", ".join(others[:5]) or "no config.json"
        raise BessemerError(
            f"--to {target} holds something other than a model ({found}) and is left alone: "
            "give a new or empty folder, or one that holds only an older copy"
        )
