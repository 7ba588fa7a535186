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
from bessemer.model.kernels import visible_spans

Backend = Literal["causal", "masked", "explicit"]

# Above this many tokens the stored probabilities (T squared) cost more than SDPA's recomputation.
_LONGEST_EXPLICIT_TOKENS = 512


@dataclass(frozen=True)
class AttentionMask:
    """Which keys each query sees; built once per forward of the model and shared by all layers."""

    visible_BTS: Tensor | None
    """Boolean [B or 1, T, S]; None means plainly causal with T = S."""
    num_tokens: int
    """T."""
    device: torch.device
    _biases: dict[torch.dtype, Tensor] = field(default_factory=dict, repr=False)

    @cached_property
    def boolean_BTS(self) -> Tensor:
        """The mask as booleans, also when it is plainly causal."""
        if self.visible_BTS is not None:
            return self.visible_BTS
        ones = torch.ones(self.num_tokens, self.num_tokens, dtype=torch.bool, device=self.device)
        return ones.tril().unsqueeze(0)

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


def causal_mask(num_tokens: int, device: torch.device) -> AttentionMask:
    """Every token sees itself and what came before."""
    return AttentionMask(None, num_tokens, device)


def document_mask(documents_BT: Tensor) -> AttentionMask:
    """Every token sees itself and what came before within its own document (packed sequences)."""
    num_tokens = documents_BT.shape[1]
    same_BTS = documents_BT.unsqueeze(2) == documents_BT.unsqueeze(1)
    return AttentionMask(same_BTS.tril(), num_tokens, documents_BT.device)


def choose_backend(q_BTHE: Tensor, k_BSKE: Tensor, mask: AttentionMask) -> Backend:
    """The backend for these inputs: the only place that decides.

    SDPA on CPU recomputes the scores in its backward pass, without the matrix units. At 16 x 256 tokens
    and 6 heads in bf16 a layer's forward and backward took 54 ms with it and 17 to 21 ms with stored
    probabilities and batched matrix products.
    """
    is_cpu = q_BTHE.device.type == "cpu"
    if is_cpu and max(q_BTHE.shape[1], k_BSKE.shape[1]) <= _LONGEST_EXPLICIT_TOKENS:
        return "explicit"
    return "causal" if mask.visible_BTS is None else "masked"


def attend(
    q_BTHE: Tensor, k_BSKE: Tensor, v_BSKE: Tensor, mask: AttentionMask, backend: Backend | None = None
) -> Tensor:
    """softmax(q k^T / sqrt(E)) v over the keys that `mask` shows (Vaswani et al. 2017, equation 1).

    Returns o_BTHE in q's dtype; the softmax runs in float32 inside every backend. Every query must
    see at least one key. `backend` overrides the choice, for tests and benchmarks.
    """
    backend = backend or choose_backend(q_BTHE, k_BSKE, mask)
    if backend == "explicit":
        return explicit_attention(q_BTHE, k_BSKE, v_BSKE, mask)
    is_causal = backend == "causal"
    if is_causal and mask.visible_BTS is not None:
        raise ValueError("the causal backend cannot apply a document mask: use 'masked' or 'explicit'")
    o_BHTE = F.scaled_dot_product_attention(
        q_BTHE.transpose(1, 2),
        k_BSKE.transpose(1, 2),
        v_BSKE.transpose(1, 2),
        attn_mask=None if is_causal else mask.boolean_BTS.unsqueeze(1),
        is_causal=is_causal,
        enable_gqa=q_BTHE.shape[2] != k_BSKE.shape[2],
    )
    return o_BHTE.transpose(1, 2)
