"""The pretrained stage: a base model that others trained, from a Hugging Face folder or a GGUF file."""

import shutil
from pathlib import Path
from typing import Any

from bessemer.config import Config
from bessemer.errors import BessemerError
from bessemer.formats.gguf import GGUF_SUFFIX
from bessemer.inference.gguf import write_model_of_gguf
from bessemer.model.config import parameter_count
from bessemer.model.folder import weight_files
from bessemer.model.weights import FolderWeights
from bessemer.runner.context import StageContext
from bessemer.tokenization.tokenizer import load_tokenizer

_BESIDE_WEIGHTS = (
    "config.json",
    "generation_config.json",
    "model.safetensors.index.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "chat_template.jinja",
    "README.md",
    "LICENSE*",
)
"""Nothing else of a folder is taken: code and pickles have no place in a model."""


class PretrainedConfig(Config):
    """Which model the recipe starts from."""

    path: str
    """A folder with config.json, safetensors weights and tokenizer.json, or a GGUF file."""


def pretrained(config: PretrainedConfig, context: StageContext) -> dict[str, Any]:
    """Make the model an artifact of the run, as every training stage reads it.

    A folder's weights keep their dtype; what a GGUF file quantised becomes bfloat16. Raises BessemerError for
    what is no whole model that Bessemer can read.
    """
    path = Path(config.path).expanduser()
    if path.suffix == GGUF_SUFFIX:
        if not path.is_file():
            raise BessemerError(f"pretrained.path {path} is no file")
        write_model_of_gguf(path, context.output)
    else:
        _copy_folder(path, context.output)
    shape, tokenizer = FolderWeights(context.output).config, load_tokenizer(context.output)
    if tokenizer.vocab_size > shape.vocab_size:
        raise BessemerError(
            f"{path}: its tokenizer has {tokenizer.vocab_size:,} tokens, its model rows for "
            f"{shape.vocab_size:,}: take both from where the model was made"
        )
    size, vocab_size = parameter_count(shape), tokenizer.vocab_size
    context.say(f"{path.name}: {shape.family}, {size:,} parameters, {vocab_size:,} tokens")
    return {"parameters": size, "vocab_size": vocab_size}


def _copy_folder(source: Path, folder: Path) -> None:
    if not source.is_dir():
        raise BessemerError(
            f"pretrained.path {source} is neither a folder nor a {GGUF_SUFFIX} file: download the model there"
        )
    beside = [path for pattern in _BESIDE_WEIGHTS for path in sorted(source.glob(pattern)) if path.is_file()]
    for path in (*beside, *weight_files(source)):
        shutil.copyfile(path, folder / path.name)
