"""A GGUF file as a starting point: unpacked into a model folder that every stage and command reads."""

from pathlib import Path

import torch

from bessemer.errors import BessemerError
from bessemer.formats.gguf import GgufFile
from bessemer.model.config import parameter_count
from bessemer.model.folder import save_model
from bessemer.model.gguf import load_gguf, special_ids
from bessemer.tokenization.gguf import write_gguf_tokenizer


def unpack_gguf(path: Path, folder: Path, dtype: torch.dtype = torch.bfloat16) -> str:
    """Write the model and tokenizer of a GGUF file as a Hugging Face folder; says what it wrote.

    bfloat16 holds what quantised weights say to a part in 256; give float32 to keep every bit. Raises
    BessemerError for a folder that is there already, and for a file that cannot be read.
    """
    if folder.exists():
        raise BessemerError(f"{folder} is there already: name a folder that is not")
    return write_model_of_gguf(path, folder, dtype)


def write_model_of_gguf(path: Path, folder: Path, dtype: torch.dtype = torch.bfloat16) -> str:
    """As `unpack_gguf`, into a folder that may be there."""
    metadata = GgufFile(path).metadata
    model = load_gguf(path)
    name = metadata.get("general.name", path.stem)
    card = f"# {name}\n\nUnpacked from the GGUF file {path.name} by Bessemer.\n"
    write_gguf_tokenizer(metadata, folder, path)
    save_model(model, folder, tokenizer_folder=None, generation=special_ids(metadata), card=card, dtype=dtype)
    return f"{folder}: {name}, {parameter_count(model.config):,} parameters"
