"""Next-token prediction: pretraining, mid-training and instruction tuning differ only in targets."""

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from bessemer.model.kernels import is_fused, linear_cross_entropy
from bessemer.model.transformer import Transformer
from bessemer.objectives.base import LossSum

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
        return LossSum(-target_log_probabilities(model, batch)[0].sum())


def target_log_probabilities(model: Transformer, batch: "Batch") -> tuple[Tensor, Tensor]:
    """Log-probability of every supervised target [S], float32, and its flat index in B·T [S].

    Logits are computed for supervised positions only: in instruction tuning that is a fraction.
    """
    hidden_BTD = model(batch.token_ids_BT, documents_BT=batch.documents_BT, positions_BT=batch.positions_BT)
    targets = batch.targets_BT.flatten()
    places = (targets != IGNORE).nonzero().squeeze(1)
    hidden_SD = hidden_BTD.flatten(0, 1)
    if len(places) < len(targets):
        hidden_SD = hidden_SD.index_select(0, places)
    targets_S = targets.index_select(0, places)
    if is_fused(hidden_SD):
        return linear_cross_entropy(hidden_SD, model.head_weight, targets_S), places
    return -F.cross_entropy(model.logits(hidden_SD), targets_S, reduction="none"), places


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
