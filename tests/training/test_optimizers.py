import pytest
import torch
from torch import nn

from bessemer.model import ModelConfig, Transformer
from bessemer.training.optimizers import Muon, OptimizerConfig, Optimizers, muon_momentum, split_parameters
from bessemer.training.orthogonalize import orthogonalize
from model_helpers import tiny_model


def random_matrices(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def quadratic(parameters, targets):
    return sum(((p - t) ** 2).sum() for p, t in zip(parameters, targets, strict=True)) / 2


def test_muon_walks_down_a_quadratic_with_matrices_of_several_shapes():
    shapes = [(8, 8), (8, 8), (24, 8), (8, 24)]
    parameters = [nn.Parameter(torch.zeros(*shape)) for shape in shapes]
    targets = [random_matrices(*shape, seed=i) for i, shape in enumerate(shapes)]
    muon = Muon(parameters, lr=0.3, momentum=0.9)
    losses = []
    for step in range(60):
        for group in muon.param_groups:
            group["lr"] = 0.3 * (1 - step / 60)
        muon.zero_grad()
        loss = quadratic(parameters, targets)
        loss.backward()
        muon.step()
        losses.append(loss.item())
    assert losses[1] < losses[0]
    assert losses[-1] < 0.02 * losses[0]


def test_muons_first_step_is_the_orthogonal_gradient_scaled_for_the_shape():
    for rows, columns in ((16, 16), (32, 8), (8, 32)):
        gradient = random_matrices(rows, columns)
        parameter = nn.Parameter(torch.zeros(rows, columns))
        parameter.grad = gradient.clone()
        Muon([parameter], lr=0.5, momentum=0.95).step()
        expected = -0.5 * max(1.0, rows / columns) ** 0.5 * orthogonalize(gradient.unsqueeze(0))[0]
        torch.testing.assert_close(parameter.detach(), expected, atol=0.02, rtol=0)


def test_muon_orthogonalizes_the_nesterov_momentum_of_its_gradients():
    parameter, momentum = nn.Parameter(torch.zeros(8, 8)), torch.zeros(8, 8)
    muon = Muon([parameter], lr=1.0, momentum=0.8)
    for seed in range(4):
        gradient, before = random_matrices(8, 8, seed=seed), parameter.detach().clone()
        parameter.grad = gradient.clone()
        muon.step()
        momentum = 0.8 * momentum + 0.2 * gradient
        expected = orthogonalize((0.2 * gradient + 0.8 * momentum).unsqueeze(0))[0]
        torch.testing.assert_close(before - parameter.detach(), expected, atol=0.02, rtol=0)


def test_muons_decay_is_decoupled():
    parameter = nn.Parameter(torch.ones(4, 4))
    parameter.grad = torch.zeros(4, 4)
    Muon([parameter], lr=0.5, weight_decay=0.1).step()
    torch.testing.assert_close(parameter.detach(), torch.full((4, 4), 0.95))


@pytest.mark.parametrize("kind", ["muon", "adamw"])
@pytest.mark.parametrize("tied", [True, False])
def test_every_parameter_is_in_exactly_one_group(kind, tied):
    model = tiny_model(tied=tied)
    optimizers = Optimizers(model, OptimizerConfig(kind=kind, weight_decay=0.1))
    grouped = [id(p) for o in optimizers.all for group in o.param_groups for p in group["params"]]
    assert sorted(grouped) == sorted(id(p) for p in model.parameters())
    for optimizer in optimizers.all:
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                assert (group["weight_decay"] > 0) == (parameter.ndim == 2)


def test_biases_layer_norms_and_learnt_positions_go_to_adamw_without_decay():
    shape = ModelConfig(
        family="gpt2", vocab_size=61, hidden_size=32, num_hidden_layers=1, num_attention_heads=2,
        tie_word_embeddings=False, max_position_embeddings=16,
    )  # fmt: skip
    model = Transformer(shape).initialize(0)
    names = {id(p): name for name, p in model.named_parameters()}
    adamw, muon = Optimizers(model, OptimizerConfig(weight_decay=0.1)).all
    decay = {names[id(p)]: group["weight_decay"] for group in adamw.param_groups for p in group["params"]}
    assert {name for name, share in decay.items() if share} == {"embedding", "head"}
    assert {"positions", "final_norm_bias", "blocks.0.qkv_bias", "blocks.0.attention_norm"} <= decay.keys()
    matrices = [names[id(p)].rpartition(".")[2] for p in muon.param_groups[0]["params"]]
    assert sorted(matrices) == ["attention_out", "down", "qkv", "up"]


def test_muon_gets_the_matrices_of_the_blocks_and_no_lookup_table():
    model = tiny_model(tied=False)
    matrices, others = split_parameters(model, "muon")
    names = {id(p): name for name, p in model.named_parameters()}
    assert {names[id(p)].rpartition(".")[2] for p in matrices} == {"qkv", "attention_out", "gate_up", "down"}
    assert {"embedding", "head", "final_norm"} <= {names[id(p)] for p in others}
    assert split_parameters(model, "adamw")[0] == []


def test_the_schedule_scales_every_peak_rate_and_does_not_add_up():
    config = OptimizerConfig(learning_rate=0.004, muon_learning_rate=0.1)
    optimizers = Optimizers(tiny_model(), config)
    for factor in (0.5, 0.25, 1.0):
        optimizers.set_learning_rate_factor(factor)
        rates = [group["lr"] for optimizer in optimizers.all for group in optimizer.param_groups]
        assert rates == pytest.approx([0.004 * factor, 0.004 * factor, 0.1 * factor])


@pytest.mark.parametrize("kind", ["muon", "adamw"])
def test_an_untied_embedding_may_have_a_rate_of_its_own_and_a_tied_one_keeps_the_heads(kind):
    for tied, expected in ((False, 0.2), (True, 0.004)):
        config = OptimizerConfig(
            kind=kind, learning_rate=0.004, embedding_learning_rate=0.2, base_width=16, weight_decay=0.1
        )
        model = tiny_model(tied=tied)
        optimizers, names = Optimizers(model, config), {id(p): n for n, p in model.named_parameters()}
        optimizers.set_learning_rate_factor(0.5)
        groups = optimizers.all[0].param_groups
        rates = {names[id(p)]: group["lr"] for group in groups for p in group["params"]}
        assert rates.pop("embedding") == pytest.approx(0.5 * expected)
        assert max(rates.values()) == pytest.approx(0.002)
        assert {group["weight_decay"] for group in groups if group["lr"] == 0.5 * expected} >= {0.1}
        assert optimizers.learning_rates()["adamw"] == pytest.approx(0.002)


def test_the_embeddings_rate_moves_the_rows_of_the_batchs_tokens_that_far():
    model = tiny_model(tied=False)
    before = model.embedding.detach().clone()
    optimizers = Optimizers(model, OptimizerConfig(learning_rate=1e-3, embedding_learning_rate=0.1))
    model(torch.tensor([[3, 5, 7]]))[..., 0].sum().backward()
    optimizers.step()
    moved = (model.embedding.detach() - before).abs().amax(1)
    assert moved.nonzero().flatten().tolist() == [3, 5, 7]
    torch.testing.assert_close(moved[[3, 5, 7]], torch.full((3,), 0.1), rtol=1e-3, atol=0)


def test_muons_momentum_rises_evenly_over_the_steps_of_its_warmup():
    config = OptimizerConfig(muon_momentum=0.95, muon_momentum_warmup=4)
    optimizers, found = Optimizers(tiny_model(), config), []
    for step in range(6):
        optimizers.set_momentum(step)
        found.append(optimizers.all[1].param_groups[0]["momentum"])
    assert found == pytest.approx([0.85, 0.875, 0.9, 0.925, 0.95, 0.95])
    assert muon_momentum(OptimizerConfig(), 0) == 0.95
    low = OptimizerConfig(muon_momentum=0.8, muon_momentum_warmup=4)
    assert muon_momentum(low, 0) == muon_momentum(low, 9) == 0.8, "a warmup never begins above its end"


def test_adamw_steps_as_torchs_unfused_reference_does():
    model, other = tiny_model(), tiny_model()
    config = OptimizerConfig(kind="adamw", learning_rate=0.01, weight_decay=0.1, betas=(0.8, 0.9))
    ours = Optimizers(model, config)
    decayed = [p for p in other.parameters() if p.ndim == 2]
    plain = [p for p in other.parameters() if p.ndim < 2]
    groups = [{"params": decayed, "weight_decay": 0.1}, {"params": plain, "weight_decay": 0.0}]
    theirs = torch.optim.AdamW(groups, lr=0.01, betas=(0.8, 0.9), foreach=False)
    for step in range(3):
        for mine, reference in zip(model.parameters(), other.parameters(), strict=True):
            mine.grad = random_matrices(*mine.shape, seed=step)
            reference.grad = mine.grad.clone()
        ours.step()
        theirs.step()
    for mine, reference in zip(model.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(mine, reference, rtol=1e-5, atol=1e-6)
