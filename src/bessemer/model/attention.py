"""Attention: one function, `attend`, with the backends behind it and the one place that chooses.

Shapes: B batch, T query tokens, S key tokens, H query heads, K key/value heads, E head dimension;
query head h reads key/value head h // (H / K) (GQA, Ainslie et al. 2023).
"""

from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from bessemer.model.explicit_attention import explicit_attention
from bessemer.model.gpu_attention import flex_attention, varlen_attention
from bessemer.model.kernels import visible_spans
from bessemer.model.online_softmax import online_softmax_attention

Backend = Literal["causal", "masked", "explicit", "online", "flex", "varlen"]
"""causal: SDPA without a mask. masked: SDPA with a boolean mask, the reference. explicit: stored
probabilities, the fast path for short rows on a CPU. online: FlashAttention's recurrence, for reading.
flex, varlen: torch's GPU kernels, which never see a [T, S] mask; chosen by hand only."""

# Above this many tokens the stored probabilities (T squared) cost more than SDPA's recomputation.
_LONGEST_EXPLICIT_TOKENS = 512


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
    _biases: dict[torch.dtype, Tensor] = field(default_factory=dict, repr=False)

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
    def spans_BT2(self) -> Tensor:
        """The first key that each query sees and one past the last; for the fused softmax."""
        return visible_spans(self.boolean_BTS)

    def bias_BTS(self, dtype: torch.dtype) -> Tensor:
        """0 where a key is visible and -inf where not: adding it is three times as fast on a CPU as
        filling by a boolean mask. Kept, so that all layers share one."""
        if dtype not in self._biases:
            hidden_BTS = ~self.boolean_BTS
            self._biases[dtype] = torch.zeros(hidden_BTS.shape, dtype=dtype, device=self.device).masked_fill_(
                hidden_BTS, -torch.inf
            )
        return self._biases[dtype]


def causal_mask(num_tokens: int, device: torch.device, window: int | None = None) -> AttentionMask:
    """Every token sees itself and what came before, at most `window` tokens of it."""
    return AttentionMask(None, num_tokens, device, window=window)


def document_mask(documents_BT: Tensor, window: int | None = None) -> AttentionMask:
    """Every token sees itself and what came before within its own document (packed sequences), at most
    `window` tokens of it."""
    return AttentionMask(None, documents_BT.shape[1], documents_BT.device, documents_BT, window)


def choose_backend(q_BTHE: Tensor, k_BSKE: Tensor, mask: AttentionMask) -> Backend:
    """The backend for these inputs: the only place that decides.

    SDPA on CPU recomputes the scores in its backward pass, without the matrix units. At 16 x 256 tokens
    and 6 heads in bf16 a layer's forward and backward took 54 ms with it and 17 to 21 ms with stored
    probabilities and batched matrix products.
    """
    is_cpu = q_BTHE.device.type == "cpu"
    if is_cpu and max(q_BTHE.shape[1], k_BSKE.shape[1]) <= _LONGEST_EXPLICIT_TOKENS:
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
