"""The first values of every parameter, from a seed alone."""

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from bessemer.model.transformer import Transformer

_READERS = {"qkv", "gate_up", "up", "router", "shared_gate_up", "shared_gate", "join"}
"""Matrices that read the residual stream."""
_WRITERS = {"attention_out", "down", "shared_down"}
"""Matrices that write to it."""


@torch.no_grad()
def initialize(model: "Transformer", seed: int) -> None:
    """Draw every parameter in a fixed order, on the CPU.

    Matrices that read the residual stream: normal with standard deviation 1 / sqrt(fan in), which
    keeps activations at unit scale for any width and gives the spectral norm that Muon's update
    is scaled for (Yang et al. 2023, "A Spectral Condition for Feature Learning", section 3).
    Matrices that write to it start at zero, so that each block begins as the identity and depth
    needs no extra scale (Zhang et al. 2019, Fixup, section 3; Bachlechner et al. 2020, ReZero).
    Embeddings and head: normal with 0.02 (Radford et al. 2019, GPT-2), so that tied logits start
    small. Norms are one, biases zero.
    """
    generator = torch.Generator().manual_seed(seed)

    def draw(parameter: Tensor, std: float) -> None:
        parameter.copy_(torch.randn(parameter.shape, generator=generator) * std)

    draw(model.embedding, 0.02)
    if model.positions is not None:
        draw(model.positions, 0.02)
    for module in (model.blocks, model.future):
        for name, parameter in module.named_parameters():
            kind = name.rpartition(".")[2]
            if kind in _READERS:
                draw(parameter, 1.0 / math.sqrt(parameter.shape[-1]))
            elif kind in _WRITERS or kind.endswith("_bias"):
                parameter.zero_()
            else:
                parameter.fill_(1.0)
    model.final_norm.fill_(1.0)
    if model.final_norm_bias is not None:
        model.final_norm_bias.zero_()
    if model.head is not None:
        draw(model.head, 0.02)
