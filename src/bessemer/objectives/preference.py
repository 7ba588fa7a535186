"""Direct preference optimisation (Rafailov et al. 2023, arXiv:2305.18290, equation 7)."""

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from bessemer.model.transformer import Transformer
from bessemer.objectives.base import LossSum
from bessemer.objectives.language_modeling import sum_by_document, target_log_probabilities
from bessemer.training.batches import Batch


def dpo_loss(
    chosen: Tensor, rejected: Tensor, reference_chosen: Tensor, reference_rejected: Tensor, beta: float
) -> Tensor:
    """-log σ(β·[(log π(y_w) - log π_ref(y_w)) - (log π(y_l) - log π_ref(y_l))]), per pair.

    Inputs are summed log-probabilities of whole answers, shape [P], float32. Equals ln 2 where
    policy and reference agree.
    """
    margin = (chosen - reference_chosen) - (rejected - reference_rejected)
    return -F.logsigmoid(beta * margin)


@dataclass(frozen=True)
class PairBatch:
    """P pairs in rows: the chosen and the rejected conversation of a pair are documents of one row."""

    batch: Batch
    num_documents: int
    """Documents a row has at most, padding included."""
    chosen_slots_P: Tensor
    """int64: row · num_documents + document of the chosen answer."""
    rejected_slots_P: Tensor
    reference_chosen_P: Tensor
    """float32: the reference model's summed log-probability of the chosen answer."""
    reference_rejected_P: Tensor
    chosen_tokens_P: Tensor
    """int64: supervised tokens of the chosen answer."""


class DirectPreference:
    """The DPO loss, with an optional likelihood term that keeps chosen answers probable."""

    def __init__(self, beta: float, chosen_weight: float = 0.0) -> None:
        """`chosen_weight`: weight of the mean negative log-likelihood of the chosen answer's tokens
        (the RPO term, Pang et al. 2024, arXiv:2404.19733, equation 1)."""
        self._beta = beta
        self._chosen_weight = chosen_weight

    def count(self, batch: PairBatch) -> int:
        """Pairs."""
        return len(batch.chosen_slots_P)

    def loss(self, model: Transformer, batch: PairBatch) -> LossSum:
        """Sum over the pairs."""
        log_probabilities_S, places_S = target_log_probabilities(model, batch.batch)
        sums = sum_by_document(log_probabilities_S, places_S, batch.batch, batch.num_documents).flatten()
        chosen, rejected = sums[batch.chosen_slots_P], sums[batch.rejected_slots_P]
        losses = dpo_loss(chosen, rejected, batch.reference_chosen_P, batch.reference_rejected_P, self._beta)
        if self._chosen_weight:
            losses = losses - self._chosen_weight * chosen / batch.chosen_tokens_P
        chosen_gain = (chosen - batch.reference_chosen_P).detach()
        rejected_gain = (rejected - batch.reference_rejected_P).detach()
        return LossSum(
            losses.sum(),
            {
                "margin": float((chosen_gain - rejected_gain).sum()),
                "accuracy": float((chosen_gain > rejected_gain).sum()),
                "chosen_gain": float(chosen_gain.sum()),
                "rejected_gain": float(rejected_gain.sum()),
            },
        )
