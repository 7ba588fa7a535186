"""The training loop with models that are divided: the steps of one process, and checkpoints that any layout
of processes reads."""

from dataclasses import dataclass, replace

import pytest
import torch
from parallel_cases import with_torch_operations
from parallel_helpers import run_ranks
from test_data_parallel import LENGTH, SIGMOID, STANDING, Curve, assert_same_curve, curve, rows, whole_value
from torch import Tensor
from training_helpers import MUON_ROUNDING, Reports, plan

from bessemer.errors import BessemerError
from bessemer.model.config import ModelConfig
from bessemer.model.kernels import torch_operations
from bessemer.model.transformer import Transformer
from bessemer.training.checkpoint import Checkpoints
from bessemer.training.loop import fit
from bessemer.training.optimizers import OptimizerConfig, Optimizers
from bessemer.training.parallel.equivalence_step import tiny_model
from bessemer.training.parallel.layout import ParallelConfig, build_layout
from bessemer.training.parallel.ranks import Alone, Ranks
from bessemer.training.parallel.together import Together

MOVING = OptimizerConfig(
    learning_rate=1e-3,
    embedding_learning_rate=5e-3,
    muon_learning_rate=0.01,
    muon_momentum_warmup=3,
    weight_decay=0.1,
)
KINDS = {
    "tied": {},
    "untied": {"tie_word_embeddings": False},
    "experts": {"mixture": SIGMOID},
    # The balance loss is one of micro-batches, and pipelines cut rows into other ones than one process does.
    "no balance loss": {"mixture": SIGMOID.model_copy(update={"balance_loss": 0.0})},
}
TWO = {
    "tensor": ("tied", ParallelConfig(tensor=2)),
    "tensor, untied": ("untied", ParallelConfig(tensor=2)),
    "tensor, experts": ("experts", ParallelConfig(tensor=2)),
    "expert": ("experts", ParallelConfig(data=2, expert=2)),
    "pipeline": ("tied", ParallelConfig(pipeline=2)),
    "pipeline, interleaved": ("tied", ParallelConfig(pipeline=2, pipeline_schedule="interleaved")),
    "pipeline, zero bubble": ("tied", ParallelConfig(pipeline=2, pipeline_schedule="zero_bubble")),
    "pipeline, experts": ("experts", ParallelConfig(pipeline=2)),
}
FOUR = {
    "shard, tensor": ("tied", ParallelConfig(shard=2, tensor=2)),
    "data, tensor": ("tied", ParallelConfig(data=2, tensor=2)),
    "context, tensor": ("tied", ParallelConfig(context=2, tensor=2)),
    "tensor, pipeline": ("tied", ParallelConfig(tensor=2, pipeline=2)),
    "shard, pipeline": ("tied", ParallelConfig(shard=2, pipeline=2)),
    "shard, zero bubble": (
        "untied",
        ParallelConfig(shard=2, pipeline=2, pipeline_schedule="zero_bubble"),
    ),
    "shard, zero bubble, tied": (
        "tied",
        ParallelConfig(shard=2, pipeline=2, pipeline_schedule="zero_bubble"),
    ),
    "data, pipeline": ("tied", ParallelConfig(data=2, pipeline=2)),
    "context, pipeline": ("tied", ParallelConfig(context=2, pipeline=2)),
    "shard, expert": ("experts", ParallelConfig(shard=4, expert=2)),
    "expert, pipeline": ("no balance loss", ParallelConfig(data=2, expert=2, pipeline=2)),
    "expert, tensor": ("experts", ParallelConfig(data=2, expert=2, tensor=2)),
}


NUM_SNAPSHOTS = 10


@dataclass
class Snapshot:
    """A step of a run."""

    loss: float
    gradients: dict[str, Tensor]
    """Whole, after clipping."""
    before: dict[str, Tensor]
    """Weights and selection biases that the step began with."""


def model_of(kind: str) -> Transformer:
    """Four layers, so that two processes can have two stages each; no weight at its starting value."""
    config = ModelConfig(
        vocab_size=61, hidden_size=32, num_hidden_layers=4, num_attention_heads=4, num_key_value_heads=2,
        intermediate_size=50, max_position_embeddings=64, qk_norm=True, **KINDS[kind],
    )  # fmt: skip
    return tiny_model(config, torch.device("cpu"))


@with_torch_operations
def curves(rank: int, world_size: int, folder, layouts, optimizer: OptimizerConfig) -> dict[str, Curve]:
    return {
        name: curve(Together(build_layout(config, world_size)), folder, optimizer, model_of(kind))
        for name, (kind, config) in layouts.items()
    }


def alone(folder, kind: str, optimizer: OptimizerConfig) -> Curve:
    with torch_operations():
        return curve(Alone(), folder, optimizer, model_of(kind))


def all_held(found: list[Curve]) -> Curve:
    """With what each rank holds; pipelines hold different layers."""
    gradients, weights = dict[str, Tensor](), dict[str, Tensor]()
    for each in found:
        assert each.losses == found[0].losses
        assert each.norms == found[0].norms
        for mine, theirs in ((gradients, each.gradients), (weights, each.weights)):
            for name, value in theirs.items():
                assert torch.equal(mine.setdefault(name, value), value), name
    return Curve(found[0].losses, found[0].norms, gradients, weights)


@pytest.mark.parametrize("max_norm", [1e9, 0.1], ids=["unclipped", "clipped"])
@pytest.mark.parametrize("layouts", [TWO, FOUR], ids=["two", "four"])
def test_divided_models_take_the_steps_of_one_process(tmp_path, layouts, max_norm):
    optimizer = STANDING.model_copy(update={"max_gradient_norm": max_norm})
    expected = {kind: alone(tmp_path, kind, optimizer) for kind in KINDS}
    world_size = 2 if layouts is TWO else 4
    found = run_ranks(world_size, curves, tmp_path, layouts, optimizer)
    for name, (kind, _) in layouts.items():
        ours = all_held([of_rank[name] for of_rank in found])
        assert ours.losses == pytest.approx(expected[kind].losses, rel=1e-6), name
        assert ours.gradients.keys() == expected[kind].gradients.keys(), name
        assert_same_curve(ours, expected[kind], 3e-6)


@pytest.mark.slow
def test_copies_of_a_pipeline_send_gradients_in_bfloat16_wrong_by_its_rounding_alone(tmp_path):
    layout = ParallelConfig(data=2, pipeline=2, gradient_dtype="bfloat16")
    expected = alone(tmp_path, "tied", STANDING)
    found = run_ranks(4, curves, tmp_path, {"narrow": ("tied", layout)}, STANDING)
    ours = all_held([of_rank["narrow"] for of_rank in found])
    assert ours.losses[0] == pytest.approx(expected.losses[0], rel=1e-6)
    errors = [float((ours.gradients[n] - g).norm() / g.norm()) for n, g in expected.gradients.items()]
    assert 1e-5 < max(errors) < 2**-6


def test_muon_and_adamw_move_parts_as_they_move_the_whole(tmp_path):
    names = ("tensor", "tensor, experts", "expert", "pipeline")
    layouts = {name: TWO[name] for name in names}
    start = {kind: dict(model_of(kind).named_parameters()) for kind in KINDS}
    expected = {kind: alone(tmp_path, kind, MOVING) for kind in ("tied", "experts")}
    found = run_ranks(2, curves, tmp_path, layouts, MOVING)
    for name, (kind, _) in layouts.items():
        ours = all_held([of_rank[name] for of_rank in found])
        for key, weight in ours.weights.items():
            moved = float((expected[kind].weights[key] - start[kind][key].detach()).norm())
            assert moved > 0, key
            assert float((weight - expected[kind].weights[key]).norm()) < MUON_ROUNDING * moved, (name, key)


@with_torch_operations
def snapshots(rank: int, world_size: int, folder, layout: ParallelConfig) -> list[Snapshot]:
    """Of a run that moves: of each step its loss, its clipped gradients, and the state before it."""
    ranks = Together(build_layout(layout, world_size))
    model = ranks.prepare(model_of("experts"), MOVING, LENGTH)
    parameters = dict(model.named_parameters())

    def state() -> dict[str, Tensor]:
        biases = {name: each.clone() for name, each in model.named_buffers() if "selection_bias" in name}
        return {name: whole_value(ranks, name, p.detach()) for name, p in parameters.items()} | biases

    found, before = list[Snapshot](), [state()]

    def note(report) -> None:
        gradients = {name: whole_value(ranks, name, p.grad) for name, p in parameters.items()}
        found.append(Snapshot(report.loss, gradients, before[-1]))
        before.append(state())

    the_plan = plan(NUM_SNAPSHOTS, lambda step: rows(step, ranks), optimizer=MOVING)
    fit(model, the_plan, Checkpoints(folder / str(rank)), Reports(note), ranks)
    return found


def test_every_step_of_experts_in_tensors_is_that_of_one_process_from_the_same_weights(tmp_path):
    """Two runs drift apart once a router's choice is turned by rounding; no step does anything else."""
    found = run_ranks(2, snapshots, tmp_path, ParallelConfig(tensor=2))[0]
    assert len(found) == NUM_SNAPSHOTS
    still = STANDING.model_copy(update={"max_gradient_norm": MOVING.max_gradient_norm})
    for step, theirs in enumerate(found):
        model, reports = model_of("experts"), Reports()
        model.load_state_dict(theirs.before, strict=False)
        parameters = dict(model.named_parameters())
        with torch_operations():
            one_step = plan(1, lambda _, step=step: rows(step, Alone()), optimizer=still)
            fit(model, one_step, Checkpoints(tmp_path / f"alone-{step}"), reports)
        assert theirs.loss == pytest.approx(reports.all[0].loss, rel=1e-6)
        pairs = [(p.grad, theirs.gradients[name]) for name, p in parameters.items() if p.grad is not None]
        assert len(pairs) == len(parameters)
        error = sum(float((mine - other).square().sum()) for mine, other in pairs)
        assert error < 1e-12 * sum(float(mine.square().sum()) for mine, _ in pairs), step


LAYOUTS = {
    "tensor, pipeline": ParallelConfig(tensor=2, pipeline=2),
    "shard, tensor": ParallelConfig(shard=2, tensor=2),
    "shard, expert": ParallelConfig(shard=2, data=2, expert=2),
    "pipeline": ParallelConfig(pipeline=2, pipeline_schedule="interleaved"),
    "tensor": ParallelConfig(tensor=2),
    "shard": ParallelConfig(shard=2),
}
EIGHT = ParallelConfig(data=2, tensor=2, pipeline=2)
STEPS = 8


def train(folder, ranks: Ranks, num_steps: int, kind: str = "experts") -> list[float]:
    """Losses of the steps that this call took, with a checkpoint after every second one."""
    trained = ranks.prepare(model_of(kind), MOVING, LENGTH)
    reports = Reports()
    the_plan = replace(
        plan(STEPS, lambda step: rows(step, ranks), optimizer=MOVING, checkpoint_every=2),
        should_stop=lambda: len(reports.all) == num_steps,
    )
    fit(trained, the_plan, Checkpoints(folder, ranks=ranks), reports, ranks)
    return [report.loss for report in reports.all]


def state_of(folder, ranks: Ranks) -> dict[str, Tensor]:
    """The newest checkpoint's weights and optimizer state, whole, of what this rank holds."""
    model = model_of("experts")
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    trained = ranks.prepare(model, MOVING, LENGTH)
    optimizers = Optimizers(trained, MOVING, ranks.joined(trained))
    assert Checkpoints(folder, ranks=ranks).load_newest(trained, optimizers) > 0
    found = {name: whole_value(ranks, name, p) for name, p in trained.named_parameters()}
    for kind, of_kind in optimizers.state().items():
        for name, quantities in of_kind.items():
            for quantity, value in quantities.items():
                is_scalar = value.ndim == 0
                found[f"{kind}.{name}.{quantity}"] = value if is_scalar else whole_value(ranks, name, value)
    return found


@with_torch_operations
def on_layout(rank: int, world_size: int, name: str, function, folder, *args):
    layout = LAYOUTS.get(name, EIGHT)
    return function(folder, Together(build_layout(layout, world_size)), *args)


@pytest.mark.parametrize("saved", ["tensor, pipeline", pytest.param("shard, expert", marks=pytest.mark.slow)])
def test_a_checkpoint_of_a_divided_model_loads_into_any_layout(tmp_path, saved):
    """Bit by bit: weights and optimizer state."""
    run_ranks(4, on_layout, saved, train, tmp_path, 3)
    with torch_operations():
        expected = state_of(tmp_path, Alone())
    assert len(expected) > 100
    for name, config in LAYOUTS.items():
        held: dict[str, Tensor] = {}
        for loaded in run_ranks(config.world_size, on_layout, name, state_of, tmp_path):
            for key, value in loaded.items():
                assert torch.equal(value, expected[key]), (name, key)
            held |= loaded
        assert held.keys() == expected.keys(), name


@pytest.mark.slow
def test_a_run_goes_on_through_layouts_with_the_losses_of_one_process(tmp_path):
    """4 → 2 → 8 → 1, of a dense model: with experts, rounding turns a router's choice sooner or later."""
    with torch_operations():
        undisturbed = train(tmp_path / "alone", Alone(), STEPS, "tied")
    folder = tmp_path / "changing"
    losses = run_ranks(4, on_layout, "tensor, pipeline", train, folder, 3, "tied")[0][:2]
    losses += run_ranks(2, on_layout, "pipeline", train, folder, 3, "tied")[0][:2]
    losses += run_ranks(8, on_layout, "eight", train, folder, 3, "tied")[0][:2]
    with torch_operations():
        losses += train(folder, Alone(), STEPS, "tied")
    assert losses == pytest.approx(undisturbed, rel=1e-4)


def refused(rank: int, world_size: int, config: ParallelConfig) -> str:
    try:
        Together(build_layout(config, world_size)).prepare(model_of("tied"), MOVING, LENGTH)
    except BessemerError as error:
        return str(error)
    return ""


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (ParallelConfig(tensor=4), "does not divide 4 attention heads and 2 key/value heads"),
        (ParallelConfig(data=4, expert=4), "this model is dense"),
    ],
    ids=lambda value: str(value)[:20],
)
def test_what_cannot_be_divided_is_refused_with_the_mend(config, message):
    for said in run_ranks(4, refused, config):
        assert message in said
