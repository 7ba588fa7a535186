"""The seam for several processes that divide one model: between them every matrix, the vocabulary, and the
tokens between matrices. `WHOLE` is the model in one process; `bessemer.training.parallel.tensor` divides.

Between its matrices a process works on its own tokens alone. A matrix that reads the residual stream is
divided by rows and sees all tokens; one that writes to it is divided by columns, so that its products are
parts of sums.

Shapes: B batch, T tokens, N tokens of all rows, D hidden, V vocabulary, S supervised tokens; O and I are the
sizes of a matrix. [..., T, D] means that the tokens are the last dimension but one.
"""

from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from bessemer.model.kernels import is_fused, linear_cross_entropy
from bessemer.model.layers import linear


class Division(Protocol):
    """What a process does where the others of its group are concerned."""

    def own(self, x_BT: Tensor) -> Tensor:
        """This process's tokens of all; they are dimension 1."""
        ...

    def gather(self, x_TD: Tensor) -> Tensor:
        """All tokens from every process's own, [..., T, D]."""
        ...

    def reduce(self, x_TD: Tensor) -> Tensor:
        """This process's own tokens of the sum of every process's part, [..., T, D]."""
        ...

    def read(self, x_TI: Tensor, weight_OI: Tensor, bias_O: Tensor | None) -> Tensor:
        """Own tokens through the rows of a matrix that are held here: all tokens."""
        ...

    def write(self, x_TI: Tensor, weight_OI: Tensor, bias_O: Tensor | None) -> Tensor:
        """All tokens through the columns of a matrix that are held here: own tokens, whole sums."""
        ...

    def embed(self, token_ids_BT: Tensor, weight_VD: Tensor, dtype: torch.dtype) -> Tensor:
        """Embeddings of own tokens, from the ids of all."""
        ...

    def log_probabilities(
        self, hidden_SD: Tensor, weight_VD: Tensor, targets_S: Tensor
    ) -> tuple[Tensor, Tensor]:
        """log softmax(hidden weight^T)[target] of every token over the whole vocabulary, and log Z, the
        logarithm of the softmax's divisor: float32 [S] each. The logits held here exist all at once."""
        ...

    def head_rows(self, weight_VD: Tensor) -> int:
        """Columns of those logits; the same number for every process."""
        ...

    def logits(self, hidden: Tensor, weight_VD: Tensor) -> Tensor:
        """Hidden states [..., D] to float32 logits of the whole vocabulary [..., V]."""
        ...

    def total(self, x: Tensor) -> Tensor:
        """The sum of a statistic of tokens over the processes that divide them."""
        ...


class Whole:
    """One process holds all."""

    def own(self, x_BT: Tensor) -> Tensor:
        return x_BT

    def gather(self, x_TD: Tensor) -> Tensor:
        return x_TD

    def reduce(self, x_TD: Tensor) -> Tensor:
        return x_TD

    def read(self, x_TI: Tensor, weight_OI: Tensor, bias_O: Tensor | None) -> Tensor:
        return linear(x_TI, weight_OI, bias_O)

    def write(self, x_TI: Tensor, weight_OI: Tensor, bias_O: Tensor | None) -> Tensor:
        return linear(x_TI, weight_OI, bias_O)

    def embed(self, token_ids_BT: Tensor, weight_VD: Tensor, dtype: torch.dtype) -> Tensor:
        return F.embedding(token_ids_BT, weight_VD).to(dtype)

    def log_probabilities(
        self, hidden_SD: Tensor, weight_VD: Tensor, targets_S: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The fused kernel on a CPU, torch's operations elsewhere."""
        if is_fused(hidden_SD):
            return linear_cross_entropy(hidden_SD, weight_VD, targets_S)
        logits_SV = F.linear(hidden_SD, weight_VD.to(hidden_SD.dtype)).float()
        log_probabilities_S = -F.cross_entropy(logits_SV, targets_S, reduction="none")
        # From the target's logit: a softmax of its own would take another pass over all logits.
        at_target_S = logits_SV.gather(1, targets_S.unsqueeze(1)).squeeze(1)
        return log_probabilities_S, at_target_S - log_probabilities_S

    def head_rows(self, weight_VD: Tensor) -> int:
        return len(weight_VD)

    def logits(self, hidden: Tensor, weight_VD: Tensor) -> Tensor:
        return linear(hidden, weight_VD).float()

    def total(self, x: Tensor) -> Tensor:
        return x


WHOLE: Division = Whole()
