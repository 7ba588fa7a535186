"""Numbers of rows that a model gives, however many processes hold it.

A way of scoring is a function of the model and a batch. `Evaluate` applies it to batches: here in one
process; `bessemer.training.parallel.together` does it where the model is divided and nobody has the whole.

Shapes: B rows, T tokens, K numbers of a row, N documents, V vocabulary, S supervised tokens.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from bessemer.model.transformer import Transformer
from bessemer.objectives.language_modeling import IGNORE, sum_by_document, target_log_probabilities
from bessemer.training.batches import Batch

Scores = Callable[[Transformer, Batch], Tensor]
"""float32 [B, K]: numbers of each row that are sums over its supervised tokens. What holds a part of each
row's tokens computes its part of the sums."""
Evaluate = Callable[[Scores, Sequence[Batch]], list[Tensor]]
"""The scores of every batch, without gradients, the same on all processes, each of which is given all
batches."""


def evaluate_alone(model: Transformer) -> Evaluate:
    """In one process."""

    @torch.no_grad()
    def evaluate(scores: Scores, batches: Sequence[Batch]) -> list[Tensor]:
        was_training = model.training
        model.eval()
        found = [scores(model, batch.to(model.device)) for batch in batches]
        model.train(was_training)
        return found

    return evaluate


def document_log_probabilities(num_documents: int) -> Scores:
    """[B, N]: the summed log-probability of the supervised tokens of each document of a row; `num_documents`
    must exceed every document's number."""

    def scores(model: Transformer, batch: Batch) -> Tensor:
        log_probabilities_S, places_S = target_log_probabilities(model, batch)
        return sum_by_document(log_probabilities_S, places_S, batch, num_documents)

    return scores


def last_logits(model: Transformer, batch: Batch) -> Tensor:
    """[B, V]: logits after the last token of each row, which is the one that has a target, whatever it is."""
    hidden_BTD = model(batch.token_ids_BT, documents_BT=batch.documents_BT, positions_BT=batch.positions_BT)
    rows_B, places_B = (batch.targets_BT != IGNORE).nonzero(as_tuple=True)
    logits_BV = model.logits(hidden_BTD[rows_B, places_B])
    found = logits_BV.new_zeros(len(batch.targets_BT), logits_BV.shape[1])
    return found.index_add(0, rows_B, logits_BV)
