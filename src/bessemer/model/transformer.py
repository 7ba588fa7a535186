"""The model: a decoder-only transformer of the Llama / Qwen3 family.

Pre-norm blocks of grouped-query attention with RoPE (optionally QK-norm) and SwiGLU, RMSNorm
throughout, a tied or separate output head. Parameters are float32; matrix products run in an
explicit compute dtype (no autocast); norms, softmax and logits are float32.

Shapes: B batch, T tokens, S cached tokens, D hidden, H query heads, K key/value heads, E head
dimension, F feed-forward, V vocabulary.
"""

import math
from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bessemer.model.attention import AttentionMask, attend, causal_mask, document_mask
from bessemer.model.config import ModelConfig
from bessemer.model.heads import split_heads
from bessemer.model.layers import linear, rms_norm, swiglu
from bessemer.model.rope import Rotation, rope_table


class Cache(Protocol):
    """Keys and values of earlier tokens, as `bessemer.inference.cache` keeps them."""

    def positions(self, num_tokens: int) -> Tensor:
        """positions_BT of the next `num_tokens` tokens of every row."""
        ...

    def mask(self, num_tokens: int) -> AttentionMask:
        """What those tokens see, over the S slots that `store` returns."""
        ...

    def store(self, layer: int, k_BTKE: Tensor, v_BTKE: Tensor) -> tuple[Tensor, Tensor]:
        """Keep the new keys and values; return k_BSKE and v_BSKE, old and new."""
        ...


AroundBlock = Callable[[nn.Module, Tensor, Rotation, AttentionMask], Tensor]
"""Calls a block in its own way, such as with recomputation in the backward pass; see `bessemer.training`."""


class Block(nn.Module):
    """One layer. Query, key and value projections are one matrix, and so are gate and up: fewer,
    larger products. Saved folders hold them apart (see `bessemer.model.folder`)."""

    def __init__(self, config: ModelConfig, layer: int) -> None:
        super().__init__()
        self.config, self.layer = config, layer
        hidden, head_dim = config.hidden_size, config.head_dim
        qkv_width = (config.num_attention_heads + 2 * config.num_key_value_heads) * head_dim
        self.attention_norm = nn.Parameter(torch.ones(hidden))
        self.qkv = nn.Parameter(torch.empty(qkv_width, hidden))
        self.qkv_bias = nn.Parameter(torch.zeros(qkv_width)) if config.attention_bias else None
        self.q_norm = nn.Parameter(torch.ones(head_dim)) if config.qk_norm else None
        self.k_norm = nn.Parameter(torch.ones(head_dim)) if config.qk_norm else None
        self.attention_out = nn.Parameter(torch.empty(hidden, config.num_attention_heads * head_dim))
        self.feed_forward_norm = nn.Parameter(torch.ones(hidden))
        self.gate_up = nn.Parameter(torch.empty(2 * config.intermediate_size, hidden))
        self.down = nn.Parameter(torch.empty(hidden, config.intermediate_size))

    def forward(
        self, x_BTD: Tensor, rotation: Rotation, mask: AttentionMask, cache: Cache | None = None
    ) -> Tensor:
        """x_BTD to x_BTD."""
        x_BTD = x_BTD + self._attention(x_BTD, rotation, mask, cache)
        normed_BTD = rms_norm(x_BTD, self.feed_forward_norm, self.config.rms_norm_eps)
        return x_BTD + linear(swiglu(linear(normed_BTD, self.gate_up)), self.down)

    def _attention(
        self, x_BTD: Tensor, rotation: Rotation, mask: AttentionMask, cache: Cache | None
    ) -> Tensor:
        config = self.config
        q_norm, k_norm = self.q_norm, self.k_norm
        norms = None if q_norm is None or k_norm is None else (q_norm, k_norm)
        normed_BTD = rms_norm(x_BTD, self.attention_norm, config.rms_norm_eps)
        qkv_BTX = linear(normed_BTD, self.qkv, self.qkv_bias)
        q_BTHE, k_BSKE, v_BSKE = split_heads(
            qkv_BTX, norms, rotation, config.num_key_value_heads, config.rms_norm_eps
        )
        if cache is not None:
            k_BSKE, v_BSKE = cache.store(self.layer, k_BSKE, v_BSKE)
        o_BTHE = attend(q_BTHE, k_BSKE, v_BSKE, mask)
        return linear(o_BTHE.flatten(2), self.attention_out)


class Transformer(nn.Module):
    """Token ids to final hidden states; `logits` is apart, so that training pays for it only where
    there is a target.

    Parameters are uninitialised until `initialize` or `bessemer.model.folder.load_model`.
    """

    rope_cos: Tensor
    rope_sin: Tensor

    def __init__(self, config: ModelConfig, compute_dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.config, self.compute_dtype = config, compute_dtype
        self.around_block: AroundBlock | None = None
        self.embedding = nn.Parameter(torch.empty(config.vocab_size, config.hidden_size))
        self.blocks = nn.ModuleList(Block(config, layer) for layer in range(config.num_hidden_layers))
        self.final_norm = nn.Parameter(torch.ones(config.hidden_size))
        head_shape = (config.vocab_size, config.hidden_size)
        self.head = None if config.tie_word_embeddings else nn.Parameter(torch.empty(head_shape))
        cos, sin = rope_table(config.head_dim, config.max_position_embeddings, config.rope_theta)
        self.register_buffer("rope_cos", cos, persistent=False)
        self.register_buffer("rope_sin", sin, persistent=False)

    def forward(
        self,
        token_ids_BT: Tensor,
        documents_BT: Tensor | None = None,
        positions_BT: Tensor | None = None,
        cache: Cache | None = None,
    ) -> Tensor:
        """Hidden states after the final norm, [B, T, D] in the compute dtype.

        Without `documents_BT` every row is one causal sequence. With it, a token sees only earlier
        tokens of the same document id in its row, and `positions_BT` should restart with each
        document (default: 0 … T-1). With `cache`, the tokens continue the cached rows; it then
        decides positions and mask, and the other two must be None.
        """
        num_tokens = token_ids_BT.shape[1]
        if cache is not None:
            if documents_BT is not None or positions_BT is not None:
                raise ValueError("a cache decides positions and mask: leave documents and positions out")
            positions_BT, mask = cache.positions(num_tokens), cache.mask(num_tokens)
        elif documents_BT is not None:
            mask = document_mask(documents_BT)
        else:
            mask = causal_mask(num_tokens, token_ids_BT.device)
        rotation = self._rotation(num_tokens, positions_BT)
        x_BTD = F.embedding(token_ids_BT, self.embedding).to(self.compute_dtype)
        for block in self.blocks:
            if self.around_block is None or cache is not None:
                x_BTD = block(x_BTD, rotation, mask, cache)
            else:
                x_BTD = self.around_block(block, x_BTD, rotation, mask)
        return rms_norm(x_BTD, self.final_norm, self.config.rms_norm_eps)

    def logits(self, hidden: Tensor) -> Tensor:
        """Hidden states [..., D] to float32 logits [..., V]; the product runs in the hidden's dtype."""
        return linear(hidden, self.head_weight).float()

    @property
    def head_weight(self) -> Tensor:
        """The output head [V, D]: the embedding where they are tied."""
        return self.embedding if self.head is None else self.head

    def _rotation(self, num_tokens: int, positions_BT: Tensor | None) -> Rotation:
        if positions_BT is None:
            if num_tokens > self.config.max_position_embeddings:
                raise ValueError(
                    f"{num_tokens} tokens do not fit max_position_embeddings "
                    f"{self.config.max_position_embeddings}: shorten the sequence"
                )
            cos_BTE, sin_BTE = (
                self.rope_cos[:num_tokens].unsqueeze(0),
                self.rope_sin[:num_tokens].unsqueeze(0),
            )
        else:
            cos_BTE, sin_BTE = self.rope_cos[positions_BT], self.rope_sin[positions_BT]
        return cos_BTE.unsqueeze(1).to(self.compute_dtype), sin_BTE.unsqueeze(1).to(self.compute_dtype)

    @torch.no_grad()
    def in_compute_dtype(self) -> "Transformer":
        """The same model with its matrices held in the compute dtype, for many forwards without
        training; returns itself when they already are. What need not be cast is shared, not copied."""
        if self.embedding.dtype == self.compute_dtype:
            return self
        with torch.device("meta"):
            cast = Transformer(self.config, self.compute_dtype)
        weights = {
            name: value.to(self.compute_dtype) if value.dim() == 2 else value
            for name, value in self.state_dict().items()
        }
        cast.load_state_dict(weights, assign=True)
        cast.rope_cos, cast.rope_sin = self.rope_cos, self.rope_sin
        return cast.requires_grad_(False)

    @torch.no_grad()
    def initialize(self, seed: int) -> "Transformer":
        """Draw every parameter from `seed` alone, in a fixed order, on the CPU; returns self.

        Matrices that read the residual stream: normal with standard deviation 1 / sqrt(fan in), which
        keeps activations at unit scale for any width and gives the spectral norm that Muon's update
        is scaled for (Yang et al. 2023, "A Spectral Condition for Feature Learning", section 3).
        Matrices that write to it start at zero, so that each block begins as the identity and depth
        needs no extra scale (Zhang et al. 2019, Fixup, section 3; Bachlechner et al. 2020, ReZero).
        Embedding and head: normal with 0.02 (Radford et al. 2019, GPT-2), so that tied logits start
        small. Norms are one, biases zero.
        """
        generator = torch.Generator().manual_seed(seed)

        def draw(parameter: Tensor, std: float) -> None:
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * std)

        draw(self.embedding, 0.02)
        for block in self.blocks:
            for name, parameter in block.named_parameters():
                if name in ("qkv", "gate_up"):
                    draw(parameter, 1.0 / math.sqrt(parameter.shape[1]))
                elif name in ("attention_out", "down", "qkv_bias"):
                    parameter.zero_()
                else:
                    parameter.fill_(1.0)
        self.final_norm.fill_(1.0)
        if self.head is not None:
            draw(self.head, 0.02)
        return self
