"""The seam for processes that hold parts of each row's tokens. `WHOLE_ROWS` is the row in one process;
`bessemer.training.parallel.context` spreads rows.

Shapes as in `bessemer.model.attention`.
"""

from typing import Protocol

import torch
from torch import Tensor

from bessemer.model.attention import AttentionMask, attend, causal_mask, document_mask


class Rows(Protocol):
    """What looks beyond one token of a row."""

    def mask(self, token_ids_BT: Tensor, documents_BT: Tensor | None, window: int | None) -> AttentionMask:
        """What the tokens held here see; `attend` is given it back. Without documents, each row is one."""
        ...

    def attend(self, q_BTHE: Tensor, k_BTKE: Tensor, v_BTKE: Tensor, mask: AttentionMask) -> Tensor:
        """o_BTHE: attention of the queries held here over the row's keys."""
        ...

    def shift(self, values_BT: Tensor, distance: int, fill: int) -> Tensor:
        """For each token held here, the value `distance` places later in its row; `fill` after its end."""
        ...

    def total(self, x: Tensor) -> Tensor:
        """The sum of a statistic of tokens over the processes that hold parts of the same rows."""
        ...


class WholeRows:
    """One process holds all of a row."""

    def mask(self, token_ids_BT: Tensor, documents_BT: Tensor | None, window: int | None) -> AttentionMask:
        if documents_BT is not None:
            return document_mask(documents_BT, window)
        return causal_mask(token_ids_BT.shape[1], token_ids_BT.device, window)

    def attend(self, q_BTHE: Tensor, k_BTKE: Tensor, v_BTKE: Tensor, mask: AttentionMask) -> Tensor:
        return attend(q_BTHE, k_BTKE, v_BTKE, mask)

    def shift(self, values_BT: Tensor, distance: int, fill: int) -> Tensor:
        return shift(values_BT, distance, fill)

    def total(self, x: Tensor) -> Tensor:
        return x


WHOLE_ROWS: Rows = WholeRows()


def shift(values_BT: Tensor, distance: int, fill: int) -> Tensor:
    """Each row moved left by `distance` places; `fill` enters from the right."""
    moved_BT = torch.full_like(values_BT, fill)
    if distance < values_BT.shape[1]:
        moved_BT[:, : values_BT.shape[1] - distance] = values_BT[:, distance:]
    return moved_BT
