"""Whether a training run fits memory, said before it starts instead of by a crash on the way."""

import os
from dataclasses import dataclass
from math import prod
from pathlib import Path

import torch

from bessemer.errors import BessemerError
from bessemer.model.config import ModelConfig, embedding_parameter_count, parameter_count
from bessemer.model.precision import resolve_dtype
from bessemer.training.config import TrainingConfig
from bessemer.training.parallel.shapes import parameter_shapes


@dataclass(frozen=True)
class MemoryEstimate:
    """Bytes that a run needs on the device it computes on: of one process, on a CPU of all that share it."""

    fixed_bytes: int
    """Weights, gradients, optimizer state, their average, and on a CPU the copy that a checkpoint is
    written from: exact but for small tensors. Where processes divide the model, their parts, and no less than
    those of the weights and the largest tensor, which is whole for a moment at the start and the end."""
    activation_bytes: int
    """Kept for the backward pass of one micro-batch: a rough figure."""


def estimate_memory(config: TrainingConfig, shape: ModelConfig, device: torch.device) -> MemoryEstimate:
    """What a run of this config needs."""
    num_parameters = parameter_count(shape)
    num_tables = embedding_parameter_count(shape) * (1 if shape.tie_word_embeddings else 2)
    num_matrices = num_parameters - num_tables
    moments = 1 if config.optimizer.kind == "muon" else 2
    # Tables keep two moments in float32; matrices one or two, of four bytes or of one.
    state = 8 * num_tables + moments * num_matrices * config.optimizer.state_bits // 8
    average = 4 * num_parameters if config.average is not None else 0
    weights = 4 * num_parameters
    snapshot = weights + state + average if device.type == "cpu" else 0
    parallel = config.parallel
    num_parts = parallel.shard * parallel.tensor * parallel.pipeline
    largest = 4 * max(prod(tensor) for tensor in parameter_shapes(shape).values())
    everything = weights + weights + state + average + snapshot
    fixed = everything if num_parts == 1 else max(weights // num_parts + largest, everything // num_parts)
    activations = _activation_bytes(config, shape, resolve_dtype(config.compute_dtype, device).itemsize)
    num_processes = _processes_here(parallel.world_size) if device.type == "cpu" else 1
    return MemoryEstimate(num_processes * fixed, num_processes * activations // parallel.tensor)


def _processes_here(world_size: int) -> int:
    """Of a run's processes, those on this machine: torchrun says how many, else it is all."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", world_size))


def _activation_bytes(config: TrainingConfig, shape: ModelConfig, item: int) -> int:
    """`item` is the size of a number in bytes. Per token and block: the inputs of both norms and of both
    output projections, q, k, v before and after rotation, gate, up and their product, and the probabilities
    of explicit attention."""
    parallel = config.parallel
    own = -(-config.tokens_per_step // (parallel.data * parallel.shard))
    tokens = min(config.micro_batch_tokens or own, own) // parallel.context
    heads = shape.num_attention_heads * shape.head_dim
    keys = shape.num_key_value_heads * shape.head_dim
    per_token = 4 * shape.hidden_size + 2 * (heads + 2 * keys) + heads + 3 * shape.intermediate_size
    probabilities = shape.num_attention_heads * config.sequence_length if config.sequence_length <= 512 else 0
    if config.recompute.kind == "full":
        kept_layers = shape.num_hidden_layers - len(range(0, shape.num_hidden_layers, config.recompute.every))
        inputs = shape.num_hidden_layers * shape.hidden_size
        return item * tokens * (inputs + (kept_layers + 1) * (per_token + probabilities))
    return item * tokens * shape.num_hidden_layers * (per_token + probabilities)


def check_memory(config: TrainingConfig, shape: ModelConfig, device: torch.device) -> str | None:
    """None where the run fits; one line where it may not. Raises BessemerError where it cannot."""
    estimate, free = estimate_memory(config, shape, device), free_bytes(device)
    if free is None:
        return None
    total = estimate.fixed_bytes + estimate.activation_bytes
    mends = (
        "lower micro_batch_tokens, set recompute.kind to full, set optimizer.state_bits to 8, or take a "
        "smaller model"
    )
    if estimate.fixed_bytes > free:
        raise BessemerError(
            "the model does not fit: weights, gradients, optimizer state and the copy for checkpoints take "
            f"{estimate.fixed_bytes / 1e9:.1f} GB, and {free / 1e9:.1f} GB of memory are free: take a "
            "smaller model, or set optimizer.state_bits to 8"
        )
    if total > free:
        return (
            f"memory may not do: about {total / 1e9:.1f} GB are needed, {free / 1e9:.1f} GB are free; if "
            f"training is killed, {mends}"
        )
    return None


def free_bytes(device: torch.device) -> int | None:
    """Memory that a program may still take on a device; None where nobody says. Of the machine's, what the
    container or job may have of it."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    known = [free for free in (_machine_free_bytes(), _group_free_bytes()) if free is not None]
    return min(known, default=None)


def _machine_free_bytes() -> int | None:
    available = _figures(Path("/proc/meminfo")).get("MemAvailable:")
    return None if available is None else available * 1024


_GROUPS = (
    ("memory.max", "memory.current", "memory.stat", "inactive_file"),
    (
        "memory/memory.limit_in_bytes",
        "memory/memory.usage_in_bytes",
        "memory/memory.stat",
        "total_inactive_file",
    ),
)
"""Files of control groups below their root, version 2 and 1: the limit, what is used, and its parts; and the
part that is a cache of files, which the kernel gives up when memory is short."""


def _group_free_bytes(root: Path = Path("/sys/fs/cgroup")) -> int | None:
    """What is left of the control group's limit; None where there is none."""
    for limit, used, parts, cache in _GROUPS:
        try:
            taken = int((root / used).read_text()) - _figures(root / parts).get(cache, 0)
            return max(0, int((root / limit).read_text()) - taken)
        except (OSError, ValueError):  # ValueError: the limit is the word `max`
            continue
    return None


def _figures(path: Path) -> dict[str, int]:
    """Whole numbers by the name that their line begins with; nothing where there is no such file."""
    try:
        lines = [line.split() for line in path.read_text().splitlines()]
    except OSError:
        return {}
    return {words[0]: int(words[1]) for words in lines if len(words) > 1 and words[1].isdigit()}
