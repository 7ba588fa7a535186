"""The end of every training stage: write the model folder, and prove that it reads back the same."""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from bessemer.errors import BessemerError
from bessemer.model.config import ModelConfig, parameter_count
from bessemer.model.folder import check_reload, save_model
from bessemer.model.transformer import Transformer
from bessemer.tokenization.tokenizer import Tokenizer

MAX_LOGIT_DIFFERENCE = 1e-4
"""Largest absolute difference of float32 logits between the live model and its reloaded folder."""


def write_model(
    model: Transformer, folder: Path, tokenizer_folder: Path, tokenizer: Tokenizer, stage: str
) -> float:
    """Save a Hugging Face folder and compare its logits with the live model's; returns the difference.

    Raises BessemerError when they differ: the folder is then not to be trusted.
    """
    write_model_folder(model, folder, tokenizer_folder, tokenizer, stage)
    difference = check_reload(model, folder, seed=0)
    if not difference <= MAX_LOGIT_DIFFERENCE:
        raise BessemerError(
            f"the model folder {folder} gives logits that differ by {difference:.2e} from the live model's: "
            "its weights are damaged or the disk is faulty; run again"
        )
    return difference


def write_model_folder(
    model: Transformer, folder: Path, tokenizer_folder: Path, tokenizer: Tokenizer, stage: str
) -> None:
    """Save a Hugging Face folder with its tokenizer and a card of two lines."""
    generation = {
        "eos_token_id": [tokenizer.end_of_turn_id, tokenizer.end_of_text_id],
        "pad_token_id": tokenizer.padding_id,
    }
    card = (
        f"# {stage}\n\nA decoder-only transformer of {parameter_count(model.config):,} parameters, "
        f"written by the stage `{stage}` of a Bessemer run.\n"
    )
    save_model(model, folder, tokenizer_folder=tokenizer_folder, generation=generation, card=card)


def bare_model(shape: ModelConfig, weights: Mapping[str, Tensor]) -> Transformer:
    """A model that holds `weights`, without copying them; good for saving alone."""
    with torch.device("meta"):
        bare = Transformer(shape)
    bare.load_state_dict(weights, assign=True)
    return bare
