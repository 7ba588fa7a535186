"""From the joint projection to attention's operands: split, QK-norm, RoPE.

Shapes: B batch, T tokens, H query heads, K key/value heads, E head dimension, X = (H + 2 K) E.
"""

from torch import Tensor

from bessemer.model.kernels import fused_heads, is_fused
from bessemer.model.layers import rms_norm
from bessemer.model.rope import Rotation, rotate


def split_heads(
    qkv_BTX: Tensor, norms: tuple[Tensor, Tensor] | None, rotation: Rotation, num_kv_heads: int, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    """q_BTHE, k_BTKE and v_BTKE of the projection's H query, K key and K value heads.

    Query and key heads pass through RMSNorm with the weights `norms` (for queries, for keys) where
    given (QK-norm, Henry et al. 2020), then through the rotation (see `bessemer.model.rope`).
    """
    if is_fused(qkv_BTX):
        return fused_heads(qkv_BTX, norms, rotation, num_kv_heads, eps)
    qkv_BTNE = qkv_BTX.unflatten(-1, (-1, rotation[0].shape[-1]))
    num_heads = qkv_BTNE.shape[2] - 2 * num_kv_heads
    q_BTHE, k_BTKE, v_BTKE = qkv_BTNE.split((num_heads, num_kv_heads, num_kv_heads), dim=2)
    if norms is not None:
        q_BTHE, k_BTKE = rms_norm(q_BTHE, norms[0], eps), rms_norm(k_BTKE, norms[1], eps)
    return rotate(q_BTHE, rotation), rotate(k_BTKE, rotation), v_BTKE
