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
from bessemer.training.parallel.divided import Divided
from bessemer.training.parallel.layout import ParallelConfig, build_layout

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
    divided = Divided(layout, model.config)
    wholes = {name: value.detach().clone() for name, value in model.named_parameters()}
    divided.divide(model)
    for name, parameter in model.named_parameters():
        assert torch.equal(divided.whole(name, parameter.detach()), wholes[name]), name
        assert torch.equal(divided.part(name, wholes[name]), parameter), name
        if name.endswith("gate_up"):
            assert parameter.numel() * divided.num_parts(name) == wholes[name].numel(), name
    tokens = layout.mesh["shard", "context"]._flatten(f"tokens of {way}, {case}")
    sharded(model, tokens, divided.divided_elsewhere(model))
    batches = micro_batches(config)
    count = sum(LanguageModeling().count(batch) for batch in batches)
    step = one_step(model, divided.part_of(batches[layout.place("shard")]), count)
    divided.sum_gradients(model)
    for name, value in gradients(model).items():
        shards_joined = value.full_tensor() if isinstance(value, DTensor) else value
        step.gradients[name] = divided.whole(name, shards_joined)
    # Ranks along the tensor way have one and the same loss.
    loss = torch.tensor(step.loss / config.tensor)
    dist.all_reduce(loss)
    step.loss = float(loss)
    return step


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
