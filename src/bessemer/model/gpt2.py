"""One layer of the GPT-2 shape: LayerNorm, as many key/value heads as query heads, GELU, biases
everywhere (Radford et al. 2019, section 2.3). Positions are learnt and added to the embedding, so that
attention has no rotation.

Shapes as in `bessemer.model.block`.
"""

import torch
from torch import Tensor, nn

from bessemer.model.attention import AttentionMask
from bessemer.model.block import Cache
from bessemer.model.config import ModelConfig
from bessemer.model.division import WHOLE, Division
from bessemer.model.layers import gelu, layer_norm
from bessemer.model.rows import WHOLE_ROWS, Rows


class Gpt2Block(nn.Module):
    """One layer."""

    def __init__(self, config: ModelConfig, layer: int) -> None:
        super().__init__()
        self.config, self.layer, self.window = config, layer, None
        self.division: Division = WHOLE
        self.rows: Rows = WHOLE_ROWS
        hidden, width = config.hidden_size, config.intermediate_size
        self.attention_norm = nn.Parameter(torch.ones(hidden))
        self.attention_norm_bias = nn.Parameter(torch.zeros(hidden))
        self.qkv = nn.Parameter(torch.empty(3 * hidden, hidden))
        self.qkv_bias = nn.Parameter(torch.zeros(3 * hidden))
        self.attention_out = nn.Parameter(torch.empty(hidden, hidden))
        self.attention_out_bias = nn.Parameter(torch.zeros(hidden))
        self.feed_forward_norm = nn.Parameter(torch.ones(hidden))
        self.feed_forward_norm_bias = nn.Parameter(torch.zeros(hidden))
        self.up = nn.Parameter(torch.empty(width, hidden))
        self.up_bias = nn.Parameter(torch.zeros(width))
        self.down = nn.Parameter(torch.empty(hidden, width))
        self.down_bias = nn.Parameter(torch.zeros(hidden))

    def forward(self, x_BTD: Tensor, mask: AttentionMask, cache: Cache | None = None) -> Tensor:
        """x_BTD to x_BTD."""
        eps = self.config.rms_norm_eps
        normed_BTD = layer_norm(x_BTD, self.attention_norm, self.attention_norm_bias, eps)
        x_BTD = x_BTD + self._attention(normed_BTD, mask, cache)
        normed_BTD = layer_norm(x_BTD, self.feed_forward_norm, self.feed_forward_norm_bias, eps)
        hidden_BTF = gelu(self.division.read(normed_BTD, self.up, self.up_bias))
        return x_BTD + self.division.write(hidden_BTF, self.down, self.down_bias)

    def _attention(self, x_BTD: Tensor, mask: AttentionMask, cache: Cache | None) -> Tensor:
        qkv_BTX = self.division.read(x_BTD, self.qkv, self.qkv_bias)
        heads_BTNE = qkv_BTX.unflatten(-1, (-1, self.config.head_dim))
        q_BTHE, k_BSHE, v_BSHE = heads_BTNE.chunk(3, dim=2)
        if cache is not None:
            k_BSHE, v_BSHE = cache.store(self.layer, k_BSHE, v_BSHE)
        o_BTHE = self.rows.attend(q_BTHE, k_BSHE, v_BSHE, mask)
        return self.division.write(o_BTHE.flatten(2), self.attention_out, self.attention_out_bias)
