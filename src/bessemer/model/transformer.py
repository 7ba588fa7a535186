"""The model: a decoder-only transformer of the Llama / Qwen3 family, or GPT-2 shaped.

Pre-norm blocks (see `bessemer.model.block` and `bessemer.model.gpt2`), a tied or separate output head.
Parameters are float32; matrix products run in an explicit compute dtype (no autocast); norms, softmax,
routers and logits are float32.

Shapes: B batch, T tokens, S cached tokens, D hidden, E head dimension, V vocabulary.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bessemer.model.attention import AttentionMask
from bessemer.model.block import Block, Cache
from bessemer.model.config import ModelConfig
from bessemer.model.division import WHOLE, Division
from bessemer.model.future import FutureBlock
from bessemer.model.gpt2 import Gpt2Block
from bessemer.model.initialization import EMBEDDING_STD, initialize
from bessemer.model.layers import layer_norm, rms_norm
from bessemer.model.mixture import Routing
from bessemer.model.rope import Rotation, rope_table
from bessemer.model.rows import WHOLE_ROWS, Rows

__all__ = ["AroundBlock", "Block", "Cache", "Transformer"]

AroundBlock = Callable[..., Tensor]
"""Calls a block with its inputs in its own way, such as with recomputation in the backward pass; see
`bessemer.training`. Not used with a cache."""


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
        self.division: Division = WHOLE
        self.rows: Rows = WHOLE_ROWS
        is_gpt2, hidden = config.family == "gpt2", config.hidden_size
        layers = range(config.num_hidden_layers)
        self.embedding = nn.Parameter(torch.empty(config.vocab_size, hidden))
        positions_shape = (config.max_position_embeddings, hidden)
        self.positions = nn.Parameter(torch.empty(positions_shape)) if is_gpt2 else None
        self.blocks = nn.ModuleList((Gpt2Block if is_gpt2 else Block)(config, layer) for layer in layers)
        self.final_norm = nn.Parameter(torch.ones(hidden))
        self.final_norm_bias = nn.Parameter(torch.zeros(hidden)) if is_gpt2 else None
        head_shape = (config.vocab_size, hidden)
        self.head = None if config.tie_word_embeddings else nn.Parameter(torch.empty(head_shape))
        self.future = nn.ModuleList(FutureBlock(config) for _ in range(config.future_tokens))
        cos, sin = _rope_tables(config)
        self.register_buffer("rope_cos", cos, persistent=False)
        self.register_buffer("rope_sin", sin, persistent=False)

    @classmethod
    def without_values(
        cls,
        config: ModelConfig,
        compute_dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> "Transformer":
        """A model that takes no memory: its parameters are on the meta device, and only the tables of rotary
        angles are on `device`. `bessemer.model.weights` knows the values."""
        with torch.device("meta"):
            model = cls(config, compute_dtype)
        cos, sin = _rope_tables(config)
        model.rope_cos, model.rope_sin = cos.to(device), sin.to(device)
        return model

    @property
    def device(self) -> torch.device:
        """Where the model computes, also while its parameters have no values."""
        return self.rope_cos.device

    def forward(
        self,
        token_ids_BT: Tensor,
        documents_BT: Tensor | None = None,
        positions_BT: Tensor | None = None,
        cache: Cache | None = None,
        routings: list[Routing] | None = None,
    ) -> Tensor:
        """Hidden states after the final norm, [B, T, D] in the compute dtype.

        Without `documents_BT` every row is one causal sequence. With it, a token sees only earlier
        tokens of the same document id in its row, and `positions_BT` should restart with each
        document (default: 0 … T-1). With `cache`, the tokens continue the cached rows; it then
        decides positions and mask, and the other two must be None. What the routers of a mixture of
        experts decided is appended to `routings`, layer by layer.
        """
        num_tokens = token_ids_BT.shape[1]
        if cache is not None:
            if documents_BT is not None or positions_BT is not None:
                raise ValueError("a cache decides positions and mask: leave documents and positions out")
            positions_BT = cache.positions(num_tokens)
        self._check_length(num_tokens, positions_BT)
        x_BTD = self._embed(token_ids_BT, positions_BT)
        x_BTD = self._through_blocks(x_BTD, token_ids_BT, documents_BT, positions_BT, cache, routings)
        return self.normed(x_BTD)

    def normed(self, x_BTD: Tensor) -> Tensor:
        """What the last block gives, [B, T, D], through the final norm."""
        return self.division.gather(self._final_norm(x_BTD))

    def _through_blocks(
        self,
        x_BTD: Tensor,
        token_ids_BT: Tensor,
        documents_BT: Tensor | None,
        positions_BT: Tensor | None,
        cache: Cache | None,
        routings: list[Routing] | None,
    ) -> Tensor:
        """Hidden states after the blocks that are held here, from those before them."""
        masks = self._masks(token_ids_BT, documents_BT, cache)
        is_gpt2 = self.config.family == "gpt2"
        rotation = None if is_gpt2 else self._rotation(token_ids_BT.shape[1], positions_BT)
        note_routing = None if routings is None else routings.append
        for block in self.blocks:
            mask = masks[block.window]  # type: ignore[index]
            inputs = (mask, cache) if rotation is None else (rotation, mask, cache, note_routing)
            if self.around_block is None or cache is not None:
                x_BTD = block(x_BTD, *inputs)
            else:
                x_BTD = self.around_block(block, x_BTD, *inputs)
        return x_BTD

    def future_hidden(
        self, hidden_BTD: Tensor, token_ids_BT: Tensor, documents_BT: Tensor, positions_BT: Tensor
    ) -> list[Tensor]:
        """Hidden states whose logits predict 2, 3, … tokens ahead, one for each of `config.future_tokens`;
        `hidden_BTD` is what `forward` gave for the same tokens. Training only."""
        rotation = self._rotation(token_ids_BT.shape[1], positions_BT)
        masks = self._masks(token_ids_BT, documents_BT, None)
        hidden_BTD, states = self.division.own(hidden_BTD), []
        for distance, block in enumerate(self.future, start=1):
            assert isinstance(block, FutureBlock)
            next_BTD = self._embed(self.rows.shift(token_ids_BT, distance, 0), None)
            hidden_BTD = block(hidden_BTD, next_BTD, rotation, masks[block.block.window])
            states.append(self.division.gather(hidden_BTD))
        return states

    def logits(self, hidden: Tensor) -> Tensor:
        """Hidden states [..., D] to float32 logits [..., V]; the product runs in the hidden's dtype."""
        return self.division.logits(hidden, self.head_weight)

    def total_of_tokens(self, x: Tensor) -> Tensor:
        """The sum of a statistic of tokens over all processes that hold parts of the same rows."""
        return self.rows.total(self.division.total(x))

    @property
    def head_weight(self) -> Tensor:
        """The output head [V, D], or its rows held here: the embedding where they are tied."""
        return self.embedding if self.head is None else self.head

    def _embed(self, token_ids_BT: Tensor, positions_BT: Tensor | None) -> Tensor:
        x_BTD = self.division.embed(token_ids_BT, self.embedding, self.compute_dtype)
        if self.positions is None:
            return x_BTD
        if positions_BT is None:
            positions_BT = torch.arange(token_ids_BT.shape[1], device=token_ids_BT.device).unsqueeze(0)
        return x_BTD + F.embedding(self.division.own(positions_BT), self.positions).to(self.compute_dtype)

    def _final_norm(self, x_BTD: Tensor) -> Tensor:
        if self.final_norm_bias is not None:
            return layer_norm(x_BTD, self.final_norm, self.final_norm_bias, self.config.rms_norm_eps)
        return rms_norm(x_BTD, self.final_norm, self.config.rms_norm_eps)

    def _masks(
        self, token_ids_BT: Tensor, documents_BT: Tensor | None, cache: Cache | None
    ) -> dict[int | None, AttentionMask]:
        """One mask for every window that a layer has."""
        windows = {self.config.window(layer) for layer in range(self.config.num_hidden_layers)}
        if cache is not None:
            return {window: cache.mask(token_ids_BT.shape[1], window) for window in windows}
        return {window: self.rows.mask(token_ids_BT, documents_BT, window) for window in windows}

    def _check_length(self, num_tokens: int, positions_BT: Tensor | None) -> None:
        longest = self.config.max_position_embeddings
        if positions_BT is None and num_tokens > longest:
            raise ValueError(
                f"{num_tokens} tokens do not fit max_position_embeddings {longest}: shorten the sequence"
            )

    def _rotation(self, num_tokens: int, positions_BT: Tensor | None) -> Rotation:
        if positions_BT is None:
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
            # Routers stay as they are: they compute in float32.
            name: value.to(self.compute_dtype) if value.dim() >= 2 and not name.endswith("router") else value
            for name, value in self.state_dict().items()
        }
        cast.load_state_dict(weights, assign=True)
        cast.rope_cos, cast.rope_sin = self.rope_cos, self.rope_sin
        return cast.requires_grad_(False)

    def initialize(self, seed: int, embedding_std: float = EMBEDDING_STD) -> "Transformer":
        """Draw every parameter from `seed` alone (see `bessemer.model.initialization`); returns self."""
        initialize(self, seed, embedding_std)
        return self


def _rope_tables(config: ModelConfig) -> tuple[Tensor, Tensor]:
    """Cosines and sines of every position; none for GPT-2, which learns its positions."""
    num_angles = 0 if config.family == "gpt2" else config.max_position_embeddings
    return rope_table(config.head_dim, num_angles, config.rope_theta, config.rope_scaling)
