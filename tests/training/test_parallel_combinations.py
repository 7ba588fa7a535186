"""Tensors, rows and experts divided together with FSDP2: the gradients of one process."""

import pytest
import torch
import torch.distributed as dist
from parallel_cases import assert_same, build, gradients, one_step, packed_batch, with_torch_operations
from parallel_helpers import run_ranks
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor

from bessemer.model.kernels import torch_operations
from bessemer.objectives.language_modeling import LanguageModeling
from bessemer.training.parallel.context import divide_rows, part_of_rows
from bessemer.training.parallel.expert import (
    divide_experts,
    divided_parameters,
    expert_mesh,
    sum_expert_gradients,
)
from bessemer.training.parallel.layout import ParallelConfig, build_layout
from bessemer.training.parallel.parts import expert_part, tensor_part, whole
from bessemer.training.parallel.tensor import divide_tensors, sum_undivided_gradients

CASES = ("grouped heads", "experts", "sigmoid experts")
LAYOUTS = {
    "tensor": ParallelConfig(shard=2, tensor=2),
    "context": ParallelConfig(shard=2, context=2),
    "expert": ParallelConfig(shard=4, expert=2),
    "context and expert": ParallelConfig(shard=2, context=2, expert=4),
}
RUNS = [(way, case) for way in LAYOUTS for case in CASES if "expert" not in way or "experts" in case]


def micro_batches(config):
    """One a rank that takes rows."""
    return packed_batch(num_rows=4).split(config.shard)


def sharded(model, mesh, left_out):
    """FSDP2 that sums."""
    for block in model.blocks:
        fully_shard(block, mesh=mesh, ignored_params=left_out)
    fully_shard(model, mesh=mesh, reshard_after_forward=False, ignored_params=left_out)
    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.set_gradient_divide_factor(1.0)
            module.set_force_sum_reduction_for_comms(True)


def step_of(way, case, layout):
    config, model = layout.config, build(case)
    tensors, contexts = layout.mesh["tensor"].get_group(), layout.mesh["context"].get_group()
    experts, left_out = None, set()
    if config.expert > 1:
        experts = expert_mesh(layout)
        divide_experts(model, experts["expert"].get_group())
        left_out = set(divided_parameters(model))
    if config.tensor > 1:
        divide_tensors(model, model.config, tensors)
    if config.context > 1:
        divide_rows(model, model.config, contexts)
    sharded(model, layout.mesh["shard", "context"]._flatten(f"tokens of {way}, {case}"), left_out)
    batches = micro_batches(config)
    count = sum(LanguageModeling().count(batch) for batch in batches)
    part = part_of_rows(batches[layout.place("shard")], config.context, layout.place("context"))
    step = one_step(model, part, count)
    if config.tensor > 1:
        sum_undivided_gradients(model, tensors)
    if experts is not None:
        sum_expert_gradients(model, experts["expert_copy"].get_group())
    for name, value in gradients(model).items():
        value = value.full_tensor() if isinstance(value, DTensor) else value
        if experts is not None:
            value = whole(value, expert_part_at(name, config.expert), experts["expert"].get_group())
        step.gradients[name] = whole(value, tensor_part_at(name, model.config, config.tensor), tensors)
    # Ranks along the tensor way have one and the same loss.
    loss = torch.tensor(step.loss / config.tensor)
    dist.all_reduce(loss)
    step.loss = float(loss)
    return step


def tensor_part_at(name, config, size):
    return lambda shape, place: tensor_part(name, shape, config, size, place)


def expert_part_at(name, size):
    return lambda shape, place: expert_part(name, shape, size, place)


@with_torch_operations
def all_steps(rank, world_size):
    layouts = {way: build_layout(config, world_size) for way, config in LAYOUTS.items()}
    return {(way, case): step_of(way, case, layouts[way]) for way, case in RUNS}


@pytest.fixture(scope="module")
def steps():
    return run_ranks(4, all_steps)


@pytest.mark.parametrize("run", RUNS, ids=str)
def test_loss_and_gradients_are_those_of_one_process(steps, run):
    way, case = run
    model, batches = build(case), micro_batches(LAYOUTS[way])
    count = sum(LanguageModeling().count(batch) for batch in batches)
    with torch_operations():
        expected = [one_step(model, batch, count) for batch in batches]
    for step in (of_rank[run] for of_rank in steps):
        assert step.loss == pytest.approx(sum(each.loss for each in expected), rel=1e-6)
        assert_same(step.gradients, expected[-1].gradients)
