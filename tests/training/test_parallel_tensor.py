"""Tensor parallelism: the numbers of one process, what is exchanged for them, and what does not fit."""

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
from bessemer.model.kernels import torch_operations
from bessemer.objectives.language_modeling import LanguageModeling, target_log_probabilities
from bessemer.objectives.linear_cross_entropy import log_probabilities, summed_cross_entropy
from bessemer.training.parallel.parts import is_tensor_divided, share, tensor_part, whole
from bessemer.training.parallel.tensor import TensorDivision, divide_tensors, sum_undivided_gradients

TOLERANCE = 1e-6
"""Of losses: float32 in another order of addition."""
WHOLE, CHUNKS_OF_7 = 2**30, 7 * 16 * 4
"""The largest logits that are kept whole, in bytes."""


@pytest.fixture(scope="module")
def results():
    """What a call returned on every rank, by number of processes, function and arguments."""
    steps = [(tensor_step, case) for case in CASES]
    two = [(sgd_losses, "experts", 0.3), (traffic, "grouped heads"), (traffic, "experts"), (faults,)]
    two += [(narrow_gradients, "experts")]
    four = [(head, WHOLE), (head, CHUNKS_OF_7), (inference, "biases, untied")]
    four += [(sizes, "grouped heads"), (sizes, "sigmoid experts")]
    found = {2: run_ranks(2, every_call, steps + two), 4: run_ranks(4, every_call, steps + four)}
    return lambda size, *call: [of_rank[call] for of_rank in found[size]]


def divided(case):
    model = build(case)
    divide_tensors(model, model.config, dist.group.WORLD)
    return model


def joined(model, values):
    def part_at(name):
        size = dist.get_world_size()
        return lambda shape, place: tensor_part(name, shape, model.config, size, place)

    return {name: whole(value, part_at(name), dist.group.WORLD) for name, value in values.items()}


def tensor_step(rank, world_size, case):
    with operations(world_size):
        return divided_step(case)


def divided_step(case):
    model, batch = divided(case), packed_batch()
    step = one_step(model, batch, LanguageModeling().count(batch))
    sum_undivided_gradients(model, dist.group.WORLD)
    step.gradients = joined(model, gradients(model))
    return step


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("size", [2, 4])
def test_loss_and_gradients_are_those_of_one_process(results, size, case):
    batch = packed_batch()
    with operations(size):
        expected = one_step(build(case), batch, LanguageModeling().count(batch))
    for step in results(size, tensor_step, case):
        assert step.loss == pytest.approx(expected.loss, rel=TOLERANCE)
        assert step.sums == pytest.approx(expected.sums, rel=TOLERANCE)
        assert_same(step.gradients, expected.gradients)


@with_torch_operations
def sgd_losses(rank, world_size, case, rate):
    """Losses of steps of two micro-batches each, with plain SGD: any wrong scale of a gradient shows."""
    model = divided(case)
    return [sgd_step(model, step, rate, dist.group.WORLD) for step in range(4)]


def sgd_step(model, step, rate, group=None):
    batches = packed_batch(num_rows=4, seed=step).split(2)
    count = sum(LanguageModeling().count(batch) for batch in batches)
    model.zero_grad()
    losses = [one_step(model, batch, count).loss for batch in batches]
    if group is not None:
        sum_undivided_gradients(model, group)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.sub_(parameter.grad, alpha=rate)
    return sum(losses) / count


def test_training_with_accumulation_goes_the_same_way(results):
    model = build("experts")
    with torch_operations():
        expected = [sgd_step(model, step, 0.3) for step in range(4)]
    assert expected[-1] < expected[0]
    for losses in results(2, sgd_losses, "experts", 0.3):
        assert losses == pytest.approx(expected, rel=1e-5)


def narrow(model):
    """Its gradients with products in bfloat16, before what is held whole is summed."""
    model.compute_dtype = torch.bfloat16
    batch = packed_batch(num_rows=4)
    return one_step(model, batch, LanguageModeling().count(batch)).gradients


@with_torch_operations
def narrow_gradients(rank, world_size, case):
    model = divided(case)
    narrow(model)
    sum_undivided_gradients(model, dist.group.WORLD)
    return joined(model, gradients(model))


def test_bfloat16_is_as_near_to_float32_as_that_of_one_process(results):
    batch = packed_batch(num_rows=4)
    with torch_operations():
        exact = one_step(build("experts"), batch, LanguageModeling().count(batch)).gradients
        alone = narrow(build("experts"))
    (ours, _) = results(2, narrow_gradients, "experts")

    def error(found):
        return sum(float((found[name] - value).norm() / value.norm()) for name, value in exact.items())

    assert 0 < error(ours) < 1.3 * error(alone)


@with_torch_operations
def head(rank, world_size, largest):
    """Values and gradients of the head's summed loss and of single log-probabilities."""
    division = TensorDivision(dist.group.WORLD, 61)
    hidden, weight, targets = head_inputs()
    part = weight[slice(*share(61, world_size, rank))].clone().requires_grad_()
    hidden.requires_grad_()
    summed, penalty = summed_cross_entropy(hidden, part, targets, largest, division, z_loss=0.05)
    single = log_probabilities(hidden, part, targets, largest, division)
    (summed + (single * torch.linspace(0, 1, len(targets))).sum()).backward()
    dist.all_reduce(hidden.grad)
    return summed.detach(), penalty, single.detach(), hidden.grad, part.grad


def head_inputs():
    generator = torch.Generator().manual_seed(3)
    hidden, weight = torch.randn(40, 24, generator=generator), torch.randn(61, 24, generator=generator)
    return hidden, weight, torch.randint(61, (40,), generator=generator)


@pytest.mark.parametrize("largest", [WHOLE, CHUNKS_OF_7], ids=["whole", "chunks of 7"])
def test_the_head_of_a_divided_vocabulary_is_the_formula_in_double_precision(results, largest):
    hidden, weight, targets = (x.double() if x.is_floating_point() else x for x in head_inputs())
    hidden.requires_grad_()
    weight.requires_grad_()
    logits = hidden @ weight.T
    single = logits.log_softmax(-1).gather(1, targets.unsqueeze(1)).squeeze(1)
    z_losses = 0.05 * logits.logsumexp(-1).square()
    expected = z_losses.sum() - single.sum()
    (expected + (single * torch.linspace(0, 1, 40)).sum()).backward()
    heads = results(4, head, largest)
    for summed, penalty, ours, d_hidden, _ in heads:
        assert float(summed) == pytest.approx(float(expected.detach()), rel=1e-6)
        assert float(penalty) == pytest.approx(float(z_losses.detach().sum()), rel=1e-6)
        torch.testing.assert_close(ours.double(), single.detach(), rtol=1e-6, atol=1e-6)
        torch.testing.assert_close(d_hidden.double(), hidden.grad, rtol=1e-5, atol=1e-5)
    d_weight = torch.cat([d_weight for *_, d_weight in heads])
    torch.testing.assert_close(d_weight.double(), weight.grad, rtol=1e-5, atol=1e-5)


@with_torch_operations
def inference(rank, world_size, case):
    model, batch = divided(case).eval(), packed_batch()
    with torch.no_grad():
        logits = model.logits(model(batch.token_ids_BT, batch.documents_BT, batch.positions_BT))
        return logits, target_log_probabilities(model, batch)


def test_logits_and_log_probabilities_are_those_of_one_process(results):
    model, batch = build("biases, untied").eval(), packed_batch()
    with torch.no_grad():
        logits = model.logits(model(batch.token_ids_BT, batch.documents_BT, batch.positions_BT))
        expected, places = target_log_probabilities(model, batch)
    for ours, (values, ours_places) in results(4, inference, "biases, untied"):
        torch.testing.assert_close(ours, logits, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(values, expected, rtol=1e-5, atol=1e-5)
        assert torch.equal(ours_places, places)


@with_torch_operations
def traffic(rank, world_size, case):
    """Collective calls of a step, by kind."""
    model, batch = divided(case), packed_batch()
    with CommDebugMode() as counts:
        one_step(model, batch)
        sum_undivided_gradients(model, dist.group.WORLD)
    return {str(name): count for name, count in counts.get_comm_counts().items()}


def test_a_step_makes_four_exchanges_a_layer_each_way(results):
    """Beside them: embedding, final states, and two numbers a token of the head; one sum for the rest."""
    layers = 2
    (counts, _) = results(2, traffic, "grouped heads")
    assert counts == {
        "c10d._allgather_base_": 4 * layers + 3,
        "c10d._reduce_scatter_base_": 4 * layers + 2,
        "c10d.allreduce_": 1,
    }


def test_experts_gather_their_choices_too_and_share_one_sum_of_loads(results):
    layers = 2
    (counts, _) = results(2, traffic, "experts")
    assert counts == {
        "c10d._allgather_base_": 6 * layers + 3,
        "c10d._reduce_scatter_base_": 5 * layers + 2,
        "c10d.allreduce_": 2,
    }


@with_torch_operations
def sizes(rank, world_size, case):
    return {name: p.numel() for name, p in divided(case).named_parameters()}


@pytest.mark.parametrize("case", ["grouped heads", "sigmoid experts"])
def test_processes_hold_every_matrix_once_between_them(results, case):
    held = results(4, sizes, case)
    for name, parameter in build(case).named_parameters():
        parts = [of_rank[name] for of_rank in held]
        if is_tensor_divided(name):
            assert sum(parts) == parameter.numel(), name
            assert max(parts) <= parameter.numel() / 4 * 1.15, name
        else:
            assert parameter.dim() == 1 or "router" in name or "shared_gate" in name, name
            assert parts == [parameter.numel()] * 4, name


@with_torch_operations
def faults(rank, world_size):
    said = []
    for change in ({"num_key_value_heads": 1}, {"vocab_size": 1}, {"intermediate_size": 1}):
        model = build("grouped heads")
        config = model.config.model_copy(update=change)
        with pytest.raises(BessemerError) as caught:
            divide_tensors(model, config, dist.group.WORLD)
        said.append(str(caught.value))
    model, batch = divided("grouped heads"), packed_batch(num_tokens=23)
    with pytest.raises(BessemerError) as caught:
        LanguageModeling().loss(model, batch)
    with pytest.raises(IndexError, match="outside the vocabulary of 61"):
        model.division.log_probabilities(torch.zeros(1, 32), model.embedding, torch.tensor([61]))
    return [*said, str(caught.value)]


def test_what_does_not_divide_is_named_with_what_would_fit(results):
    (said, _) = results(2, faults)
    assert "8 attention heads and 1 key/value heads: 1 would" in said[0]
    assert "nothing of vocab_size 1: at most 1 fit" in said[1]
    assert "nothing of intermediate_size 1: at most 1 fit" in said[2]
    assert "rows of 23 tokens do not divide over 2" in said[3]
    assert "a multiple of 2" in said[3]
