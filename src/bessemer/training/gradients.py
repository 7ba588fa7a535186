"""Gradient norms, of the whole model and of each group of parameters, and clipping by the whole."""

from collections import defaultdict

import torch
from torch import nn

GROUPS = ("embedding", "head", "attention", "feed_forward", "norms")
"""What `group_of` tells apart."""


def group_of(name: str) -> str:
    """Group of a parameter, by its name: one of GROUPS."""
    last = name.rpartition(".")[2]
    if "norm" in last:
        return "norms"
    if last in ("embedding", "positions"):
        return "embedding"
    if last == "head":
        return last
    return "attention" if last.startswith(("qkv", "attention")) else "feed_forward"


def clip_gradients(model: nn.Module, max_norm: float) -> float:
    """Scale all gradients down to a global norm of `max_norm`; returns the norm before."""
    return clip_by_norms(model, max_norm)[0]


@torch.no_grad()
def clip_by_norms(model: nn.Module, max_norm: float) -> tuple[float, dict[str, float]]:
    """Scale all gradients down to a global norm of `max_norm`; the norms before, global and by group."""
    named = [(name, p) for name, p in model.named_parameters() if p.grad is not None]
    if not named:
        return 0.0, {}
    gradients = [p.grad for _, p in named if p.grad is not None]
    norms = torch.stack(torch._foreach_norm(gradients))  # type: ignore[arg-type]
    total = torch.linalg.vector_norm(norms)
    nn.utils.clip_grads_with_norm_([p for _, p in named], max_norm, total, foreach=True)
    squares: dict[str, float] = defaultdict(float)
    for (name, _), norm in zip(named, norms.tolist(), strict=True):
        squares[group_of(name)] += norm * norm
    return float(total), {group: square**0.5 for group, square in squares.items()}
