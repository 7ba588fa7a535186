"""The end of every training stage: write the model folder, and prove that it reads back the same."""

import math
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from bessemer.errors import BessemerError
from bessemer.evaluation.scores import last_logits
from bessemer.model.config import ModelConfig, parameter_count
from bessemer.model.folder import check_reload, parameter_order, save_weights
from bessemer.model.weights import FolderWeights
from bessemer.objectives.language_modeling import IGNORE
from bessemer.tokenization.tokenizer import Tokenizer
from bessemer.training.batches import Batch
from bessemer.training.parallel.ranks import Ranks

MAX_LOGIT_DIFFERENCE = 1e-4
"""Largest absolute difference of float32 logits between the live model and its reloaded folder."""


def write_model(
    trained: nn.Module, ranks: Ranks, folder: Path, tokenizer_folder: Path, tokenizer: Tokenizer, stage: str
) -> float:
    """Save a Hugging Face folder and compare its logits with the live model's; returns the difference. Called
    by all ranks: the first one writes, to its `folder`.

    Raises BessemerError when they differ: the folder is then not to be trusted.
    """
    view, folder = ranks.view(trained), ranks.agreed(folder)
    if ranks.is_main:
        write_model_folder(view.config, view.weights, folder, tokenizer_folder, tokenizer, stage)
    elif view.whole is None:
        for name in parameter_order(view.config):
            view.weights[name]
    ranks.wait()
    if view.whole is None:
        difference = _divided_difference(trained, ranks, folder)
    else:
        difference = check_reload(view.whole, folder, seed=0) if ranks.is_main else 0.0
    if math.isnan(difference):
        raise BessemerError(
            "training ended with weights that are not finite: lower optimizer.learning_rate and "
            "optimizer.muon_learning_rate, or lengthen schedule.warmup"
        )
    if not difference <= MAX_LOGIT_DIFFERENCE:
        raise BessemerError(
            f"the model folder {folder} gives logits that differ by {difference:.2e} from the live model's: "
            "its weights are damaged or the disk is faulty; run again"
        )
    return difference


def write_model_folder(
    shape: ModelConfig,
    weights: Mapping[str, Tensor],
    folder: Path,
    tokenizer_folder: Path,
    tokenizer: Tokenizer,
    stage: str,
) -> None:
    """Save a Hugging Face folder with its tokenizer and a card of two lines."""
    generation = {
        # What comes before a document is the end of another. Without it, readers take their family's default,
        # which for GPT-2 lies outside most vocabularies.
        "bos_token_id": tokenizer.end_of_text_id,
        "eos_token_id": [tokenizer.end_of_turn_id, tokenizer.end_of_text_id],
        "pad_token_id": tokenizer.padding_id,
    }
    card = (
        f"# {stage}\n\nA decoder-only transformer of {parameter_count(shape):,} parameters, "
        f"written by the stage `{stage}` of a Bessemer run.\n"
    )
    save_weights(shape, weights, folder, tokenizer_folder=tokenizer_folder, generation=generation, card=card)


def _divided_difference(trained: nn.Module, ranks: Ranks, folder: Path) -> float:
    """As `check_reload`, of a model that nobody has the whole of: every rank reads its part back, in place of
    its own. The logits are those after the last tokens of random rows."""
    view = ranks.view(trained)
    generator = torch.Generator().manual_seed(0)
    ids_BT = torch.randint(
        view.config.vocab_size, (8, min(64, view.config.max_position_embeddings)), generator=generator
    )
    targets_BT = torch.full_like(ids_BT, IGNORE)
    targets_BT[:, -1] = 0
    positions_BT = torch.arange(ids_BT.shape[1]).expand_as(ids_BT).contiguous()
    batch = Batch(ids_BT, targets_BT, torch.zeros_like(ids_BT, dtype=torch.int32), positions_BT)
    live_BV = view.evaluate(last_logits, [batch])[0]
    ranks.fill(trained, FolderWeights(folder), parameter_order(view.config))
    read_BV = view.evaluate(last_logits, [batch])[0]
    return float((live_BV - read_BV).abs().max())
