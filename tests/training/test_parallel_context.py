"""Context parallelism: rows in parts have the loss and gradients of whole rows, in both kinds."""

import pytest
import torch
import torch.distributed as dist
from parallel_cases import (
    CASES,
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
from bessemer.model.attention import attend, document_mask, part_mask
from bessemer.model.kernels import torch_operations
from bessemer.objectives.language_modeling import LanguageModeling
from bessemer.training.parallel.context import divide_rows, part_of_rows, row_places
from bessemer.training.parallel.layout import ParallelConfig, build_layout
from bessemer.training.parallel.parts import tensor_part, whole
from bessemer.training.parallel.tensor import divide_tensors, sum_undivided_gradients

TOLERANCE = 1e-6
"""Of losses: float32 in another order of addition."""


def context_step(rank, world_size, case, kind, num_tokens):
    with operations(world_size):
        return divided_step(case, kind, num_tokens)


def divided_step(case, kind, num_tokens):
    model = build(case)
    divide_rows(model, model.config, dist.group.WORLD, kind)
    batch = packed_batch(num_tokens=num_tokens)
    part = part_of_rows(batch, dist.get_world_size(), dist.get_rank())
    step = one_step(model, part, LanguageModeling().count(batch))
    for gradient in step.gradients.values():
        dist.all_reduce(gradient)
    return step


RUNS = [(case, kind, 24) for case in CASES for kind in ("gather", "ulysses")]
RUNS.append(("grouped heads", "gather", 20))
"""With four processes, rows of 20 have parts of five tokens, of pieces of two and three."""


@pytest.fixture(scope="module")
def results():
    """What a call returned on every rank, by number of processes, function and arguments."""
    steps = [(context_step, *run) for run in RUNS]
    two = [(traffic, "gather"), (traffic, "ulysses"), (faults,)]
    four = [(with_tensors, "experts", "gather"), (with_tensors, "experts", "ulysses")]
    found = {2: run_ranks(2, every_call, steps + two), 4: run_ranks(4, every_call, steps + four)}
    return lambda size, *call: [of_rank[call] for of_rank in found[size]]


@pytest.mark.parametrize("run", RUNS, ids=str)
@pytest.mark.parametrize("size", [2, 4])
def test_loss_and_gradients_are_those_of_whole_rows(results, size, run):
    case, _, num_tokens = run
    batch = packed_batch(num_tokens=num_tokens)
    with operations(size):
        expected = one_step(build(case), batch, LanguageModeling().count(batch))
    parts = results(size, context_step, *run)
    assert sum(part.loss for part in parts) == pytest.approx(expected.loss, rel=TOLERANCE)
    sums = {name: sum(part.sums[name] for part in parts) for name in expected.sums}
    assert sums == pytest.approx(expected.sums, rel=TOLERANCE)
    assert_same(parts[0].gradients, expected.gradients)


@with_torch_operations
def with_tensors(rank, world_size, case, kind):
    """Two processes along each way."""
    layout = build_layout(ParallelConfig(tensor=2, context=2), 4)
    tensors, contexts = layout.mesh["tensor"].get_group(), layout.mesh["context"].get_group()
    model = build(case)
    divide_tensors(model, model.config, tensors)
    divide_rows(model, model.config, contexts, kind, tensor=2)
    batch = packed_batch()
    part = part_of_rows(batch, 2, layout.place("context"))
    step = one_step(model, part, LanguageModeling().count(batch))
    sum_undivided_gradients(model, tensors)
    for name, value in gradients(model).items():
        dist.all_reduce(value, group=contexts)
        step.gradients[name] = whole(
            value, lambda shape, place, name=name: tensor_part(name, shape, model.config, 2, place), tensors
        )
    return step


@pytest.mark.parametrize("kind", ["gather", "ulysses"])
def test_parts_of_rows_go_with_parts_of_tensors(results, kind):
    batch = packed_batch()
    with torch_operations():
        expected = one_step(build("experts"), batch, LanguageModeling().count(batch))
    ranks = results(4, with_tensors, "experts", kind)
    # Neighbours divide tensors and have one loss; the pairs have parts of it.
    assert ranks[0].loss == ranks[1].loss != ranks[2].loss == ranks[3].loss
    assert ranks[0].loss + ranks[2].loss == pytest.approx(expected.loss, rel=TOLERANCE)
    for rank in ranks:
        assert_same(rank.gradients, expected.gradients)


@with_torch_operations
def traffic(rank, world_size, kind):
    model = build("grouped heads")
    divide_rows(model, model.config, dist.group.WORLD, kind)
    part = part_of_rows(packed_batch(), world_size, rank)
    with CommDebugMode() as counts:
        one_step(model, part)
    return {str(name): count for name, count in counts.get_comm_counts().items()}


def test_a_layer_exchanges_once_or_twice_each_way(results):
    """And a step the documents of its rows."""
    layers = 2
    (gathered, _), (traded, _) = results(2, traffic, "gather"), results(2, traffic, "ulysses")
    assert gathered == {"c10d._allgather_base_": layers + 1, "c10d._reduce_scatter_base_": layers}
    assert traded == {"c10d._allgather_base_": 1, "c10d.alltoall_base_": 4 * layers}


@pytest.mark.parametrize(("num_tokens", "size"), [(24, 4), (20, 4), (6, 2), (7, 1), (4, 4)])
def test_every_token_is_held_once_and_later_ones_with_earlier_ones(num_tokens, size):
    places = row_places(num_tokens, size)
    assert places.shape == (size, num_tokens // size)
    assert sorted(places.flatten().tolist()) == list(range(num_tokens))
    assert bool((places.diff(dim=1) > 0).all())
    # Under a causal mask a token at place p costs p + 1.
    costs = (places + 1).sum(1)
    if num_tokens % (2 * size) == 0:
        assert costs.unique().numel() == 1


@pytest.mark.parametrize("backend", ["masked", "explicit", "online", "flex"])
@pytest.mark.parametrize("window", [None, 7])
def test_a_part_of_the_queries_sees_what_it_sees_in_the_whole_row(backend, window):
    generator = torch.Generator().manual_seed(0)
    num_tokens = 600  # several tiles, with queries from both ends of the row in one of them
    q, k, v = (torch.randn(2, num_tokens, heads, 16, generator=generator) for heads in (4, 2, 2))
    documents = packed_batch(num_tokens=num_tokens, seed=5).documents_BT // 20
    expected = attend(q, k, v, document_mask(documents, window), "masked")
    for places in row_places(num_tokens, 3):
        ours = attend(q[:, places], k, v, part_mask(documents, places, window), backend)
        torch.testing.assert_close(ours, expected[:, places], rtol=1e-4, atol=1e-5)


@with_torch_operations
def faults(rank, world_size):
    model = build("grouped heads")
    with pytest.raises(BessemerError) as heads:
        divide_rows(model, model.config, dist.group.WORLD, "ulysses", tensor=4)
    divide_rows(model, model.config, dist.group.WORLD)
    with pytest.raises(ValueError, match="need the documents"):
        model(packed_batch().token_ids_BT)
    return str(heads.value)


def test_what_does_not_divide_is_named_with_what_would_fit(results):
    assert "2 processes do not divide the 1 key/value heads" in results(2, faults)[0]
    with pytest.raises(BessemerError, match="rows of 24 tokens do not divide over 5"):
        part_of_rows(packed_batch(), 5, 0)
