"""Pipelines whose stages are themselves sharded, divided by tensors, rows or experts: four processes against
one."""

from dataclasses import dataclass, field
from typing import Any

import pytest
import torch.distributed as dist
from parallel_helpers import run_ranks
from pipeline_cases import (
    EXPERTS,
    PipelineCase,
    build,
    gradients,
    in_one_process,
    micro_batches,
    worst_difference,
)
from torch import Tensor
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor

from bessemer.model.kernels import torch_operations
from bessemer.objectives.language_modeling import LanguageModeling
from bessemer.training.parallel.context import divide_rows, part_of_rows
from bessemer.training.parallel.expert import divide_experts, expert_mesh
from bessemer.training.parallel.layout import Layout, ParallelConfig, build_layout
from bessemer.training.parallel.parts import expert_part, is_expert_divided, tensor_part, whole
from bessemer.training.parallel.pipeline import Pipeline, PipelineSchedule
from bessemer.training.parallel.tensor import divide_tensors, sum_undivided_gradients

UNTIED = {"tie_word_embeddings": False}
MIXED = {"mixture": EXPERTS, "num_key_value_heads": 2}


@dataclass(frozen=True)
class Mixed:
    """A pipeline of two processes, and one other way of splitting by two."""

    way: str
    schedule: PipelineSchedule = "1f1b"
    changes: dict[str, Any] = field(default_factory=dict)


CASES = {
    "shard, tied": Mixed("shard"),
    "shard, interleaved": Mixed("shard", "interleaved"),
    "shard, zero bubble": Mixed("shard", "zero_bubble", UNTIED),
    "shard, experts": Mixed("shard", changes=MIXED),
    "tensor, tied": Mixed("tensor"),
    "tensor, zero bubble": Mixed("tensor", "zero_bubble", UNTIED),
    "tensor, experts": Mixed("tensor", changes=MIXED),
    "context": Mixed("context", "interleaved"),
    "context, experts": Mixed("context", "zero_bubble", MIXED),
    "expert": Mixed("expert", changes=MIXED),
    "expert, zero bubble": Mixed("expert", "zero_bubble", MIXED | UNTIED),
}


def on_four(rank: int, world_size: int) -> list[tuple[float, dict[str, Tensor], frozenset[str]]]:
    """For each case: the loss that this rank has a part of, whole gradients of what it holds, and copies."""
    with torch_operations():
        return [one_case(case) for case in CASES.values()]


def one_case(case: Mixed) -> tuple[float, dict[str, Tensor], frozenset[str]]:
    # Experts have no processes of their own: two that take rows divide them.
    ways = {"pipeline": 2, "data" if case.way == "expert" else case.way: 2}
    parallel = ParallelConfig(**ways, expert=2 if case.way == "expert" else 1)
    layout = build_layout(parallel, 4)
    model = build(PipelineCase(case.schedule, case.changes))
    if case.way == "tensor":
        divide_tensors(model, model.config, layout.mesh["tensor"].get_group())
    if case.way == "context":
        divide_rows(model, model.config, layout.mesh["context"].get_group())
    if case.way == "expert":
        divide_experts(model, expert_mesh(layout)["expert"].get_group())
    pipeline = Pipeline(model, layout.mesh["pipeline"].get_group(), case.schedule, context=24)
    if case.way == "shard":
        shard(pipeline, layout)
    loss = pipeline.step(LanguageModeling(), batches_of(case, layout))
    held = pipeline.held()
    if case.way == "tensor":
        sum_undivided_gradients(held, layout.mesh["tensor"].get_group())
    found = {
        name: whole_gradient(name, value, case, layout, model.config)
        for name, value in gradients(held).items()
    }
    return float(loss.total), found, pipeline.copies


def shard(pipeline: Pipeline, layout: Layout) -> None:
    """ZeRO with sums of gradients, not means."""
    for stage in pipeline.stages:
        for block in stage.blocks:
            fully_shard(block, mesh=layout.mesh["shard"], reshard_after_forward=False)
        fully_shard(stage, mesh=layout.mesh["shard"], reshard_after_forward=False)
        for module in stage.modules():
            if isinstance(module, FSDPModule):
                module.set_gradient_divide_factor(1.0)
                module.set_force_sum_reduction_for_comms(True)


def batches_of(case: Mixed, layout: Layout) -> list[Any]:
    """Every other micro-batch where processes take rows; a part of the rows of each where those are cut."""
    batches = micro_batches("uneven")
    if case.way == "context":
        return [part_of_rows(batch, 2, layout.place("context")) for batch in batches]
    if case.way == "tensor":
        return batches
    return batches[layout.place("shard") + layout.place("data") :: 2]


def whole_gradient(name: str, value: Tensor, case: Mixed, layout: Layout, config: Any) -> Tensor:
    """As one process would have it."""
    if isinstance(value, DTensor):
        return value.full_tensor()
    if case.way == "tensor":
        group = layout.mesh["tensor"].get_group()
        return whole(value, lambda shape, place: tensor_part(name, shape, config, 2, place), group)
    if case.way == "expert" and is_expert_divided(name):
        group = layout.mesh["data"].get_group()
        return whole(value, lambda shape, place: expert_part(name, shape, 2, place), group)
    dist.all_reduce(value, group=layout.mesh["data" if case.way == "expert" else case.way].get_group())
    return value


@pytest.fixture(scope="module")
def ranks() -> list[list[tuple[float, dict[str, Tensor], frozenset[str]]]]:
    return run_ranks(4, on_four)


@pytest.mark.parametrize("name", CASES)
def test_mixed_ways_compute_what_one_process_does(name: str, ranks: list[list[Any]]) -> None:
    case, place = CASES[name], list(CASES).index(name)
    with torch_operations():
        one = in_one_process(PipelineCase(case.schedule, case.changes))
    outcomes = [found[place] for found in ranks]
    # Ranks 0 and 1 are of one stage, and differ in the other way.
    total = outcomes[0][0] if case.way == "tensor" else outcomes[0][0] + outcomes[1][0]
    assert total == pytest.approx(float(one.loss.total), rel=1e-6)
    for first in (0, 1):
        found: dict[str, Tensor] = {}
        for _, values, copies in outcomes[first::2]:
            found |= {key: value for key, value in values.items() if key not in copies}
        difference, where = worst_difference(found, one.gradients)
        assert difference <= 5e-6, where
