"""Memory of one process: its parameters, gradients and optimizer state, and what it keeps for the backward
pass.

The first three are exact; activations are those that autograd saves (see `activation_memory`). What is
`gathered` is an estimate. Left out: what operations use while they run, communication buffers, and the
allocator's waste.

Sizes are in bytes.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from math import prod

from bessemer.model.config import ModelConfig
from bessemer.training.optimizers import OptimizerConfig
from bessemer.training.parallel.activation_memory import Tokens, pipeline_activations, pipeline_buffers
from bessemer.training.parallel.layout import ParallelConfig
from bessemer.training.parallel.shapes import (
    Place,
    Shape,
    copied_elements,
    held_shapes,
    num_elements,
    sharded_shapes,
)
from bessemer.training.quantized import BLOCK

_PARAMETER_BYTES = 4
"""Parameters and gradients are float32."""


@dataclass(frozen=True)
class RankMemory:
    """Bytes of one process."""

    parameters: int
    """Between steps."""
    gradients: int
    """When they are complete."""
    optimizer: int
    """State, after the first update."""
    gathered: int
    """Whole parameters and gradients of layers at work, where ZeRO shares them out: an estimate."""
    activations: int
    """Saved for the backward passes of all micro-batches that are under way, at their most."""
    buffers: int
    """For hidden states and their gradients between stages."""

    @property
    def total(self) -> int:
        return sum(getattr(self, field.name) for field in fields(self))


def rank_memory(
    config: ModelConfig,
    parallel: ParallelConfig,
    place: Place,
    optimizer: OptimizerConfig,
    tokens: Tokens,
) -> RankMemory:
    """Memory of the process at `place`."""
    held = held_shapes(config, parallel, place, tokens.row)
    sharded = sharded_shapes(held, parallel, place)
    return RankMemory(
        parameters=_PARAMETER_BYTES
        * (num_elements(sharded) + copied_elements(config, parallel, place, sharded)),
        gradients=_PARAMETER_BYTES * num_elements(sharded),
        optimizer=optimizer_bytes(sharded, optimizer),
        gathered=gathered_bytes(held, sharded, parallel, tokens.micro_batches),
        activations=pipeline_activations(config, parallel, place, tokens),
        buffers=pipeline_buffers(config, parallel, place, tokens),
    )


def optimizer_bytes(shapes: Mapping[str, Shape], optimizer: OptimizerConfig) -> int:
    """State of `bessemer.training.optimizers` for parameters of these shapes: of AdamW two moments a number
    and the step of each tensor (Loshchilov & Hutter 2019, algorithm 2), of Muon one momentum (Jordan et al.
    2024). In 8 bits, a byte a number and a float32 for every 2,048 (Dettmers et al. 2022, section 2.1)."""
    total = 0
    for name, shape in shapes.items():
        size = prod(shape)
        is_block_matrix = len(shape) >= 2 and name.startswith(("blocks.", "future."))
        is_block_matrix = is_block_matrix and not name.endswith(("router", "shared_gate"))
        moment = size + 4 * -(-size // BLOCK) if is_block_matrix and optimizer.state_bits == 8 else 4 * size
        total += moment if is_block_matrix and optimizer.kind == "muon" else 2 * moment + 4
    return total


def gathered_bytes(
    held: Mapping[str, Shape], sharded: Mapping[str, Shape], parallel: ParallelConfig, micro_batches: int
) -> int:
    """Whole parameters and gradients beside the shards (Rajbhandari et al. 2020, "ZeRO: Memory Optimizations
    Toward Training Trillion Parameter Models", section 5).

    With zero 3, of the embedding, head and final norm, which stay whole through a pass, and of two blocks:
    while one computes, the next is gathered (Zhao et al. 2023, "PyTorch FSDP", section 3.3.2). With less, all
    parameters through a step; with zero 1 all gradients too, where they are summed over micro-batches. A
    pipeline passes through its stages over and over, and keeps both.
    """
    divided = {name: shape for name, shape in held.items() if sharded[name] != shape}
    whole = _PARAMETER_BYTES * num_elements(divided)
    at_work = _PARAMETER_BYTES * _at_work(divided)
    keeps_parameters = parallel.zero < 3 or parallel.pipeline > 1
    keeps_gradients = (parallel.zero == 1 or parallel.pipeline > 1) and micro_batches > 1
    return (whole if keeps_parameters else at_work) + (whole if keeps_gradients else at_work)


def _at_work(held: Mapping[str, Shape]) -> int:
    """Numbers outside of blocks and in the two largest."""
    by_block: dict[str, int] = {}
    outer = 0
    for name, shape in held.items():
        kind, _, rest = name.partition(".")
        if kind in ("blocks", "future"):
            block = f"{kind}.{rest.partition('.')[0]}"
            by_block[block] = by_block.get(block, 0) + prod(shape)
        else:
            outer += prod(shape)
    return outer + sum(sorted(by_block.values())[-2:])
