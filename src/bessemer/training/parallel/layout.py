"""How many processes work in which way, and the device mesh that they form.

Ways of splitting, from the outside in: pipeline, data, shard, context, tensor. Neighbouring ranks share the
innermost way, which talks the most. Experts have no processes of their own: they are dispatched among
those that see different tokens (data, shard and context together).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from math import prod
from typing import Any, Literal

import torch
import torch.distributed as dist
from pydantic import Field, model_validator
from torch._C._distributed_c10d import Backend, ProcessGroupGloo
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh

from bessemer.config import Config, Count
from bessemer.errors import BessemerError
from bessemer.model.config import ModelConfig

WAYS = ("pipeline", "data", "shard", "context", "tensor")
"""Names of the mesh's dimensions, from the outside in."""


GroupOptions = Backend.Options
ContextKind = Literal["gather", "ulysses"]
STAGES_PER_PROCESS = {"1f1b": 1, "interleaved": 2, "zero_bubble": 2}
"""Parts of the model that a process of a pipeline holds, by schedule."""


class ParallelConfig(Config):
    """Processes along each way of splitting; their product is the number of processes."""

    data: Count = Field(default=1, ge=1)
    """Copies of the model that see different rows (with `shard`: copies of the sharded whole, HSDP)."""
    shard: Count = Field(default=1, ge=1)
    """Processes that hold a part each and see different rows."""
    zero: Literal[1, 2, 3] = 3
    """What `shard` divides: 1 optimizer state; 2 gradients too; 3 parameters too (Rajbhandari et al. 2020,
    arXiv:1910.02054)."""
    tensor: Count = Field(default=1, ge=1)
    """Processes that split every matrix and, between them, the tokens (sequence parallel)."""
    pipeline: Count = Field(default=1, ge=1)
    """Processes that hold consecutive layers each."""
    pipeline_schedule: Literal["1f1b", "interleaved", "zero_bubble"] = "1f1b"
    """Order of the micro-batches' forward and backward passes."""
    context: Count = Field(default=1, ge=1)
    """Processes that split each row's tokens."""
    context_kind: ContextKind = "gather"
    """How attention sees whole rows: gather, keys and values of all processes; ulysses, a share of the heads
    (see `bessemer.training.parallel.context` for which sends less)."""
    expert: Count = Field(default=1, ge=1)
    """Processes that split the experts; must divide data times shard times context."""

    gradient_dtype: Literal["float32", "bfloat16"] = "float32"
    """In which gradients are summed over data, shard and context. bfloat16 sends half the bytes, and rounds
    each sum to 8 bits of mantissa."""
    offload: Literal["none", "cpu"] = "none"
    """cpu: shards of weights, gradients and optimizer state lie in main memory, and the update is computed
    there. For GPUs; needs `shard` above 1."""
    timeout_s: float = Field(default=600.0, gt=0)
    """Seconds that processes wait for one another before the run ends with the name of the one missing; more
    than the longest pause of one alone, such as a checkpoint's checksums."""

    @property
    def world_size(self) -> int:
        """Processes in all."""
        return self.pipeline * self.data * self.shard * self.context * self.tensor

    @model_validator(mode="after")
    def _settings_go_together(self) -> "ParallelConfig":
        problems = []
        token_ranks = self.data * self.shard * self.context
        if token_ranks % self.expert:
            problems.append(
                f"parallel.expert {self.expert} does not divide data x shard x context = {token_ranks}: "
                f"one of {listed(_divisors(token_ranks))} would"
            )
        if self.offload == "cpu" and self.shard == 1:
            problems.append(
                "parallel.offload: cpu moves shards of the model, and nothing is sharded: set parallel.shard "
                "to 2 or more"
            )
        if problems:
            raise ValueError("; ".join(problems))
        return self


@dataclass(frozen=True)
class Layout:
    """A config and the mesh of this run's processes, from the view of one of them."""

    config: ParallelConfig
    mesh: DeviceMesh
    """Dimensions are WAYS, also those of size 1."""

    @property
    def rank(self) -> int:
        """Of this process, in the whole mesh."""
        return self.mesh.get_rank()

    def size(self, way: str) -> int:
        """Processes along a way."""
        return self.mesh[way].size()

    def place(self, way: str) -> int:
        """This process's place along a way, from 0."""
        return self.mesh[way].get_local_rank()

    def flat(self, *ways: str) -> DeviceMesh:
        """The ranks that differ from this one in these ways alone, as a mesh of one dimension; ways from the
        outside in. Collective the first time that ways are asked for."""
        if len(ways) == 1:
            return self.mesh[ways[0]]
        is_whole = prod(self.size(way) for way in ways) == self.config.world_size
        options = None if is_whole else self.group_options
        return self.mesh[ways]._flatten("_".join(ways), backend_override=options)

    @property
    def group_options(self) -> GroupOptions | None:
        """For every group of processes that is made: see `group_options`."""
        return group_options(self.config.timeout_s)


def build_layout(config: ParallelConfig, world_size: int, device_type: str = "cpu") -> Layout:
    """The mesh over all processes of the default process group, which must exist.

    Raises BessemerError when the sizes do not fit the number of processes or one another.
    """
    if config.world_size != world_size:
        sizes = " x ".join(f"{way} {getattr(config, way)}" for way in WAYS if getattr(config, way) > 1)
        raise BessemerError(
            f"the layout ({sizes or 'one process'}) takes {config.world_size} processes, but {world_size} "
            f"were started: start {config.world_size}, or {fitting_sizes(config, world_size)}"
        )
    shape = tuple(getattr(config, way) for way in WAYS)
    options = group_options(config.timeout_s)
    # A way that has all processes takes the default group, which has the timeout already.
    overrides: dict[int | str, Any] = {
        way: options for way, size in zip(WAYS, shape, strict=True) if size != world_size
    }
    mesh = init_device_mesh(
        device_type, shape, mesh_dim_names=WAYS, backend_override=overrides if options is not None else None
    )
    return Layout(config, mesh)


def group_options(timeout_s: float) -> GroupOptions | None:
    """Of a group that waits no longer than this; None where it waits for nobody (torch's fake group).

    Else torch gives a group the default of half an hour (gloo), whatever the default group was given.
    """
    match dist.get_backend():
        case "gloo":
            options: GroupOptions = ProcessGroupGloo._Options()  # pyright: ignore[reportAttributeAccessIssue]
        case "nccl":
            options = dist.ProcessGroupNCCL.Options()
        case _:
            return None
    options._timeout = timedelta(seconds=timeout_s)
    return options


def fitting_sizes(config: ParallelConfig, world_size: int) -> str:
    """Which sizes of `data` or `shard` would fit the processes that there are."""
    rest = config.pipeline * config.context * config.tensor
    if world_size % rest:
        return (
            f"choose sizes whose product is {world_size} (pipeline x context x tensor is {rest}, which does "
            "not divide it)"
        )
    return f"set data x shard to {world_size // rest}"


def check_model(config: ParallelConfig, model: ModelConfig) -> None:
    """Raises BessemerError, naming what would fit, when a model cannot be split this way."""
    check_shape(
        config,
        model.num_attention_heads,
        model.num_key_value_heads,
        model.num_hidden_layers,
        model.mixture.num_experts if model.mixture is not None else 0,
    )


def check_shape(config: ParallelConfig, heads: int, kv_heads: int, layers: int, experts: int) -> None:
    """As `check_model`; `experts` is 0 for a dense model."""
    if heads % config.tensor or kv_heads % config.tensor:
        fitting = [n for n in _divisors(kv_heads) if heads % n == 0]
        raise BessemerError(
            f"parallel.tensor {config.tensor} does not divide {heads} attention heads and {kv_heads} "
            f"key/value heads: {listed(fitting)} would"
        )
    own_heads = kv_heads // config.tensor
    if config.context_kind == "ulysses" and own_heads % config.context:
        raise BessemerError(
            f"parallel.context_kind ulysses divides heads, but a context of {config.context} processes does "
            f"not divide the {own_heads} key/value heads that each has: set context_kind to gather, or "
            f"context to {listed(_divisors(own_heads))}"
        )
    stages = config.pipeline * STAGES_PER_PROCESS[config.pipeline_schedule]
    if config.pipeline > 1 and stages > layers:
        most = layers // STAGES_PER_PROCESS[config.pipeline_schedule]
        raise BessemerError(
            f"parallel.pipeline {config.pipeline} with the schedule {config.pipeline_schedule} has {stages} "
            f"stages, more than the model's {layers} layers: at most {max(1, most)} processes fit"
        )
    if config.expert > 1 and (experts == 0 or experts % config.expert):
        if experts == 0:
            raise BessemerError(
                f"parallel.expert {config.expert} needs a mixture of experts, and this model is dense: "
                "set it to 1"
            )
        raise BessemerError(
            f"parallel.expert {config.expert} does not divide {experts} experts: "
            f"{listed(_divisors(experts))} would"
        )


def _divisors(number: int) -> list[int]:
    return [n for n in range(1, number + 1) if number % n == 0]


def listed(numbers: Sequence[int]) -> str:
    """Numbers in a sentence."""
    return ", ".join(map(str, numbers))


def check_rows(
    config: ParallelConfig, rows_per_step: int, row_tokens: int, setting: str = "batch_tokens"
) -> None:
    """Raises BessemerError when a step has too few rows, or rows of the wrong length, for the processes.
    `setting` decides how many rows the smallest step has."""
    ranks = config.data * config.shard
    if rows_per_step < ranks:
        raise BessemerError(
            f"a step has {rows_per_step} rows, fewer than the {ranks} processes that take rows (data x "
            f"shard): raise {setting} to at least {ranks * row_tokens:,}, or use at most {rows_per_step}"
        )
    if config.pipeline_schedule == "1f1b" and rows_per_step // ranks < config.pipeline:
        raise BessemerError(
            f"a step has {rows_per_step} rows, and a 1f1b pipeline of {config.pipeline} processes needs as "
            f"many for each of the {ranks} that take rows (data x shard): raise {setting} to at least "
            f"{ranks * config.pipeline * row_tokens:,}, or use a shorter pipeline or another schedule"
        )
    parts = config.context * config.tensor
    if row_tokens % parts:
        below = row_tokens // parts * parts
        fitting = f"{below} or {below + parts}" if below else str(parts)
        raise BessemerError(
            f"sequence_length {row_tokens} is not a multiple of context x tensor = {parts}: {fitting} would "
            "do"
        )


def cpu_threads_per_process(world_size: int) -> int:
    """Threads for each of several processes on one machine, so that they do not fight over its cores."""
    return max(1, torch.get_num_threads() // world_size)
