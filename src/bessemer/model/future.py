"""Multi-token prediction: blocks after the model that learn to predict tokens further ahead, so that its
hidden states plan beyond the next one (DeepSeek-AI 2024, DeepSeek-V3, section 2.2; after Gloeckle et al.
2024). Training only: a saved folder leaves them out, and the model itself computes the same without.

Shapes: B batch, T tokens, D hidden.
"""

import torch
from torch import Tensor, nn

from bessemer.model.attention import AttentionMask
from bessemer.model.block import Block
from bessemer.model.config import ModelConfig
from bessemer.model.layers import linear, rms_norm
from bessemer.model.rope import Rotation
from bessemer.model.rows import WHOLE_ROWS, Rows, shift

__all__ = ["FutureBlock", "future_targets", "shift"]


class FutureBlock(nn.Module):
    """From the states that predict token t + d, and the embedding of that token, to states that predict
    the one after it."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.eps, hidden = config.rms_norm_eps, config.hidden_size
        self.hidden_norm = nn.Parameter(torch.ones(hidden))
        self.embedding_norm = nn.Parameter(torch.ones(hidden))
        self.join = nn.Parameter(torch.empty(hidden, 2 * hidden))
        self.block = Block(config, config.num_hidden_layers - 1)
        self.out_norm = nn.Parameter(torch.ones(hidden))

    def forward(
        self, hidden_BTD: Tensor, next_BTD: Tensor, rotation: Rotation, mask: AttentionMask
    ) -> Tensor:
        """`next_BTD` embeds the token that `hidden_BTD` predicts; the result goes to the output head."""
        parts = (
            rms_norm(hidden_BTD, self.hidden_norm, self.eps),
            rms_norm(next_BTD, self.embedding_norm, self.eps),
        )
        x_BTD = self.block(linear(torch.cat(parts, dim=-1), self.join), rotation, mask)
        return rms_norm(x_BTD, self.out_norm, self.eps)


def future_targets(
    targets_BT: Tensor, documents_BT: Tensor, distance: int, ignore: int, rows: Rows = WHOLE_ROWS
) -> Tensor:
    """The target `distance` tokens after a position's own; `ignore` where its document has ended."""
    is_same_BT = rows.shift(documents_BT, distance, -1) == documents_BT
    return torch.where(is_same_BT, rows.shift(targets_BT, distance, ignore), ignore)
