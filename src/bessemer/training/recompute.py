"""Activation checkpointing: keep less for the backward pass and compute it again there.

Chen et al. 2016, "Training Deep Nets with Sublinear Memory Cost", section 4.
"""

from functools import partial
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.utils.checkpoint import CheckpointPolicy, checkpoint, create_selective_checkpoint_contexts

from bessemer.config import Config, Count
from bessemer.model.transformer import AroundBlock

_aten: Any = torch.ops.aten
_KEPT_OPERATIONS = frozenset(
    {
        _aten.mm.default,
        _aten.addmm.default,
        _aten._scaled_dot_product_flash_attention.default,
        _aten._scaled_dot_product_flash_attention_for_cpu.default,
        _aten._scaled_dot_product_efficient_attention.default,
        _aten._scaled_dot_product_cudnn_attention.default,
    }
)
"""What `selective` does not compute twice: the products with weights, and attention. Batched products stay
out: the fused softmax works in their memory, so what was kept would have changed."""


class RecomputeConfig(Config):
    """Which activations are computed again in the backward pass. Gradients are the same."""

    kind: Literal["none", "full", "selective"] = "none"
    """full: keep a block's input alone (about a third more compute). selective: keep the results of matrix
    products and attention, too, and compute norms, rotations and SwiGLU again."""
    every: Count = Field(default=1, ge=1)
    """Do so for every n-th block; the others keep everything."""


def recompute(config: RecomputeConfig, inner: AroundBlock) -> AroundBlock:
    """`inner` with recomputation for the blocks that `config` means."""
    if config.kind == "none":
        return inner
    options: dict[str, Any] = {"use_reentrant": False, "preserve_rng_state": False}
    if config.kind == "selective":
        options["context_fn"] = partial(create_selective_checkpoint_contexts, _policy)

    def around(block: Any, *inputs: Any) -> Tensor:
        if block.layer % config.every or not torch.is_grad_enabled():
            return inner(block, *inputs)
        return checkpoint(inner, block, *inputs, **options)  # type: ignore[return-value]

    return around


def _policy(context: Any, operation: Any, *args: Any, **kwargs: Any) -> CheckpointPolicy:
    return CheckpointPolicy.MUST_SAVE if operation in _KEPT_OPERATIONS else CheckpointPolicy.PREFER_RECOMPUTE
