"""torch's attention kernels for GPUs that take document and window as numbers, never as a [T, S] mask.

They are chosen by hand (`attend(…, backend="flex")`). FlexAttention runs its forward pass on a CPU too,
which is where a test compares it; its backward pass and varlen attention need a GPU.

Shapes as in `bessemer.model.attention`; N = B T tokens laid end to end.
"""

from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn.attention import flex_attention as flex

if TYPE_CHECKING:
    from bessemer.model.attention import AttentionMask


def flex_attention(q_BTHE: Tensor, k_BSKE: Tensor, v_BSKE: Tensor, mask: "AttentionMask") -> Tensor:
    """Same contract as `attend` (Dong et al. 2024, FlexAttention): blocks that the mask hides are skipped."""
    batch, num_tokens, num_heads, _ = q_BTHE.shape
    num_keys = k_BSKE.shape[1]
    block_mask = flex.create_block_mask(
        _mask_function(mask), batch, None, num_tokens, num_keys, device=q_BTHE.device
    )
    o_BHTE = flex.flex_attention(
        q_BTHE.transpose(1, 2),
        k_BSKE.transpose(1, 2),
        v_BSKE.transpose(1, 2),
        block_mask=block_mask,
        enable_gqa=num_heads != k_BSKE.shape[2],
    )
    return o_BHTE.transpose(1, 2)  # type: ignore[union-attr]


def varlen_attention(q_BTHE: Tensor, k_BTKE: Tensor, v_BTKE: Tensor, mask: "AttentionMask") -> Tensor:
    """Same contract as `attend`, on a CUDA device in bfloat16 or float16, without a cache: FlashAttention
    over documents laid end to end (Dao 2023)."""
    if mask.visible_BTS is not None or mask.places_T is not None:
        raise ValueError("varlen attention has no masks of a cache or of a part of a row: use 'masked'")
    from torch.nn.attention.varlen import varlen_attn

    batch, num_tokens, num_heads, _ = q_BTHE.shape
    starts, longest = document_starts(mask.documents_BT, batch, num_tokens, q_BTHE.device)
    o_NHE = varlen_attn(
        q_BTHE.flatten(0, 1),
        k_BTKE.flatten(0, 1),
        v_BTKE.flatten(0, 1),
        starts,
        starts,
        longest,
        longest,
        # (left, right): keys before and after a query's own.
        window_size=(-1 if mask.window is None else mask.window - 1, 0),
        enable_gqa=num_heads != k_BTKE.shape[2],
    )
    return o_NHE.unflatten(0, (batch, num_tokens))  # type: ignore[union-attr]


def document_starts(
    documents_BT: Tensor | None, batch: int, num_tokens: int, device: torch.device
) -> tuple[Tensor, int]:
    """Where each document begins when all rows are laid end to end, and the end of the last; int32.
    Also the length of the longest. Without documents every row is one."""
    if documents_BT is None:
        starts = torch.arange(batch + 1, dtype=torch.int32, device=device) * num_tokens
        return starts, num_tokens
    is_first_BT = torch.ones_like(documents_BT, dtype=torch.bool)
    is_first_BT[:, 1:] = documents_BT[:, 1:] != documents_BT[:, :-1]
    firsts = is_first_BT.flatten().nonzero().squeeze(1)
    starts = torch.cat((firsts, firsts.new_tensor([batch * num_tokens]))).int()
    return starts, int(starts.diff().max())


def _mask_function(mask: "AttentionMask"):
    """`mask` as a function of indices, which FlexAttention traces."""
    visible_BTS, documents_BT, window = mask.visible_BTS, mask.documents_BT, mask.window
    places_T = mask.places_T
    if visible_BTS is not None:
        last = len(visible_BTS) - 1  # one mask may serve all rows
        return lambda b, h, q, k: visible_BTS[torch.clamp(b, max=last), q, k]

    def is_visible(b, h, q, k):
        q = q if places_T is None else places_T[q]
        result = q >= k
        if documents_BT is not None:
            result = result & (documents_BT[b, q] == documents_BT[b, k])
        if window is not None:
            result = result & (q - k < window)
        return result

    return is_visible
