"""The first values of every parameter, from a seed alone."""

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from bessemer.model.transformer import Transformer

_READERS = {"qkv", "gate_up", "up", "router", "shared_gate_up", "shared_gate", "join"}
"""Matrices that read the residual stream."""
_WRITERS = {"attention_out", "down", "shared_down"}
"""Matrices that write to it."""


EMBEDDING_STD = 0.02
"""Of an embedding's first values, and of the head's."""


@torch.no_grad()
def initialize(model: "Transformer", seed: int, embedding_std: float = EMBEDDING_STD) -> None:
    """Draw every parameter in a fixed order, on the CPU.

    Matrices that read the residual stream: normal with standard deviation 1 / sqrt(fan in), which
    keeps activations at unit scale for any width and gives the spectral norm that Muon's update
    is scaled for (Yang et al. 2023, "A Spectral Condition for Feature Learning", section 3).
    Matrices that write to it start at zero, so that each block begins as the identity and depth
    needs no extra scale (Zhang et al. 2019, Fixup, section 3; Bachlechner et al. 2020, ReZero).
    Embeddings and head: normal with 0.02 (Radford et al. 2019, GPT-2), so that tied logits start
    small. An embedding that is not the head too may have another `embedding_std`. Norms are one, biases
    zero.
    """
    parameters = dict(model.named_parameters())
    for name, value in first_values(model, seed, embedding_std):
        parameters[name].copy_(value)


def first_values(
    model: "Transformer", seed: int, embedding_std: float = EMBEDDING_STD
) -> Iterator[tuple[str, Tensor]]:
    """Name and first value of every parameter of a whole model, in the order in which they are drawn; one is
    held at a time. Of the model itself only the shapes are looked at."""
    generator = torch.Generator().manual_seed(seed)

    def drawn(parameter: Tensor, std: float) -> Tensor:
        return torch.randn(parameter.shape, generator=generator).mul_(std)

    def of_all(prefix: str, module: nn.Module) -> Iterator[tuple[str, Tensor]]:
        for name, parameter in module.named_parameters(prefix):
            kind = name.rpartition(".")[2]
            if kind in _READERS:
                yield name, drawn(parameter, 1.0 / math.sqrt(parameter.shape[-1]))
            elif kind in _WRITERS or kind.endswith("_bias"):
                yield name, torch.zeros(parameter.shape)
            else:
                yield name, torch.ones(parameter.shape)

    yield "embedding", drawn(model.embedding, embedding_std)
    if model.positions is not None:
        yield "positions", drawn(model.positions, EMBEDDING_STD)
    yield from of_all("blocks", model.blocks)
    yield "final_norm", torch.ones(model.final_norm.shape)
    if model.final_norm_bias is not None:
        yield "final_norm_bias", torch.zeros(model.final_norm_bias.shape)
    if model.head is not None:
        yield "head", drawn(model.head, EMBEDDING_STD)
    yield from of_all("future", model.future)  # last, so that the model itself is the same without them
