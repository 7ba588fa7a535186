"""Expert parallelism: tokens sent to their experts give the numbers of one process, however uneven."""

import pytest
import torch
import torch.distributed as dist
from parallel_cases import (
    assert_same,
    build,
    every_call,
    gradients,
    one_step,
    operations,
    packed_batch,
    with_torch_operations,
)
from parallel_helpers import run_ranks
from torch.distributed.tensor.debug import CommDebugMode

from bessemer.errors import BessemerError
from bessemer.model.kernels import torch_operations
from bessemer.model.mixture import balance_experts
from bessemer.objectives.language_modeling import LanguageModeling
from bessemer.training.parallel.collectives import total
from bessemer.training.parallel.context import divide_rows, part_of_rows
from bessemer.training.parallel.expert import divide_experts, expert_mesh
from bessemer.training.parallel.layout import ParallelConfig, build_layout
from bessemer.training.parallel.parts import expert_part, is_expert_divided, tensor_part, whole
from bessemer.training.parallel.tensor import divide_tensors, sum_undivided_gradients

TOLERANCE = 1e-6
"""Of losses: float32 in another order of addition."""
MIXTURES = ("experts", "sigmoid experts")


PULLS = (0.0, -0.3, -50.0)
"""What the last expert's router is pulled by: not at all, to few tokens, to none."""


def skewed(case, pull):
    model = build(case)
    with torch.no_grad():
        model.embedding[:, 0] = 2.0  # a direction that all tokens share …
        for block in model.blocks:
            if block.mixture is not None:
                block.feed_forward_norm[0] = 1.0
                block.mixture.router[-1, 0] += pull  # … and that the last expert's router reads
    return model


def batch_of_ranks(size):
    """The rows of every data rank are a micro-batch of one process."""
    return packed_batch(num_rows=4).split(size)


def one_process(case, pull, size):
    """Loss, gradients, sums and the biases after a step."""
    model, batches = skewed(case, pull), batch_of_ranks(size)
    count = sum(LanguageModeling().count(batch) for batch in batches)
    steps = [one_step(model, batch, count) for batch in batches]
    balance_experts(model)
    sums = {name: sum(step.sums[name] for step in steps) for name in steps[0].sums}
    return sum(step.loss for step in steps), steps[-1].gradients, sums, biases(model)


def biases(model):
    return {name: value for name, value in model.state_dict().items() if name.endswith("selection_bias")}


def expert_ranks(rank, world_size, case, pull, experts):
    """All processes take rows; `experts` of them divide the experts."""
    with operations(world_size):
        return divided_step(world_size, case, pull, experts)


def divided_step(size, case, pull, experts):
    mesh = expert_mesh(build_layout(ParallelConfig(data=size, expert=experts), size))
    group, copies = mesh["expert"].get_group(), mesh["expert_copy"].get_group()
    model = skewed(case, pull)
    divide_experts(model, group)
    batches = batch_of_ranks(size)
    count = sum(LanguageModeling().count(batch) for batch in batches)
    step = one_step(model, batches[dist.get_rank()], count)
    for name, value in gradients(model).items():
        dist.all_reduce(value, group=copies if is_expert_divided(name) else dist.group.WORLD)
        step.gradients[name] = whole(value, part_at(name, experts), group)
    balance_experts(model, lambda load: total(load, dist.group.WORLD))
    return step, biases(model)


def part_at(name, size):
    return lambda shape, place: expert_part(name, shape, size, place)


RUNS = {
    2: [(case, pull, 2) for case in MIXTURES for pull in PULLS],
    4: [(case, pull, 4) for case in MIXTURES for pull in PULLS] + [("experts", 0.0, 2)],
}


@pytest.fixture(scope="module")
def results():
    """What a call returned on every rank, by number of processes, function and arguments."""
    steps = {size: [(expert_ranks, *run) for run in runs] for size, runs in RUNS.items()}
    four = [(with_tensors_and_rows, case) for case in MIXTURES]
    found = {
        2: run_ranks(2, every_call, [*steps[2], (traffic, "experts")]),
        4: run_ranks(4, every_call, steps[4] + four),
    }
    return lambda size, *call: [of_rank[call] for of_rank in found[size]]


@pytest.mark.parametrize(("size", "run"), [(size, run) for size, runs in RUNS.items() for run in runs])
def test_loss_gradients_and_biases_are_those_of_one_process(results, size, run):
    case, pull, _ = run
    with operations(size):
        loss, expected, sums, expected_biases = one_process(case, pull, size)
    ranks = results(size, expert_ranks, *run)
    assert sum(step.loss for step, _ in ranks) == pytest.approx(loss, rel=TOLERANCE)
    for name, value in sums.items():
        assert sum(step.sums[name] for step, _ in ranks) == pytest.approx(value, rel=TOLERANCE)
    for step, moved in ranks:
        assert_same(step.gradients, expected)
        assert moved.keys() == expected_biases.keys()
        assert all(torch.equal(moved[name], bias) for name, bias in expected_biases.items())


@pytest.mark.parametrize("case", MIXTURES)
def test_the_runs_above_have_even_uneven_and_idle_experts(case):
    loads = []
    for pull in PULLS:
        model, routings = skewed(case, pull), []
        for batch in batch_of_ranks(4):
            model(batch.token_ids_BT, batch.documents_BT, batch.positions_BT, routings=routings)
        load_X = torch.stack([routing.load_X for routing in routings]).sum(0)
        loads.append(float(load_X[-1] / load_X.mean()))
    assert loads[0] > 0.3
    assert 0 < loads[1] < 0.8 * loads[0]
    assert loads[2] == 0


@with_torch_operations
def with_tensors_and_rows(rank, world_size, case):
    """Two processes divide tensors; two divide rows, and the experts between them."""
    layout = build_layout(ParallelConfig(tensor=2, context=2, expert=2), 4)
    mesh = expert_mesh(layout)
    tensors, contexts = layout.mesh["tensor"].get_group(), layout.mesh["context"].get_group()
    model = skewed(case, 0.0)
    divide_experts(model, mesh["expert"].get_group())
    divide_tensors(model, model.config, tensors)
    divide_rows(model, model.config, contexts)
    batch = packed_batch(num_rows=4)
    part = part_of_rows(batch, 2, layout.place("context"))
    step = one_step(model, part, LanguageModeling().count(batch))
    sum_undivided_gradients(model, tensors)
    for name, value in gradients(model).items():
        if not is_expert_divided(name):
            dist.all_reduce(value, group=contexts)
        joined = whole(value, part_at(name, 2), mesh["expert"].get_group())
        step.gradients[name] = whole(
            joined, lambda shape, place, name=name: tensor_part(name, shape, model.config, 2, place), tensors
        )
    return step


@pytest.mark.parametrize("case", MIXTURES)
def test_experts_rows_and_tensors_are_divided_together(results, case):
    with torch_operations():
        loss, expected, _, _ = one_process(case, 0.0, 1)
    ranks = results(4, with_tensors_and_rows, case)
    assert ranks[0].loss + ranks[2].loss == pytest.approx(loss, rel=TOLERANCE)
    for rank in ranks:
        assert_same(rank.gradients, expected)


@with_torch_operations
def traffic(rank, world_size, case):
    model = build(case)
    divide_experts(model, dist.group.WORLD)
    with CommDebugMode() as counts:
        one_step(model, batch_of_ranks(world_size)[rank])
    held = sum(p.numel() for name, p in model.named_parameters() if is_expert_divided(name))
    return {str(name): count for name, count in counts.get_comm_counts().items()}, held


def test_a_layer_exchanges_counts_once_and_tokens_twice_each_way(results):
    layers = 2
    of_all = sum(p.numel() for name, p in build("experts").named_parameters() if is_expert_divided(name))
    for counts, held in results(2, traffic, "experts"):
        assert counts == {"c10d.alltoall_base_": 5 * layers}
        assert held == of_all / 2


@with_torch_operations
def fault(rank, world_size):
    with pytest.raises(BessemerError) as caught:
        divide_experts(build("experts"), dist.group.WORLD)
    return str(caught.value)


def test_experts_that_do_not_divide_are_named():
    assert "4 experts do not divide over 3 expert-parallel processes" in run_ranks(3, fault)[0]
