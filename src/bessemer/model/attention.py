"""Attention: one function, `attend`, with the backends behind it and the one place that chooses.

Shapes: B batch, T query tokens, S key tokens, H query heads, K key/value heads, E head dimension;
query head h reads key/value head h // (H / K) (GQA, Ainslie et al. 2023).
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from bessemer.model.attention_tiles import Tile, first_visible, tiles, visible, whole
from bessemer.model.explicit_attention import explicit_attention
from bessemer.model.gpu_attention import flex_attention, varlen_attention
from bessemer.model.online_softmax import online_softmax_attention

Backend = Literal["causal", "masked", "explicit", "online", "flex", "varlen"]
"""causal: SDPA without a mask. masked: SDPA with a boolean mask, the reference. explicit: stored
probabilities, the fast path for short rows on a CPU. online: FlashAttention's recurrence, for reading.
flex, varlen: torch's GPU kernels, which never see a [T, S] mask; chosen by hand only."""

# Above this many keys a query the stored probabilities cost more than SDPA's recomputation.
_MOST_EXPLICIT_KEYS = 512


@dataclass(frozen=True)
class AttentionMask:
    """Which keys each query sees; built once per forward of the model and shared by all layers of one
    window."""

    visible_BTS: Tensor | None
    """Boolean [B or 1, T, S], as with a cache; None means that T = S and a query sees itself and what came
    before, within its document and window."""
    num_tokens: int
    """T."""
    device: torch.device
    documents_BT: Tensor | None = None
    """The document that each token belongs to, one after the other in a row (packed sequences)."""
    window: int | None = None
    """Keys that a query sees at most, its own included."""
    places_T: Tensor | None = None
    """int64: where the queries are among their row's keys, rising, if there are more keys than queries;
    `documents_BT` then has a column for every key."""

    @property
    def is_plain(self) -> bool:
        """Whether every query sees itself and everything before it."""
        is_open = self.window is None or self.window >= self.num_tokens
        return self.visible_BTS is None and self.documents_BT is None and is_open

    @cached_property
    def boolean_BTS(self) -> Tensor:
        """The mask as booleans, also when it is plainly causal."""
        if self.visible_BTS is not None:
            return self.visible_BTS
        if self.places_T is not None and self.documents_BT is not None:
            keys_S = torch.arange(self.documents_BT.shape[1], device=self.device)
            return visible(self._first_visible(self.documents_BT), self.places_T, keys_S)
        if self.documents_BT is None:
            shape = (1, self.num_tokens, self.num_tokens)
            visible_BTS = torch.ones(shape, dtype=torch.bool, device=self.device)
        else:
            visible_BTS = self.documents_BT.unsqueeze(2) == self.documents_BT.unsqueeze(1)
        visible_BTS = visible_BTS.tril()
        if self.window is not None and self.window < self.num_tokens:
            visible_BTS = visible_BTS.triu(1 - self.window)
        return visible_BTS

    @cached_property
    def tiles(self) -> list[Tile]:
        """What has to be computed of the scores; on a CPU."""
        if self.visible_BTS is not None:
            return [whole(self.visible_BTS)]
        documents_BT = self.documents_BT
        if documents_BT is None:
            documents_BT = torch.zeros(1, self.num_tokens, dtype=torch.int32, device=self.device)
        return tiles(self._first_visible(documents_BT), self.places_T)

    def _first_visible(self, documents_BS: Tensor) -> Tensor:
        """The first key that each query sees, int64 [B, T]."""
        first_BS = first_visible(documents_BS, self.window)
        return first_BS if self.places_T is None else first_BS.index_select(1, self.places_T)

    @property
    def mean_keys(self) -> float:
        """Scores that `tiles` hold for a query, on average over queries and rows."""
        parts = self.tiles
        areas = [tile.visible_BTS.shape[1] * tile.visible_BTS.shape[2] for tile in parts]
        num_queries = sum(tile.visible_BTS.shape[1] for tile in parts)
        return sum(areas) / num_queries


def causal_mask(num_tokens: int, device: torch.device, window: int | None = None) -> AttentionMask:
    """Every token sees itself and what came before, at most `window` tokens of it."""
    return AttentionMask(None, num_tokens, device, window=window)


def document_mask(documents_BT: Tensor, window: int | None = None) -> AttentionMask:
    """Every token sees itself and what came before within its own document (packed sequences), at most
    `window` tokens of it."""
    return AttentionMask(None, documents_BT.shape[1], documents_BT.device, documents_BT, window)


def part_mask(documents_BS: Tensor, places_T: Tensor, window: int | None = None) -> AttentionMask:
    """As `document_mask`, for the queries at `places_T` of rows whose keys are all at hand."""
    return AttentionMask(None, len(places_T), documents_BS.device, documents_BS, window, places_T)


def choose_backend(q_BTHE: Tensor, k_BSKE: Tensor, mask: AttentionMask) -> Backend:
    """The backend for these inputs: the only place that decides.

    SDPA on CPU recomputes the scores in its backward pass, without the matrix units. At 16 x 256 tokens
    and 6 heads in bf16 a layer's forward and backward took 54 ms with it and 17 to 21 ms with stored
    probabilities and batched matrix products.
    """
    if q_BTHE.device.type == "cpu":
        if max(q_BTHE.shape[1], k_BSKE.shape[1]) <= _MOST_EXPLICIT_KEYS:
            return "explicit"
        if mask.visible_BTS is None and not mask.is_plain and mask.mean_keys <= _MOST_EXPLICIT_KEYS:
            return "explicit"
    return "causal" if mask.is_plain else "masked"


def attend(
    q_BTHE: Tensor, k_BSKE: Tensor, v_BSKE: Tensor, mask: AttentionMask, backend: Backend | None = None
) -> Tensor:
    """softmax(q k^T / sqrt(E)) v over the keys that `mask` shows (Vaswani et al. 2017, equation 1).

    Returns o_BTHE in q's dtype; the softmax runs in float32 inside every backend. Every query must
    see at least one key. `backend` overrides the choice.
    """
    match backend or choose_backend(q_BTHE, k_BSKE, mask):
        case "explicit":
            return explicit_attention(q_BTHE, k_BSKE, v_BSKE, mask)
        case "online":
            return online_softmax_attention(q_BTHE, k_BSKE, v_BSKE, mask)
        case "flex":
            return flex_attention(q_BTHE, k_BSKE, v_BSKE, mask)
        case "varlen":
            return varlen_attention(q_BTHE, k_BSKE, v_BSKE, mask)
        case "causal":
            if not mask.is_plain:
                raise ValueError("the causal backend cannot apply a document mask or a window: use 'masked'")
            return _sdpa(q_BTHE, k_BSKE, v_BSKE, None)
        case "masked":
            return _sdpa(q_BTHE, k_BSKE, v_BSKE, mask.boolean_BTS.unsqueeze(1))


def _sdpa(q_BTHE: Tensor, k_BSKE: Tensor, v_BSKE: Tensor, visible_B1TS: Tensor | None) -> Tensor:
    o_BHTE = F.scaled_dot_product_attention(
        q_BTHE.transpose(1, 2),
        k_BSKE.transpose(1, 2),
        v_BSKE.transpose(1, 2),
        attn_mask=visible_B1TS,
        is_causal=visible_B1TS is None,
        enable_gqa=q_BTHE.shape[2] != k_BSKE.shape[2],
    )
    return o_BHTE.transpose(1, 2)
