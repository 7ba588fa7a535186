"""One step and one curve, whatever the processes: single = DDP = ZeRO-1/2/3 = HSDP, in loss and gradients."""

from dataclasses import dataclass

import pytest
import torch
from parallel_helpers import Collectives, run_ranks
from torch import Tensor
from training_helpers import MUON_ROUNDING, Reports, plan

from bessemer.model.config import MixtureConfig, ModelConfig
from bessemer.model.transformer import Transformer
from bessemer.objectives.language_modeling import LanguageModeling
from bessemer.training.batches import Batch, row_of_conversations, stack_rows
from bessemer.training.checkpoint import Checkpoints
from bessemer.training.compiled import plain
from bessemer.training.loop import fit
from bessemer.training.optimizers import OptimizerConfig, Optimizers
from bessemer.training.parallel.joined import whole_tensor
from bessemer.training.parallel.layout import ParallelConfig, build_layout
from bessemer.training.parallel.matrices import local
from bessemer.training.parallel.ranks import Alone, Ranks
from bessemer.training.parallel.together import Together
from bessemer.training.recompute import RecomputeConfig, recompute
from model_helpers import assert_same_gradients, tiny_model

NUM_ROWS, LENGTH, STEPS, RATE = 5, 24, 3, 0.05
STANDING = OptimizerConfig(kind="adamw", learning_rate=1e-30, max_gradient_norm=1e9)
"""Moves nothing: the tests take plain steps of SGD, which hide no scale."""
SIGMOID = MixtureConfig(
    num_experts=4,
    experts_per_token=2,
    expert_size=16,
    shared_size=16,
    scores="sigmoid",
    balance_rate=0.05,
    balance_loss=0.1,
)
TWO = {
    "DDP": ParallelConfig(data=2),
    "ZeRO-1": ParallelConfig(shard=2, zero=1),
    "ZeRO-2": ParallelConfig(shard=2, zero=2),
    "ZeRO-3": ParallelConfig(shard=2, zero=3),
    "ZeRO-3, offloaded": ParallelConfig(shard=2, zero=3, offload="cpu"),
}
FOUR = {
    "DDP": ParallelConfig(data=4),
    "HSDP": ParallelConfig(data=2, shard=2),
    "HSDP, ZeRO-1": ParallelConfig(data=2, shard=2, zero=1),
    "ZeRO-3": ParallelConfig(shard=4),
}
PARTS_OF_ROWS = {
    "ZeRO-3": ParallelConfig(shard=2, context=2),
    "DDP": ParallelConfig(data=2, context=2),
    "alone": ParallelConfig(context=4),
}


@dataclass
class Curve:
    """What a run of a few steps showed."""

    losses: list[float]
    norms: list[float]
    gradients: dict[str, Tensor]
    """Of the last step, after clipping."""
    weights: dict[str, Tensor]


def rows(step: int, ranks: Ranks) -> list[Batch]:
    """This rank's packed rows, a micro-batch each: of unlike numbers of documents and targets."""
    generator = torch.Generator().manual_seed(step)
    made = []
    for _ in range(NUM_ROWS):
        lengths = torch.randint(3, 12, (2,), generator=generator).tolist()
        ids = [torch.randint(60, (n,), generator=generator).tolist() for n in lengths]
        masks = [[False, *(torch.rand(len(each) - 1, generator=generator) < 0.7).tolist()] for each in ids]
        made.append(row_of_conversations(list(zip(ids, masks, strict=True)), LENGTH, 60))
    numbers = ranks.share.rows(range(NUM_ROWS))
    return stack_rows([made[number] for number in numbers]).split(ranks.share.fitting(NUM_ROWS, NUM_ROWS))


def whole_value(ranks: Ranks, name: str, value: Tensor) -> Tensor:
    """All of what this rank holds a part of."""
    joined = whole_tensor(value)
    return (joined if isinstance(ranks, Alone) else ranks.divided.whole(name, joined)).clone()


def curve(ranks: Ranks, folder, optimizer: OptimizerConfig = STANDING, model=None) -> Curve:
    model = tiny_model() if model is None else model
    trained = ranks.prepare(model, optimizer, LENGTH)
    parameters = dict(trained.named_parameters())
    kept: dict[str, Tensor] = {}

    @torch.no_grad()
    def plain_step(report) -> None:
        moving = {name: p for name, p in parameters.items() if p.grad is not None}
        kept.update((name, whole_value(ranks, name, p.grad)) for name, p in moving.items())
        if optimizer.learning_rate < 1e-20:
            for parameter in moving.values():
                local(parameter).sub_(local(parameter.grad), alpha=RATE)

    reports = Reports(plain_step)
    the_plan = plan(STEPS, lambda step: rows(step, ranks), optimizer=optimizer)
    fit(trained, the_plan, Checkpoints(folder), reports, ranks)
    return Curve(
        [report.loss for report in reports.all],
        [report.gradient_norm for report in reports.all],
        kept,
        {name: whole_value(ranks, name, p) for name, p in parameters.items()},
    )


def curves(rank: int, world_size: int, folder, layouts, optimizer: OptimizerConfig) -> dict[str, Curve]:
    return {
        name: curve(Together(build_layout(config, world_size)), folder, optimizer)
        for name, config in layouts.items()
    }


def assert_same_curve(ours: Curve, theirs: Curve, relative: float) -> None:
    assert ours.losses == pytest.approx(theirs.losses, rel=1e-6)
    assert ours.norms == pytest.approx(theirs.norms, rel=relative)
    assert_same_gradients(theirs.gradients, ours.gradients, relative)


@pytest.mark.parametrize("max_norm", [1e9, 0.1], ids=["unclipped", "clipped"])
def test_two_processes_take_the_steps_of_one(tmp_path, max_norm):
    optimizer = STANDING.model_copy(update={"max_gradient_norm": max_norm})
    alone = curve(Alone(), tmp_path, optimizer)
    if max_norm < 1:
        total = sum(float(g.square().sum()) for g in alone.gradients.values())
        assert total**0.5 == pytest.approx(max_norm, rel=1e-4), "clipping is at work"
    for found in run_ranks(2, curves, tmp_path, TWO, optimizer):
        for name in TWO:
            assert_same_curve(found[name], alone, 3e-6)


def test_rows_in_parts_take_the_steps_of_whole_rows(tmp_path):
    alone = curve(Alone(), tmp_path)
    for ours in run_ranks(4, curves, tmp_path, PARTS_OF_ROWS, STANDING):
        for found in ours.values():
            assert_same_curve(found, alone, 3e-6)


def test_four_processes_and_copies_of_shards_do_too(tmp_path):
    alone = curve(Alone(), tmp_path)
    for found in run_ranks(4, curves, tmp_path, FOUR, STANDING):
        for name in FOUR:
            assert_same_curve(found[name], alone, 3e-6)


def test_muon_and_adamw_on_shards_give_the_weights_that_they_give_on_one_process(tmp_path):
    optimizer = OptimizerConfig(learning_rate=1e-3, muon_learning_rate=0.01, weight_decay=0.1)
    alone = curve(Alone(), tmp_path, optimizer)
    start = {name: p.detach() for name, p in tiny_model().named_parameters()}
    layouts = {name: TWO[name] for name in ("DDP", "ZeRO-3")}
    for found in run_ranks(2, curves, tmp_path, layouts, optimizer):
        for name in layouts:
            for key, weight in found[name].weights.items():
                moved = float((alone.weights[key] - start[key]).norm())
                assert moved > 0
                assert float((weight - alone.weights[key]).norm()) < MUON_ROUNDING * moved, (name, key)


def counted(rank: int, world_size: int, layouts) -> dict[str, dict[str, int]]:
    """Collectives of the passes of one step with two micro-batches, by kind."""
    found = {}
    for name, config in layouts.items():
        ranks, model = Together(build_layout(config, world_size)), tiny_model()
        ranks.prepare(model, STANDING)
        batches = rows(0, ranks)[:2]
        with Collectives() as sent:
            ranks.gradients(LanguageModeling(), batches, len(batches), 1.0)
        found[name] = dict(sent.counts)
    return found


def test_a_step_sends_what_its_way_must_and_no_more(tmp_path):
    """The model has two blocks and the root: three groups of parameters."""
    layouts = {name: config for name, config in TWO.items() if config.offload == "none"}
    for found in run_ranks(2, counted, layouts):
        gathers = {name: total(counts, "gather") for name, counts in found.items()}
        scatters = {name: total(counts, "scatter") for name, counts in found.items()}
        reduces = {name: total(counts, "reduce") - scatters[name] for name, counts in found.items()}
        assert gathers == {"DDP": 0, "ZeRO-1": 3, "ZeRO-2": 3, "ZeRO-3": 2 * (1 + 2 + 2)}
        assert scatters == {"DDP": 0, "ZeRO-1": 3, "ZeRO-2": 6, "ZeRO-3": 6}
        assert reduces == {"DDP": 1, "ZeRO-1": 0, "ZeRO-2": 0, "ZeRO-3": 0}


def total(counts: dict[str, int], kind: str) -> int:
    return sum(count for name, count in counts.items() if kind in name)


def mixture_model() -> Transformer:
    """Sigmoid scores: the biases that choose experts move with the loads of all tokens."""
    config = ModelConfig(
        vocab_size=61, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64,
        max_position_embeddings=64, qk_norm=True, mixture=SIGMOID,
    )  # fmt: skip
    model = Transformer(config).initialize(0)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.15 * torch.randn(parameter.shape, generator=generator))
    return model


def biases(model: Transformer) -> Tensor:
    return torch.stack([block.mixture.selection_bias for block in model.blocks])


def mixture_curves(rank: int, world_size: int, folder, layouts) -> dict[str, tuple[Curve, Tensor]]:
    found = {}
    for name, config in layouts.items():
        model = mixture_model()
        found[name] = (curve(Together(build_layout(config, world_size)), folder, model=model), biases(model))
    return found


def test_experts_are_balanced_by_the_tokens_of_all_processes(tmp_path):
    """Two ranks have two rows and three: the one with fewer keeps pace, and counts no token twice."""
    model = mixture_model()
    alone = curve(Alone(), tmp_path, model=model)
    assert biases(model).abs().max() > 0.05
    layouts = {name: TWO[name] for name in ("DDP", "ZeRO-1", "ZeRO-3")}
    for found in run_ranks(2, mixture_curves, tmp_path, layouts):
        for together, moved in found.values():
            assert_same_curve(together, alone, 2e-6)
            assert torch.equal(moved, biases(model))


def recomputed_curve(rank: int, world_size: int, folder) -> Curve:
    """With a frozen table, and blocks that are computed again in the backward pass."""
    model = tiny_model()
    model.embedding.requires_grad_(False)
    model.around_block = recompute(RecomputeConfig(kind="full"), plain)
    ranks = (
        Alone() if world_size == 1 else Together(build_layout(ParallelConfig(shard=world_size), world_size))
    )
    return curve(ranks, folder, model=model)


def test_frozen_parameters_and_recomputed_blocks_are_sharded_too(tmp_path):
    alone = recomputed_curve(0, 1, tmp_path)
    assert "embedding" not in alone.gradients
    for together in run_ranks(2, recomputed_curve, tmp_path):
        assert_same_curve(together, alone, 3e-6)
        assert torch.equal(together.weights["embedding"], tiny_model().embedding)


def held(rank: int, world_size: int, layouts) -> dict[str, dict[str, int]]:
    """Numbers that this rank holds after a step of two micro-batches."""
    found = {}
    for name, config in layouts.items():
        ranks, model = Together(build_layout(config, world_size)), tiny_model()
        ranks.prepare(model, STANDING)
        optimizers, parameters = Optimizers(model, STANDING), list(model.parameters())
        ranks.gradients(LanguageModeling(), rows(0, ranks)[:2], 2, 1.0)
        optimizers.step()
        states = [state for optimizer in optimizers.all for state in optimizer.state.values()]
        found[name] = {
            "weights": sum(local(p).numel() for p in parameters),
            "gradients": sum(local(p.grad).numel() for p in parameters),
            "state": sum(local(s["exp_avg"]).numel() + local(s["exp_avg_sq"]).numel() for s in states),
        }
    return found


def test_a_rank_keeps_its_share_of_weights_gradients_and_state():
    """P / R of each, and two moments of AdamW: within 5 %, since odd rows do not divide evenly."""
    num_parameters = sum(p.numel() for p in tiny_model().parameters())
    layouts = {name: TWO[name] for name in ("DDP", "ZeRO-1", "ZeRO-3")}
    for found in run_ranks(2, held, layouts):
        for name, kept in found.items():
            share = num_parameters / (1 if name == "DDP" else 2)
            wanted = {"weights": share, "gradients": share, "state": 2 * share}
            assert kept == pytest.approx(wanted, rel=0.05), name


def bfloat16_curves(rank: int, world_size: int, folder) -> list[Curve]:
    configs = [ParallelConfig(data=2), ParallelConfig(shard=2)]
    found = []
    for config in configs:
        config = config.model_copy(update={"gradient_dtype": "bfloat16"})
        found.append(curve(Together(build_layout(config, world_size)), folder))
    return found


def test_gradients_sent_in_bfloat16_are_wrong_by_its_rounding_alone(tmp_path):
    alone = curve(Alone(), tmp_path)
    for found in run_ranks(2, bfloat16_curves, tmp_path)[0]:
        assert found.losses[0] == pytest.approx(alone.losses[0], rel=1e-6)
        errors = [float((found.gradients[name] - g).norm() / g.norm()) for name, g in alone.gradients.items()]
        assert 1e-5 < max(errors) < 2**-6
