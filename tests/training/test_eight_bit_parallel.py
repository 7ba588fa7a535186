"""Optimizer state in 8 bits where processes hold parts of a model: it follows that of one process, and a
checkpoint goes on to the bit in the same layout, in others up to the rounding of 8 bits."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from parallel_cases import with_torch_operations
from parallel_helpers import run_ranks
from test_data_parallel import LENGTH, rows, whole_value
from test_parallel_loop import model_of
from torch import Tensor
from training_helpers import Reports, plan

from bessemer.training.checkpoint import Checkpoints
from bessemer.training.loop import fit
from bessemer.training.optimizer_state import widened
from bessemer.training.optimizers import OptimizerConfig, Optimizers
from bessemer.training.parallel.layout import ParallelConfig, build_layout
from bessemer.training.parallel.matrices import local
from bessemer.training.parallel.ranks import Alone, Ranks
from bessemer.training.parallel.together import Together
from bessemer.training.quantized import Quantized, dequantize, dynamic_map

KIND, STEPS = "experts", 4
TWO = {
    "ZeRO-3": ParallelConfig(shard=2),
    "tensor": ParallelConfig(tensor=2),
    "expert": ParallelConfig(data=2, expert=2),
    "pipeline": ParallelConfig(pipeline=2),
}
FOUR = {
    "ZeRO-3 and tensor": ParallelConfig(shard=2, tensor=2),
    "ZeRO-3 and expert": ParallelConfig(shard=2, data=2, expert=2),
    "HSDP": ParallelConfig(shard=2, data=2),
}
HALF_GAP = float((dynamic_map(is_signed=True).diff()).max()) / 2
"""Of the largest number of a block: by so much rounding changes a number at most."""


def optimizer_config(kind: str, bits: int = 8) -> OptimizerConfig:
    return OptimizerConfig(
        kind=kind, state_bits=bits, learning_rate=1e-3, muon_learning_rate=0.01, weight_decay=0.1
    )


def run(ranks: Ranks, folder: Path, optimizer: OptimizerConfig, stop_after: int = STEPS):
    """Losses, and the weights whole, of a run that goes on where the last one ended; checkpoints are after
    every second step."""
    trained, reports = ranks.prepare(model_of(KIND), optimizer, LENGTH), Reports()
    the_plan = replace(
        plan(STEPS, lambda step: rows(step, ranks), optimizer=optimizer, checkpoint_every=2),
        should_stop=lambda: len(reports.all) == stop_after,
    )
    fit(trained, the_plan, Checkpoints(folder, ranks=ranks), reports, ranks)
    weights = {name: whole_value(ranks, name, p.detach()) for name, p in trained.named_parameters()}
    return [report.loss for report in reports.all], weights


def state_of(ranks: Ranks, folder: Path, optimizer: OptimizerConfig) -> dict[str, Tensor]:
    """The newest checkpoint's state, as an optimizer that has loaded it sees it; whole."""
    trained = ranks.prepare(model_of(KIND), optimizer, LENGTH)
    optimizers = Optimizers(trained, optimizer, ranks.joined(trained))
    assert Checkpoints(folder, ranks=ranks).load_newest(trained, optimizers) > 0
    found = {}
    for of_kind in optimizers.state().values():
        for name, quantities in of_kind.items():
            for quantity, value in quantities.items():
                if not isinstance(value, Quantized):
                    continue
                wide = widened(value)
                local(wide).copy_(dequantize(local(value.codes), value.scales, is_signed=value.is_signed))
                found[f"{name}.{quantity}"] = whole_value(ranks, name, wide)
    return found


@with_torch_operations
def in_layouts(rank: int, world_size: int, layouts, folder: Path, kind: str):
    """Of each layout: an undisturbed run; one that went on after two of its steps; the state between."""
    found, optimizer = {}, optimizer_config(kind)
    for name, config in layouts.items():

        def ranks(config=config) -> Together:
            return Together(build_layout(config, world_size))

        whole = run(ranks(), folder / name / "whole", optimizer)
        run(ranks(), folder / name / "cut", optimizer, 3)
        state = state_of(ranks(), folder / name / "cut", optimizer)
        resumed = run(ranks(), folder / name / "cut", optimizer)
        found[name] = whole, resumed, state
    return found


def merged(found: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    return {name: value for of_rank in found for name, value in of_rank.items()}


@pytest.mark.parametrize(
    ("world_size", "layouts", "kind"),
    [
        (2, {name: TWO[name] for name in ("ZeRO-3", "tensor")}, "muon"),
        pytest.param(2, {name: TWO[name] for name in ("expert", "pipeline")}, "muon", marks=pytest.mark.slow),
        pytest.param(2, TWO, "adamw", marks=pytest.mark.slow),
        pytest.param(4, FOUR, "muon", marks=pytest.mark.slow),
    ],
    ids=["two", "two more", "two, adamw", "four"],
)
def test_parts_of_a_model_have_state_in_8_bits(tmp_path, world_size, layouts, kind):
    found = run_ranks(world_size, in_layouts, layouts, tmp_path, kind)
    alone = with_torch_operations(run)(Alone(), tmp_path / "one", optimizer_config(kind, 32))
    start = {name: p.detach() for name, p in model_of(KIND).named_parameters()}
    for name in layouts:
        assert found[0][name][0][0] == pytest.approx(alone[0], rel=1e-3), name
        weights = merged([of_rank[name][0][1] for of_rank in found])
        resumed = merged([of_rank[name][1][1] for of_rank in found])
        for key, value in alone[1].items():
            assert torch.equal(weights[key], resumed[key]), f"{name}: {key} of a run that went on"
            moved = float((value - start[key]).norm())
            assert float((weights[key] - value).norm()) < 0.15 * moved, f"{name}: {key}"
        # Another layout reads it, and rounds it again in blocks of its own.
        state = merged([of_rank[name][2] for of_rank in found])
        folder = tmp_path / name / "cut"
        elsewhere = with_torch_operations(state_of)(Alone(), folder, optimizer_config(kind))
        assert state.keys() == elsewhere.keys()
        assert len(state) > 10
        for key, value in elsewhere.items():
            largest = float(state[key].abs().max())
            assert float((value - state[key]).abs().max()) <= HALF_GAP * largest, f"{name}: {key}"
