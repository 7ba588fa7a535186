"""Formulas for memory against what models, optimizers, pipelines and ranks really hold."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.distributed as dist
from memory_cases import counted
from parallel_helpers import run_ranks
from torch import nn
from torch.distributed.fsdp import fully_shard
from torch.distributed.pipelining import PipelineStage
from torch.distributed.pipelining.schedules import (
    Schedule1F1B,
    ScheduleInterleaved1F1B,
    ScheduleZBVZeroBubble,
)
from torch.distributed.tensor import DTensor
from torch.testing._internal.distributed.fake_pg import FakeStore

from bessemer.model.config import MixtureConfig, ModelConfig
from bessemer.model.kernels import torch_operations
from bessemer.model.transformer import Transformer
from bessemer.objectives.language_modeling import LanguageModeling
from bessemer.training.batches import Batch
from bessemer.training.optimizers import OptimizerConfig, Optimizers
from bessemer.training.parallel.activation_memory import (
    Tokens,
    block_activations,
    most_under_way,
    pipeline_activations,
)
from bessemer.training.parallel.context import divide_rows, part_of_rows
from bessemer.training.parallel.expert import divide_experts, expert_mesh
from bessemer.training.parallel.layout import ContextKind, ParallelConfig, build_layout
from bessemer.training.parallel.memory import optimizer_bytes
from bessemer.training.parallel.pipeline import Pipeline, num_stages, stages_of
from bessemer.training.parallel.plan_text import memory_table
from bessemer.training.parallel.shapes import (
    Place,
    held_shapes,
    num_elements,
    parameter_shapes,
    shard_shape,
    sharded_shapes,
)
from bessemer.training.parallel.tensor import divide_tensors
from bessemer.training.quantized import Quantized
from bessemer.training.recompute import RecomputeConfig, recompute

SHAPE: dict[str, Any] = {
    "vocab_size": 512,
    "hidden_size": 64,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 192,
    "max_position_embeddings": 256,
}
EXPERTS = MixtureConfig(num_experts=8, experts_per_token=2, expert_size=48)
GATED = EXPERTS.model_copy(update={"shared_size": 48})
SIGMOID = GATED.model_copy(update={"scores": "sigmoid"})
MODELS = {
    "dense": ModelConfig(**SHAPE),
    "untied, QK-norm": ModelConfig(**SHAPE, tie_word_embeddings=False, qk_norm=True),
    "biases": ModelConfig(**SHAPE, attention_bias=True, attention_out_bias=True, mlp_bias=True),
    "future tokens": ModelConfig(**SHAPE, future_tokens=2),
    "gpt2": ModelConfig(**(SHAPE | {"family": "gpt2", "num_key_value_heads": 4})),
    "experts": ModelConfig(**SHAPE, mixture=EXPERTS),
    "shared expert": ModelConfig(**SHAPE, mixture=GATED),
    "sigmoid": ModelConfig(**SHAPE, qk_norm=True, mixture=SIGMOID.model_copy(update={"dense_layers": (0,)})),
}


@pytest.mark.parametrize("name", MODELS)
def test_shapes_are_those_of_the_model(name: str) -> None:
    with torch.device("meta"):
        model = Transformer(MODELS[name])
    assert parameter_shapes(MODELS[name]) == {key: tuple(p.shape) for key, p in model.named_parameters()}


@pytest.mark.parametrize(("rows", "size"), [(5, 2), (7, 3), (2, 4), (9, 4), (8, 8), (1, 3)])
def test_shards_are_those_of_torch_chunk(rows: int, size: int) -> None:
    chunks = list(torch.empty(rows, 3).chunk(size))
    for place in range(size):
        expected = tuple(chunks[place].shape) if place < len(chunks) else (0, 3)
        assert shard_shape((rows, 3), size, place) == expected


@pytest.mark.parametrize("kind", ["muon", "adamw"])
@pytest.mark.parametrize("bits", [8, 32])
@pytest.mark.parametrize("name", ["untied, QK-norm", "shared expert", "gpt2"])
def test_state_of_optimizers_is_as_computed(kind: Any, bits: Any, name: str) -> None:
    config = OptimizerConfig(kind=kind, state_bits=bits)
    model = Transformer(MODELS[name]).initialize(0)
    optimizers = Optimizers(model, config)
    for parameter in model.parameters():
        parameter.grad = torch.randn_like(parameter)
    optimizers.step()
    assert state_bytes(optimizers.all) == optimizer_bytes(parameter_shapes(MODELS[name]), config)


def state_bytes(optimizers: list[torch.optim.Optimizer]) -> int:
    """Of all tensors, on this rank."""
    found = 0
    for optimizer in optimizers:
        for state in optimizer.state.values():
            for value in state.values():
                parts = (value.codes, value.scales) if isinstance(value, Quantized) else (value,)
                found += sum(local(part).nbytes for part in parts)
    return found


def local(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def plain_batch(rows: int, row: int, vocab_size: int = 512) -> Batch:
    """Rows of one document each, every target learnt."""
    generator = torch.Generator().manual_seed(0)
    ids_BT = torch.randint(vocab_size, (rows, row + 1), generator=generator)
    documents_BT = torch.zeros(rows, row, dtype=torch.int32)
    return Batch(
        ids_BT[:, :-1].contiguous(),
        ids_BT[:, 1:].contiguous(),
        documents_BT,
        torch.arange(row).repeat(rows, 1),
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("row", [64, 128])
@pytest.mark.parametrize("name", ["dense", "untied, QK-norm", "experts", "shared expert", "sigmoid"])
def test_activations_of_a_model(name: str, row: int, dtype: torch.dtype) -> None:
    config = MODELS[name]
    model = Transformer(config, dtype).initialize(0)
    batch = plain_batch(4, row)
    with counted([*model.parameters(), batch.token_ids_BT, batch.targets_BT]) as kept:
        LanguageModeling().loss(model, batch).total.backward()
    tokens = explicit(row, 4, dtype)
    assert kept.most == pytest.approx(
        pipeline_activations(config, ParallelConfig(), Place(), tokens), rel=0.05
    )


def explicit(row: int, rows: int, dtype: torch.dtype = torch.float32, **more: Any) -> Tokens:
    """As the CPU computes; scores are in rectangles of 64 queries."""
    area = sum(64 * stop for stop in range(64, row + 1, 64))
    return Tokens(row=row, rows=rows, item=dtype.itemsize, attention="explicit", score_area=area, **more)


def test_activations_with_recomputation() -> None:
    """What enters each layer is kept; the rest of one layer, which autograd does not tell of, comes on top
    of that."""
    config = MODELS["dense"]
    model = Transformer(config).initialize(0)
    model.around_block = recompute(RecomputeConfig(kind="full"), lambda block, *inputs: block(*inputs))
    batch, tokens = plain_batch(4, 64), explicit(64, 4, recompute="full")
    with counted([*model.parameters(), batch.token_ids_BT, batch.targets_BT]) as kept:
        LanguageModeling().loss(model, batch).total.backward()
    layer = block_activations(config, 0, ParallelConfig(), tokens)
    ours = pipeline_activations(config, ParallelConfig(), Place(), tokens)
    assert kept.most == pytest.approx(ours - layer, rel=0.05)


def kept_with_tensor(rank: int, world_size: int, name: str) -> int:
    model = Transformer(MODELS[name]).initialize(0)
    divide_tensors(model, MODELS[name], dist.group.WORLD)
    return kept_by(model, plain_batch(4, 64))


def kept_with_context(rank: int, world_size: int, name: str, kind: ContextKind) -> int:
    model = Transformer(MODELS[name]).initialize(0)
    divide_rows(model, MODELS[name], dist.group.WORLD, kind)
    return kept_by(model, part_of_rows(plain_batch(4, 64), world_size, rank))


def kept_by(model: nn.Module, batch: Batch) -> int:
    with counted([*model.parameters(), batch.token_ids_BT, batch.targets_BT]) as kept:
        LanguageModeling().loss(model, batch).total.backward()  # type: ignore[arg-type]
    return kept.most


TENSOR_MODELS = ("untied, QK-norm", "shared expert")
CONTEXT_KINDS: tuple[ContextKind, ...] = ("gather", "ulysses")
SCHEDULES = ("1f1b", "interleaved", "zero_bubble")
NUM_BATCHES = 4


def kept_on_two(rank: int, world_size: int) -> tuple[list[int], list[int], list[int]]:
    """Bytes kept with tensors divided, with rows divided, and in each schedule."""
    return (
        [kept_with_tensor(rank, world_size, name) for name in TENSOR_MODELS],
        [kept_with_context(rank, world_size, "dense", kind) for kind in CONTEXT_KINDS],
        kept_in_pipelines(rank, world_size, list(SCHEDULES), NUM_BATCHES),
    )


@pytest.fixture(scope="module")
def two() -> list[tuple[list[int], list[int], list[int]]]:
    return run_ranks(2, kept_on_two)


@pytest.mark.parametrize("name", TENSOR_MODELS)
def test_activations_with_divided_tensors(name: str, two: list[Any]) -> None:
    expected = pipeline_activations(MODELS[name], ParallelConfig(tensor=2), Place(), explicit(64, 4))
    for kept, _, _ in two:
        assert kept[TENSOR_MODELS.index(name)] == pytest.approx(expected, rel=0.05)


@pytest.mark.parametrize("kind", CONTEXT_KINDS)
def test_activations_with_divided_rows(kind: ContextKind, two: list[Any]) -> None:
    """With gather, each process has 32 queries, in one rectangle with all keys up to its last; with ulysses,
    all queries with half the heads."""
    parallel = ParallelConfig(context=2, context_kind=kind)
    expected = pipeline_activations(MODELS["dense"], parallel, Place(), explicit(64, 4))
    assert sum(kept[CONTEXT_KINDS.index(kind)] for _, kept, _ in two) / 2 == pytest.approx(expected, rel=0.05)


def kept_in_pipelines(rank: int, world_size: int, schedules: list[Any], num_batches: int) -> list[int]:
    found = []
    for schedule in schedules:
        model = Transformer(MODELS["dense"]).initialize(0)
        pipeline = Pipeline(model, dist.group.WORLD, schedule, context=64)
        batches = [plain_batch(4, 64) for _ in range(num_batches)]
        left_out = [t for batch in batches for t in (batch.token_ids_BT, batch.targets_BT)]
        with counted([*model.parameters(), *left_out]) as kept:
            pipeline.step(LanguageModeling(), batches)
        found.append(kept.most)
    return found


def test_activations_in_pipelines(two: list[Any]) -> None:
    for rank, (_, _, found) in enumerate(two):
        for schedule, kept in zip(SCHEDULES, found, strict=True):
            parallel = ParallelConfig(pipeline=2, pipeline_schedule=schedule)
            tokens = explicit(64, 4, micro_batches=NUM_BATCHES)
            ours = pipeline_activations(MODELS["dense"], parallel, Place(pipeline=rank), tokens)
            assert kept == pytest.approx(ours, rel=0.05), f"{schedule}, rank {rank}"


@pytest.mark.parametrize("schedule", ["1f1b", "interleaved", "zero_bubble"])
@pytest.mark.parametrize(("num_processes", "num_batches"), [(2, 2), (2, 6), (3, 9), (4, 4), (4, 12)])
def test_micro_batches_under_way_are_those_of_the_schedule(
    schedule: Any, num_processes: int, num_batches: int
) -> None:
    parallel = ParallelConfig(pipeline=num_processes, pipeline_schedule=schedule)
    orders = torch_orders(schedule, num_processes, num_batches)
    for process in range(num_processes):
        stages = stages_of(process, num_processes, schedule)
        counts, seen = dict.fromkeys(stages, 0), []
        for action in orders[process]:
            if action is not None:
                kind = action.computation_type.name
                counts[action.stage_index] += (kind == "FORWARD") - (
                    kind in ("FULL_BACKWARD", "BACKWARD_WEIGHT")
                )
                seen.append(tuple(counts.values()))
        ours = most_under_way(parallel, process, num_batches)
        assert max(map(sum, ours)) == max(map(sum, seen))
        assert set(ours) <= set(seen)


def torch_orders(schedule: Any, num_processes: int, num_batches: int) -> dict[int, list[Any]]:
    """What each process does in turn."""
    kind: Callable[..., Any] = {
        "1f1b": Schedule1F1B,
        "interleaved": ScheduleInterleaved1F1B,
        "zero_bubble": ScheduleZBVZeroBubble,
    }[schedule]
    dist.init_process_group("fake", rank=0, world_size=num_processes, store=FakeStore())
    try:
        total = num_stages(schedule, num_processes)
        stages = [
            PipelineStage(nn.Identity(), stage, total, torch.device("cpu"))
            for stage in stages_of(0, num_processes, schedule)
        ]
        return kind(stages[0] if schedule == "1f1b" else stages, num_batches).pipeline_order
    finally:
        dist.destroy_process_group()


LAYOUTS = {
    "zero 3 over four": (ParallelConfig(shard=4), "untied, QK-norm"),
    "copies of shards": (ParallelConfig(data=2, shard=2), "gpt2"),
    "shards of tensors": (ParallelConfig(shard=2, tensor=2), "sigmoid"),
    "shards of stages": (ParallelConfig(pipeline=2, shard=2), "untied, QK-norm"),
    "stages of tensors": (ParallelConfig(pipeline=2, tensor=2), "dense"),
    "experts": (ParallelConfig(data=4, expert=4), "experts"),
}


def held_on_ranks(rank: int, world_size: int) -> list[tuple[dict[str, Any], int, int, int]]:
    """For each layout: shapes, and bytes of parameters, gradients and AdamW's state, after an update."""
    with torch_operations():
        return [held_on_rank(parallel, MODELS[name]) for parallel, name in LAYOUTS.values()]


def held_on_rank(parallel: ParallelConfig, config: ModelConfig) -> tuple[dict[str, Any], int, int, int]:
    layout = build_layout(parallel, parallel.world_size)
    model = Transformer(config).initialize(0)
    if parallel.tensor > 1:
        divide_tensors(model, config, layout.mesh["tensor"].get_group())
    if parallel.expert > 1:
        divide_experts(model, expert_mesh(layout)["expert"].get_group())
    pipeline = Pipeline(model, layout.mesh["pipeline"].get_group(), context=64)
    if parallel.shard > 1:
        mesh = layout.mesh["data", "shard"] if parallel.data > 1 else layout.mesh["shard"]
        for stage in pipeline.stages:
            for block in stage.blocks:
                fully_shard(block, mesh=mesh)
            fully_shard(stage, mesh=mesh)
    pipeline.step(LanguageModeling(), [plain_batch(2, 64)] * 2)
    held = pipeline.held()
    optimizer = torch.optim.AdamW(held.parameters(), lr=0.1)
    optimizer.step()
    tensors = dict(held.named_parameters())
    shapes = {key: tuple(local(p).shape) for key, p in tensors.items()}
    parameters = sum(local(p).nbytes for p in tensors.values())
    gradients = sum(local(p.grad).nbytes for p in tensors.values() if p.grad is not None)
    return shapes, parameters, gradients, state_bytes([optimizer])


def test_ranks_hold_what_is_computed() -> None:
    optimizer = OptimizerConfig(kind="adamw")
    for rank, found in enumerate(run_ranks(4, held_on_ranks)):
        for (name, (parallel, model)), outcome in zip(LAYOUTS.items(), found, strict=True):
            place = Place.of_rank(parallel, rank)
            shapes = sharded_shapes(held_shapes(MODELS[model], parallel, place, 64), parallel, place)
            size = 4 * num_elements(shapes)
            assert outcome == (shapes, size, size, optimizer_bytes(shapes, optimizer)), f"{name}, rank {rank}"


def test_a_table_of_a_layout() -> None:
    parallel = ParallelConfig(pipeline=2, shard=2)
    table = memory_table(MODELS["dense"], parallel, OptimizerConfig(), explicit(64, 4, micro_batches=4))
    title, head, first, second = table.splitlines()
    assert "on 4 processes (pipeline 2, shard 2, zero 3, 1f1b), 4 micro-batches of 4 x 64 tokens" in title
    assert head.split()[0] == "layers"
    assert len(first.split()) == len(second.split()) == len(head.split()) == 8
    assert first.split()[0].startswith("0-")
    assert second.split()[0].endswith("-3")
