"""Next-token prediction: pretraining, mid-training and instruction tuning differ only in targets."""

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from bessemer.model.transformer import Transformer
from bessemer.objectives.base import LossSum
from bessemer.objectives.linear_cross_entropy import log_probabilities, summed_log_probability

if TYPE_CHECKING:
    from bessemer.training.batches import Batch

IGNORE = -100


class LanguageModeling:
    """Cross-entropy of the supervised tokens, in nats."""

    def count(self, batch: "Batch") -> int:
        """Supervised tokens."""
        return int((batch.targets_BT != IGNORE).sum())

    def loss(self, model: Transformer, batch: "Batch") -> LossSum:
        """Sum over supervised tokens of -log p(target)."""
        hidden_SD, targets_S, _ = _supervised(model, batch)
        return LossSum(-summed_log_probability(hidden_SD, model.head_weight, targets_S))


def target_log_probabilities(model: Transformer, batch: "Batch") -> tuple[Tensor, Tensor]:
    """Log-probability of every supervised target [S], float32, and its flat index in B·T [S]."""
    hidden_SD, targets_S, places_S = _supervised(model, batch)
    return log_probabilities(hidden_SD, model.head_weight, targets_S), places_S


def _supervised(model: Transformer, batch: "Batch") -> tuple[Tensor, Tensor, Tensor]:
    """Hidden state [S, D], target [S] and flat index in B·T [S] of every supervised position.

    Logits are computed for these alone: in instruction tuning that is a fraction.
    """
    hidden_BTD = model(batch.token_ids_BT, documents_BT=batch.documents_BT, positions_BT=batch.positions_BT)
    targets = batch.targets_BT.flatten()
    places_S = (targets != IGNORE).nonzero().squeeze(1)
    hidden_SD = hidden_BTD.flatten(0, 1)
    if len(places_S) < len(targets):
        hidden_SD = hidden_SD.index_select(0, places_S)
    return hidden_SD, targets.index_select(0, places_S), places_S


def sum_by_document(
    log_probabilities_S: Tensor, places_S: Tensor, batch: "Batch", num_documents: int
) -> Tensor:
    """Sum log-probabilities over each document of each row → [B, num_documents], float32.

    Column d holds document d of the row; `num_documents` must exceed every document number.
    """
    num_rows, num_tokens = batch.documents_BT.shape
    rows = places_S // num_tokens
    slots = rows * num_documents + batch.documents_BT.flatten().index_select(0, places_S)
    sums = torch.zeros(num_rows * num_documents, dtype=log_probabilities_S.dtype, device=places_S.device)
    return sums.index_add(0, slots, log_probabilities_S).view(num_rows, num_documents)
