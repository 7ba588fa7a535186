"""Mixtures of experts: routing, the grouped product, balance. Parity with transformers: test_families."""

import pytest
import torch
import torch.nn.functional as F

from bessemer.model.config import MixtureConfig, ModelConfig
from bessemer.model.mixture import (
    Mixture,
    Routing,
    balance_experts,
    grouped_linear,
    linear_by_expert,
    route,
    usage,
)
from bessemer.model.transformer import Transformer
from bessemer.objectives.language_modeling import LanguageModeling
from bessemer.training.batches import Batch
from bessemer.training.optimizers import Muon, OptimizerConfig, Optimizers, orthogonalize, split_parameters

SOFTMAX = MixtureConfig(num_experts=4, experts_per_token=2, expert_size=16)
SIGMOID = MixtureConfig(
    num_experts=4, experts_per_token=2, expert_size=16, shared_size=16, scores="sigmoid", balance_rate=0.01
)


def randn(*shape, seed=0, dtype=torch.float32):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("sizes", [[3, 0, 5, 2], [0, 0, 0, 10], [1, 1, 1, 1], [0, 0, 0, 0]])
@pytest.mark.parametrize("width", [16, 7])
def test_the_grouped_product_equals_the_loop_over_experts_in_value_and_gradient(dtype, sizes, width):
    """A width of 7 has no grouped kernel: rows are not whole 16 bytes."""

    def run(product):
        x = randn(sum(sizes), width, dtype=dtype).requires_grad_()
        weight = randn(4, 24, width, seed=1).requires_grad_()
        out = product(x, weight.to(dtype), torch.tensor(sizes))
        direction = randn(*out.shape, seed=2, dtype=dtype)
        return out, *torch.autograd.grad(out, (x, weight), direction)

    tolerance = 1e-5 if dtype == torch.float32 else 3e-2
    for mine, theirs in zip(run(grouped_linear), run(linear_by_expert), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=tolerance, atol=tolerance)


def test_a_mixture_equals_its_definition_token_by_token():
    mixture = Mixture(8, SIGMOID)
    with torch.no_grad():
        for seed, tensor in enumerate(mixture.state_dict().values()):
            tensor.copy_(0.5 * randn(*tensor.shape, seed=seed))
        mixture.shared_down.copy_(randn(*mixture.shared_down.shape, seed=9))
    x_BTD = randn(2, 5, 8, seed=20)

    def swiglu(x, gate_up, down):
        gate, up = (gate_up @ x).chunk(2)
        return down @ (F.silu(gate) * up)

    def by_definition(x):
        scores = torch.sigmoid(mixture.router @ x)
        chosen = sorted(range(4), key=lambda e: -float(scores[e] + mixture.selection_bias[e]))[:2]
        total = sum(scores[e] for e in chosen)
        routed = sum(scores[e] / total * swiglu(x, mixture.gate_up[e], mixture.down[e]) for e in chosen)
        return routed + swiglu(x, mixture.shared_gate_up, mixture.shared_down)

    with torch.no_grad():
        expected = torch.stack([torch.stack([by_definition(x) for x in row]) for row in x_BTD])
        torch.testing.assert_close(mixture(x_BTD), expected, rtol=1e-5, atol=1e-6)


def test_the_selection_bias_changes_who_is_chosen_but_not_the_weight():
    x, router = randn(50, 8), randn(4, 8, seed=1)
    plain = route(x, router, torch.zeros(4), SIGMOID)
    pushed = route(x, router, torch.tensor([5.0, 0.0, 0.0, 0.0]), SIGMOID)
    assert bool((pushed.experts_NK == 0).any(1).all())
    assert not bool((plain.experts_NK == 0).any(1).all())
    same = (plain.experts_NK.sort(1).values == pushed.experts_NK.sort(1).values).all(1)
    assert 0 < int(same.sum()) < 50
    torch.testing.assert_close(plain.weights_NK[same].sort(1).values, pushed.weights_NK[same].sort(1).values)


def routing(probabilities, experts):
    return Routing(torch.tensor(probabilities), torch.ones(len(experts), 1), torch.tensor(experts))


def test_the_balancing_loss_is_one_when_balanced_and_the_number_of_experts_when_one_does_all():
    even = routing([[0.5, 0.5], [0.5, 0.5]], [[0], [1]])
    single = routing([[1.0, 0.0], [1.0, 0.0]], [[0], [0]])
    assert float(usage([even]).balance_loss()) == pytest.approx(1.0)
    assert float(usage([single]).balance_loss()) == pytest.approx(2.0)
    assert float(usage([even, single]).balance_loss()) == pytest.approx(1.5)
    assert usage([even, single]).imbalance() == pytest.approx(1.5)


def test_the_balancing_loss_is_that_of_transformers_up_to_its_count_of_choices():
    """transformers divides by tokens, not by choices: its value is `experts_per_token` times ours."""
    from transformers.models.mixtral.modeling_mixtral import load_balancing_loss_func

    x, router = randn(60, 8), randn(4, 8, seed=1)
    theirs = load_balancing_loss_func((F.linear(x, router),), 4, 2)
    ours = usage([route(x, router, None, SOFTMAX)]).balance_loss()
    assert float(ours) * 2 == pytest.approx(float(theirs), rel=1e-6)


def model_with(mixture, **options):
    config = ModelConfig(
        **{
            "vocab_size": 32,
            "hidden_size": 16,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "qk_norm": True,
            "mixture": mixture,
            **options,
        }
    )
    model = Transformer(config).initialize(0)
    with torch.no_grad():
        model.embedding.add_(0.02)  # a direction that all tokens share …
        for block in model.blocks:
            block.attention_out.copy_(0.1 * randn(16, 16, seed=3))
            block.mixture.router[0] += 0.1  # … and that makes one expert everybody's favourite
    return model.train()


def some_batch(seed=0):
    token_ids = torch.randint(32, (4, 25), generator=torch.Generator().manual_seed(seed))
    positions = torch.arange(24).expand(4, 24)
    return Batch(token_ids[:, :-1], token_ids[:, 1:], torch.zeros(4, 24, dtype=torch.int32), positions)


def imbalance(model):
    """The busiest expert over the mean, of 10 batches that are not trained on; the mean over layers."""
    routings = []
    with torch.no_grad():
        for seed in range(1000, 1010):
            model(some_batch(seed).token_ids_BT, routings=routings)
    loads = torch.stack([routing.load_X for routing in routings]).view(10, 2, 4).sum(0)
    return float((loads.amax(1) / loads.mean(1)).mean())


def test_biases_alone_bring_the_load_into_balance():
    model = model_with(SIGMOID)
    before = imbalance(model)
    for step in range(60):
        LanguageModeling().loss(model, some_batch(step))
        balance_experts(model)
    assert before > 1.5
    assert imbalance(model) < 1.35  # a step of 0.01 goes past the goal by as much
    assert model.blocks[0].mixture.load_X is None


def test_biases_move_by_the_sum_over_micro_batches_and_only_in_training():
    model, halves = model_with(SIGMOID), model_with(SIGMOID)
    batch = some_batch()
    LanguageModeling().loss(model, batch)
    for part in batch.split(2):
        LanguageModeling().loss(halves, part)
    for each in (model, halves):
        balance_experts(each)
    bias = model.blocks[1].mixture.selection_bias
    assert torch.equal(bias, halves.blocks[1].mixture.selection_bias)
    assert sorted(set(bias.abs().tolist())) in ([pytest.approx(0.01)], [0.0, pytest.approx(0.01)])
    with torch.no_grad():
        model(batch.token_ids_BT)
    model.eval()
    model(batch.token_ids_BT)
    balance_experts(model)
    assert torch.equal(bias, model.blocks[1].mixture.selection_bias)


def test_the_auxiliary_loss_brings_the_load_towards_balance():
    model = model_with(SOFTMAX.model_copy(update={"balance_loss": 1.0}))
    before = imbalance(model)
    optimizer = torch.optim.Adam(
        [parameter for name, parameter in model.named_parameters() if "router" in name], lr=1e-2
    )
    for step in range(60):
        optimizer.zero_grad()
        LanguageModeling().loss(model, some_batch(step)).total.div(96).backward()
        optimizer.step()
    assert before > 1.5
    assert imbalance(model) < 1.25


def test_the_objective_reports_the_plain_loss_and_the_load_beside():
    model, batch = model_with(SOFTMAX.model_copy(update={"balance_loss": 0.5})), some_batch()
    plain = model_with(SOFTMAX.model_copy(update={"balance_loss": 0.0}))
    loss = LanguageModeling().loss(model, batch)
    unbalanced = LanguageModeling().loss(plain, batch)
    routings = []
    with torch.no_grad():
        model(batch.token_ids_BT, batch.documents_BT, batch.positions_BT, routings=routings)
    expected = float(unbalanced.total.detach()) + 0.5 * float(usage(routings).balance_loss()) * 96
    assert float(loss.total.detach()) == pytest.approx(expected, rel=1e-5)
    assert loss.sums["next_token_loss"] == pytest.approx(float(unbalanced.total.detach()), rel=1e-6)
    assert loss.sums["expert_imbalance"] / 96 == pytest.approx(usage(routings).imbalance())


def test_muon_updates_each_expert_as_a_matrix_of_its_own():
    model = model_with(SIGMOID)
    matrices, others = split_parameters(model, "muon")
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    assert {names[id(p)].rpartition(".")[2] for p in matrices} >= {"gate_up", "down", "shared_down", "qkv"}
    assert {names[id(p)].rpartition(".")[2] for p in others} >= {"router", "embedding"}
    stack = torch.nn.Parameter(torch.zeros(3, 8, 4))
    stack.grad = randn(3, 8, 4)
    Muon([stack], lr=1.0, momentum=0.0).step()
    expected = -torch.cat([orthogonalize(g[None]) for g in stack.grad]) * 2**0.5
    torch.testing.assert_close(stack.detach(), expected, rtol=0.02, atol=0.02)


def test_a_model_with_experts_trains():
    model = model_with(SIGMOID)
    optimizers = Optimizers(model, OptimizerConfig())
    batch, losses = some_batch(), []
    for _ in range(30):
        optimizers.zero_grad()
        loss = LanguageModeling().loss(model, batch)
        loss.total.div(96).backward()
        optimizers.step()
        balance_experts(model)
        losses.append(loss.sums["next_token_loss"] / 96)
    assert losses[-1] < 0.8 * losses[0]
