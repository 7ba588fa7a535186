"""One layer of the Llama / Qwen3 family: attention, then a dense feed-forward part or experts.

Shapes: B batch, T tokens, S cached tokens, D hidden, H query heads, K key/value heads, E head
dimension, F feed-forward.
"""

from typing import Protocol

import torch
from torch import Tensor, nn

from bessemer.model.attention import AttentionMask
from bessemer.model.config import ModelConfig
from bessemer.model.division import WHOLE, Division
from bessemer.model.heads import split_heads
from bessemer.model.layers import rms_norm, swiglu
from bessemer.model.mixture import Mixture, NoteRouting
from bessemer.model.rope import Rotation
from bessemer.model.rows import WHOLE_ROWS, Rows


class Cache(Protocol):
    """Keys and values of earlier tokens, as `bessemer.inference.cache` keeps them."""

    def positions(self, num_tokens: int) -> Tensor:
        """positions_BT of the next `num_tokens` tokens of every row."""
        ...

    def mask(self, num_tokens: int, window: int | None = None) -> AttentionMask:
        """What those tokens see, over the S slots that `store` returns; at most `window` of them."""
        ...

    def store(self, layer: int, k_BTKE: Tensor, v_BTKE: Tensor) -> tuple[Tensor, Tensor]:
        """Keep the new keys and values; return k_BSKE and v_BSKE, old and new."""
        ...


class Block(nn.Module):
    """One layer. Query, key and value projections are one matrix, and so are gate and up: fewer,
    larger products. Saved folders hold them apart (see `bessemer.model.tensor_names`)."""

    def __init__(self, config: ModelConfig, layer: int) -> None:
        super().__init__()
        self.config, self.layer, self.window = config, layer, config.window(layer)
        self.division: Division = WHOLE
        self.rows: Rows = WHOLE_ROWS
        hidden, head_dim, width = config.hidden_size, config.head_dim, config.intermediate_size
        qkv_width = (config.num_attention_heads + 2 * config.num_key_value_heads) * head_dim
        is_mixture = config.is_mixture(layer)
        has_mlp_bias = config.mlp_bias and not is_mixture
        self.attention_norm = nn.Parameter(torch.ones(hidden))
        self.qkv = nn.Parameter(torch.empty(qkv_width, hidden))
        self.qkv_bias = _zeros(qkv_width) if config.attention_bias else None
        self.q_norm = nn.Parameter(torch.ones(head_dim)) if config.qk_norm else None
        self.k_norm = nn.Parameter(torch.ones(head_dim)) if config.qk_norm else None
        self.attention_out = nn.Parameter(torch.empty(hidden, config.num_attention_heads * head_dim))
        self.attention_out_bias = _zeros(hidden) if config.attention_out_bias else None
        self.feed_forward_norm = nn.Parameter(torch.ones(hidden))
        self.gate_up = None if is_mixture else nn.Parameter(torch.empty(2 * width, hidden))
        self.gate_up_bias = _zeros(2 * width) if has_mlp_bias else None
        self.down = None if is_mixture else nn.Parameter(torch.empty(hidden, width))
        self.down_bias = _zeros(hidden) if has_mlp_bias else None
        self.mixture = Mixture(hidden, config.mixture) if is_mixture and config.mixture else None

    def forward(
        self,
        x_BTD: Tensor,
        rotation: Rotation,
        mask: AttentionMask,
        cache: Cache | None = None,
        note_routing: NoteRouting | None = None,
    ) -> Tensor:
        """x_BTD to x_BTD; `note_routing` is told what a router decided."""
        x_BTD = x_BTD + self._attention(x_BTD, rotation, mask, cache)
        normed_BTD = rms_norm(x_BTD, self.feed_forward_norm, self.config.rms_norm_eps)
        return x_BTD + self._feed_forward(normed_BTD, note_routing)

    def _feed_forward(self, x_BTD: Tensor, note_routing: NoteRouting | None) -> Tensor:
        if self.mixture is not None:
            return self.mixture(x_BTD, note_routing)
        assert self.gate_up is not None
        assert self.down is not None
        gate_up_BTF = self.division.read(x_BTD, self.gate_up, self.gate_up_bias)
        return self.division.write(swiglu(gate_up_BTF), self.down, self.down_bias)

    def _attention(
        self, x_BTD: Tensor, rotation: Rotation, mask: AttentionMask, cache: Cache | None
    ) -> Tensor:
        config = self.config
        q_norm, k_norm = self.q_norm, self.k_norm
        norms = None if q_norm is None or k_norm is None else (q_norm, k_norm)
        normed_BTD = rms_norm(x_BTD, self.attention_norm, config.rms_norm_eps)
        qkv_BTX = self.division.read(normed_BTD, self.qkv, self.qkv_bias)
        # Of the heads held here: with every key/value head come its query heads.
        group = config.num_attention_heads // config.num_key_value_heads
        num_kv_heads = qkv_BTX.shape[-1] // ((group + 2) * config.head_dim)
        q_BTHE, k_BSKE, v_BSKE = split_heads(qkv_BTX, norms, rotation, num_kv_heads, config.rms_norm_eps)
        if cache is not None:
            k_BSKE, v_BSKE = cache.store(self.layer, k_BSKE, v_BSKE)
        o_BTHE = self.rows.attend(q_BTHE, k_BSKE, v_BSKE, mask)
        return self.division.write(o_BTHE.flatten(2), self.attention_out, self.attention_out_bias)


def _zeros(size: int) -> nn.Parameter:
    return nn.Parameter(torch.zeros(size))
