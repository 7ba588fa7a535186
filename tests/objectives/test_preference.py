import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bessemer.evaluation.scores import evaluate_alone
from bessemer.objectives.preference import DirectPreference, dpo_loss
from bessemer.tokenization.chat import Rendered
from bessemer.training.dpo import PairRows, reference_log_probabilities
from bessemer.training.parallel.ranks import Alone
from model_helpers import assert_same_gradients, gradients, tiny_model
from stage_helpers import stage_context

CPU = torch.device("cpu")
LENGTH, PAD = 48, 60
NUMBERS = st.floats(-60, 60)


def some_pairs(count=9, seed=0):
    draw = np.random.Generator(np.random.Philox(seed))

    def answer(prompt):
        ids = draw.integers(0, PAD, int(draw.integers(2, 7))).tolist()
        return Rendered([*prompt, *ids], [*([False] * len(prompt)), *([True] * len(ids))])

    prompts = [draw.integers(0, PAD, int(draw.integers(3, 8))).tolist() for _ in range(count)]
    return [(answer(prompt), answer(prompt)) for prompt in prompts]


def summed_log_probability(model, rendered):
    """By a plain forward pass over one conversation."""
    logits_TV = model.logits(model(torch.tensor([rendered.token_ids])))[0].double()
    log_probabilities_TV = logits_TV.log_softmax(-1)
    return sum(
        log_probabilities_TV[place - 1, rendered.token_ids[place]]
        for place in range(1, len(rendered.token_ids))
        if rendered.loss_mask[place]
    )


def all_rows(rows):
    return [rows.packed.row(number) for number in range(rows.packed.rows_per_epoch())]


@pytest.fixture
def world(tmp_path):
    model, pairs = tiny_model(), some_pairs()
    rows = PairRows(pairs, LENGTH, PAD, seed=3, device=CPU)
    context = stage_context(tmp_path)
    return model, pairs, rows, context


@given(NUMBERS, NUMBERS, st.floats(0.01, 1))
def test_the_loss_is_ln_2_where_policy_and_reference_agree(chosen, rejected, beta):
    w, lose = torch.tensor([chosen]), torch.tensor([rejected])
    assert float(dpo_loss(w, lose, w, lose, beta)) == pytest.approx(math.log(2), abs=1e-6)


@given(NUMBERS, NUMBERS, NUMBERS, NUMBERS, st.floats(0.01, 2))
def test_the_loss_and_its_gradient_are_those_of_the_formula(chosen, rejected, ref_w, ref_l, beta):
    w, lose = (torch.tensor([v], dtype=torch.float64, requires_grad=True) for v in (chosen, rejected))
    loss = dpo_loss(w, lose, torch.tensor([ref_w]).double(), torch.tensor([ref_l]).double(), beta)
    margin = beta * ((chosen - ref_w) - (rejected - ref_l))
    expected = math.log1p(math.exp(-margin)) if margin > -700 else -margin
    assert float(loss.detach()) == pytest.approx(expected, rel=1e-5, abs=1e-9)
    loss.sum().backward()
    slope = -beta / (1 + math.exp(margin)) if margin < 700 else 0.0
    assert w.grad is not None
    assert lose.grad is not None
    assert float(w.grad) == pytest.approx(slope, rel=1e-5, abs=1e-9)
    assert float(lose.grad) == -float(w.grad)


def test_the_loss_of_packed_pairs_at_the_start_is_ln_2(world):
    model, pairs, rows, context = world
    references = reference_log_probabilities(
        evaluate_alone(model), pairs, rows, context.scratch / "r.npy", context, Alone()
    )
    assert max(len(row) for row in all_rows(rows)) > 1, "several pairs share a row"
    objective = DirectPreference(beta=0.5)
    for number_of_rows in (1, 2, len(all_rows(rows))):
        batch = rows.batch(all_rows(rows)[:number_of_rows], references)
        loss = objective.loss(model, batch)
        assert loss.total.item() / objective.count(batch) == pytest.approx(math.log(2), abs=1e-6)
        assert loss.sums["margin"] == pytest.approx(0, abs=1e-4)


def test_references_are_the_summed_log_probabilities_of_the_answers(world):
    model, pairs, rows, context = world
    references = reference_log_probabilities(
        evaluate_alone(model), pairs, rows, context.scratch / "r.npy", context, Alone()
    )
    assert (references.shape, references.dtype) == ((len(pairs), 2), np.float32)
    with torch.no_grad():
        expected = [[float(summed_log_probability(model, side)) for side in pair] for pair in pairs]
    np.testing.assert_allclose(references, expected, rtol=1e-5)


def test_references_outlive_a_resume(world):
    """The file of the first attempt counts, not what the half-trained policy would give."""
    model, pairs, rows, context = world
    cache = context.scratch / "r.npy"
    first = reference_log_probabilities(evaluate_alone(model), pairs, rows, cache, context, Alone())
    with torch.no_grad():
        model.embedding.add_(0.3)
    resumed = reference_log_probabilities(evaluate_alone(model), pairs, rows, cache, context, Alone())
    np.testing.assert_array_equal(resumed, first)
    cache.unlink()
    assert (
        np.abs(
            reference_log_probabilities(evaluate_alone(model), pairs, rows, cache, context, Alone()) - first
        ).max()
        > 0.1
    )


def test_the_gradient_of_packed_pairs_is_that_of_the_formula_pair_by_pair(world):
    model, pairs, rows, context = world
    references = reference_log_probabilities(
        evaluate_alone(model), pairs, rows, context.scratch / "r.npy", context, Alone()
    )
    references += np.random.Generator(np.random.Philox(5)).normal(0, 2, references.shape).astype(np.float32)
    beta, weight = 0.3, 0.7
    objective = DirectPreference(beta, weight)
    model.zero_grad(set_to_none=True)
    batch = rows.batch(all_rows(rows), references)
    loss = objective.loss(model, batch)
    loss.total.backward()
    ours = gradients(model)

    model.zero_grad(set_to_none=True)
    total, right = torch.zeros((), dtype=torch.float64), 0
    for (chosen, rejected), (ref_w, ref_l) in zip(pairs, references.tolist(), strict=True):
        w, lose = summed_log_probability(model, chosen), summed_log_probability(model, rejected)
        margin = (w - ref_w) - (lose - ref_l)
        total = total + torch.log1p(torch.exp(-beta * margin)) - weight * w / sum(chosen.loss_mask)
        right += bool(margin > 0)
    total.backward()
    assert loss.total.item() == pytest.approx(total.item(), rel=1e-5)
    assert loss.sums["accuracy"] == right
    assert objective.count(batch) == len(pairs)
    assert_same_gradients(ours, gradients(model), relative=2e-5)


def test_any_split_of_the_rows_gives_the_same_gradient(world):
    model, pairs, rows, context = world
    references = (
        reference_log_probabilities(
            evaluate_alone(model), pairs, rows, context.scratch / "r.npy", context, Alone()
        )
        + 0.5
    )
    objective = DirectPreference(0.2, 1.0)
    found = []
    for parts in ([all_rows(rows)], [[row] for row in all_rows(rows)]):
        model.zero_grad(set_to_none=True)
        for part in parts:
            (objective.loss(model, rows.batch(part, references)).total / len(pairs)).backward()
        found.append(gradients(model))
    assert_same_gradients(*found)


def test_every_pair_is_in_every_epoch_once(world):
    _, pairs, rows, _ = world
    assert sorted(item for row in all_rows(rows) for item in row) == list(range(len(pairs)))


def test_a_step_of_preference_moves_apart_what_it_should(world):
    model, pairs, rows, context = world
    references = reference_log_probabilities(
        evaluate_alone(model), pairs, rows, context.scratch / "r.npy", context, Alone()
    )
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    batch = rows.batch(all_rows(rows), references)
    objective = DirectPreference(0.1)
    for _ in range(5):
        optimizer.zero_grad()
        (objective.loss(model, batch).total / len(pairs)).backward()
        optimizer.step()
    after = objective.loss(model, batch)
    assert after.total.item() / len(pairs) < math.log(2) - 1e-3
    assert after.sums["margin"] > 0
    assert after.sums["chosen_gain"] > after.sums["rejected_gain"]
