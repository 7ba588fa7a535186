"""Next-token prediction: pretraining, mid-training and instruction tuning differ only in targets."""

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from bessemer.model.future import future_targets
from bessemer.model.mixture import Routing, usage
from bessemer.model.transformer import Transformer
from bessemer.objectives.base import LossSum
from bessemer.objectives.linear_cross_entropy import SummedLoss, log_probabilities, summed_cross_entropy

if TYPE_CHECKING:
    from bessemer.training.batches import Batch

IGNORE = -100
FUTURE_WEIGHT = 0.3
"""Of the loss of tokens further ahead, for most of DeepSeek-V3's training (section 4.2)."""


class LanguageModeling:
    """Cross-entropy of the supervised tokens, in nats.

    A model with experts adds its balancing loss, one with blocks for future tokens theirs, and `z_loss` its
    penalty; the plain loss is then logged beside.
    """

    def __init__(self, future_weight: float = FUTURE_WEIGHT, z_loss: float = 0.0) -> None:
        """`future_weight` scales the mean loss of the tokens further ahead, `z_loss` the squared logarithm of
        the softmax's divisor at every supervised token (see `summed_cross_entropy`)."""
        self.future_weight, self.z_loss = future_weight, z_loss

    def count(self, batch: "Batch") -> int:
        """Supervised tokens."""
        return int((batch.targets_BT != IGNORE).sum())

    def loss(self, model: Transformer, batch: "Batch") -> LossSum:
        """Sum over supervised tokens of -log p(target), and of what the model's shape adds to each."""
        routings: list[Routing] = []
        hidden_BTD = _hidden(model, batch, routings)
        total, penalty = _summed(model, hidden_BTD, batch.targets_BT, self.z_loss)
        if not routings and not model.config.future_tokens and not self.z_loss:
            return LossSum(total)
        sums = {"next_token_loss": float(total.detach() - penalty)}
        if self.z_loss:
            sums["z_loss"] = float(penalty)
        count = self.count(batch)
        if routings and model.config.mixture is not None:
            # Of all tokens, not the supervised alone: experts are used by every one of them.
            experts = usage(routings, model.total_of_tokens)
            total = total + model.config.mixture.balance_loss * experts.balance_loss() * count
            sums["expert_imbalance"] = experts.imbalance() * count
        if model.config.future_tokens:
            future = future_loss(model, hidden_BTD, batch)
            total = total + self.future_weight * future
            sums["future_loss"] = float(future.detach())
        return LossSum(total, sums)


def future_loss(model: Transformer, hidden_BTD: Tensor, batch: "Batch") -> Tensor:
    """The summed loss of the tokens further ahead, the mean over how far (DeepSeek-V3, equation 25)."""
    states = model.future_hidden(hidden_BTD, batch.token_ids_BT, batch.documents_BT, batch.positions_BT)
    losses = []
    for distance, state_BTD in enumerate(states, start=1):
        targets_BT = future_targets(batch.targets_BT, batch.documents_BT, distance, IGNORE, model.rows)
        losses.append(_summed(model, state_BTD, targets_BT).total)
    return torch.stack(losses).mean()


def target_log_probabilities(model: Transformer, batch: "Batch") -> tuple[Tensor, Tensor]:
    """Log-probability of every supervised target [S], float32, and its flat index in B·T [S]."""
    hidden_SD, targets_S, places_S = _supervised(_hidden(model, batch, None), batch.targets_BT)
    return log_probabilities(hidden_SD, model.head_weight, targets_S, division=model.division), places_S


def _summed(model: Transformer, hidden_BTD: Tensor, targets_BT: Tensor, z_loss: float = 0.0) -> SummedLoss:
    """The loss of all supervised targets."""
    hidden_SD, targets_S, _ = _supervised(hidden_BTD, targets_BT)
    return summed_cross_entropy(
        hidden_SD, model.head_weight, targets_S, division=model.division, z_loss=z_loss
    )


def _supervised(hidden_BTD: Tensor, targets_BT: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Hidden state [S, D], target [S] and flat index in B·T [S] of every supervised position.

    Logits are computed for these alone: in instruction tuning that is a fraction.
    """
    targets = targets_BT.flatten()
    places_S = (targets != IGNORE).nonzero().squeeze(1)
    hidden_SD = hidden_BTD.flatten(0, 1)
    if len(places_S) < len(targets):
        hidden_SD = hidden_SD.index_select(0, places_S)
    return hidden_SD, targets.index_select(0, places_S), places_S


def _hidden(model: Transformer, batch: "Batch", routings: list[Routing] | None) -> Tensor:
    return model(
        batch.token_ids_BT,
        documents_BT=batch.documents_BT,
        positions_BT=batch.positions_BT,
        routings=routings,
    )


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
