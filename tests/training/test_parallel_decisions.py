"""What a run decides on its way is decided alike by all processes, and as one process decides it: a step that
is skipped, a rewind, a batch that grows, an average, an early end, rows of which nothing is learnt."""

import json
import math
import os
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import torch
from parallel_cases import with_torch_operations
from parallel_helpers import run_ranks
from test_data_parallel import LENGTH, STANDING, whole_value
from test_parallel_loop import model_of
from torch import Tensor
from training_helpers import Reports, plan

from bessemer.model.transformer import Transformer
from bessemer.model.weights import SavedWeights
from bessemer.objectives.base import LossSum
from bessemer.objectives.language_modeling import LanguageModeling
from bessemer.training.average import AverageConfig, WeightAverage
from bessemer.training.batch_sizes import BatchSizes
from bessemer.training.batches import IGNORE, Batch, Row, rng, row_of_pieces, stack_rows
from bessemer.training.checkpoint import Checkpoints
from bessemer.training.config import TrainingConfig
from bessemer.training.early_stop import EarlyStop, EarlyStopConfig
from bessemer.training.guard import GuardConfig
from bessemer.training.loop import fit
from bessemer.training.optimizers import OptimizerConfig
from bessemer.training.parallel.layout import ParallelConfig, build_layout
from bessemer.training.parallel.matrices import local
from bessemer.training.parallel.ranks import Alone, Ranks
from bessemer.training.parallel.together import Together

TWO = {
    "ZeRO-3": ParallelConfig(shard=2),
    "pipeline": ParallelConfig(pipeline=2),
}
MORE_OF_TWO = {
    "context": ParallelConfig(context=2),
    "tensor": ParallelConfig(tensor=2),
    "DDP": ParallelConfig(data=2),
    "ZeRO-1": ParallelConfig(shard=2, zero=1),
    "interleaved": ParallelConfig(pipeline=2, pipeline_schedule="interleaved"),
    "zero bubble": ParallelConfig(pipeline=2, pipeline_schedule="zero_bubble"),
}
EXPERTS = {"expert": ParallelConfig(data=2, expert=2)}
FOUR = {
    "ZeRO-3 and tensor": ParallelConfig(shard=2, tensor=2),
    "DDP and pipeline": ParallelConfig(data=2, pipeline=2),
    "ZeRO-3 and zero bubble": ParallelConfig(shard=2, pipeline=2, pipeline_schedule="zero_bubble"),
    "tensor and pipeline": ParallelConfig(tensor=2, pipeline=2),
}
ADAMW = OptimizerConfig(kind="adamw", learning_rate=1e-3)
ROWS, PARTS = 5, 4
BAD = 59
"""A token that only rows have from which nothing sound can be learnt."""


@dataclass
class Found:
    """What one rank has seen of a run."""

    losses: list[float]
    norms: list[float]
    numbers: list[int]
    """Of the batches, one for each step that was reported."""
    reasons: list[str]
    """Why steps were skipped."""
    tensors: dict[str, Tensor]
    """Whole: what the scenario is about, of what is held here."""
    notes: dict[str, Any] = field(default_factory=dict)


class Spoilt:
    """Language modelling whose loss is not a number, or a thousand times too high, where BAD is read."""

    def __init__(self, factor: float) -> None:
        self._factor, self._inner = factor, LanguageModeling()

    def count(self, batch: Batch) -> int:
        return self._inner.count(batch)

    def loss(self, model: Transformer, batch: Batch) -> LossSum:
        loss = self._inner.loss(model, batch)
        is_bad = bool((batch.token_ids_BT == BAD).any())
        return LossSum(loss.total * self._factor, loss.sums) if is_bad else loss


def row(number: int) -> Row:
    """Packed documents of 1 to 13 tokens; a tenth of the targets is not learnt."""
    draw = rng(7, number)
    pieces = [draw.integers(0, BAD, int(length)) for length in draw.integers(1, 14, LENGTH)]
    whole = row_of_pieces(pieces)
    made = Row(*(values[:LENGTH].copy() for values in vars(whole).values()))
    made.targets[draw.random(LENGTH) < 0.1] = IGNORE
    return made


def micro_batches(ranks: Ranks, numbers: range, change: Callable[[int, Row], None] = lambda n, row: None):
    """This rank's rows; `change` may spoil one, told its number."""
    rows = []
    for number in ranks.share.rows(numbers):
        made = row(number)
        change(number, made)
        rows.append(made)
    return stack_rows(rows).split(ranks.share.fitting(PARTS, len(numbers)))


def five(step: int) -> range:
    return range(step * ROWS, (step + 1) * ROWS)


def skipped_in_float16(ranks: Ranks, folder: Path, is_last_rank: bool, kind: str) -> Found:
    """A gradient of one rank overflows in the third step."""
    model = model_of(kind)
    model.compute_dtype = torch.float16
    trained = ranks.prepare(model, ADAMW, LENGTH)
    inner, calls = ranks.gradients, count()

    def gradients(*args: Any) -> Any:
        found = inner(*args)
        if next(calls) == 2 and is_last_rank:
            parameter = next(p for name, p in trained.named_parameters() if name.startswith("blocks."))
            assert parameter.grad is not None
            local(parameter.grad).view(-1)[0] = math.inf
        return found

    ranks.gradients = gradients  # type: ignore[method-assign]
    reports = Reports()
    the_plan = plan(5, lambda step: micro_batches(ranks, five(step)), optimizer=ADAMW)
    fit(trained, the_plan, Checkpoints(folder / "checkpoints", ranks=ranks), reports, ranks)
    return found_of(ranks, trained, reports)


def rewound(ranks: Ranks, folder: Path, is_last_rank: bool, kind: str) -> Found:
    """The last rows of the batches 4 and 5 give no number; checkpoints are after every third step."""
    return spoilt_run(ranks, folder, kind, (4, 5), math.nan, 8)


def rewound_for_spikes(ranks: Ranks, folder: Path, is_last_rank: bool, kind: str) -> Found:
    return spoilt_run(ranks, folder, kind, (28, 29), 1e3, 32)


def spoilt_run(
    ranks: Ranks, folder: Path, kind: str, bad: tuple[int, ...], factor: float, num_steps: int
) -> Found:
    def change(number: int, made: Row) -> None:
        if number in [step * ROWS + ROWS - 1 for step in bad]:
            made.token_ids[3] = BAD

    incidents = folder / ("incidents.jsonl" if ranks.is_main else f"of-{os.getpid()}.jsonl")
    trained, reports, said = ranks.prepare(model_of(kind), ADAMW, LENGTH), Reports(), list[str]()
    the_plan = replace(
        plan(
            num_steps,
            lambda step: micro_batches(ranks, five(step), change),
            optimizer=ADAMW,
            checkpoint_every=3,
            guard=GuardConfig(spikes="rewind", patience=2),
        ),
        objective=Spoilt(factor),
        documents=lambda step: [f"row {number}" for number in five(step)],
        incidents=incidents,
        say=said.append,
    )
    result = fit(trained, the_plan, Checkpoints(folder / "checkpoints", ranks=ranks), reports, ranks)
    found = found_of(ranks, trained, reports)
    found.notes = {"rewinds": result.num_rewinds, "skipped": result.skipped_steps, "said": said}
    if ranks.is_main:
        lines = [json.loads(line) for line in incidents.read_text().splitlines()]
        found.notes["incidents"] = [(r["step"], r["batch"], r["documents"], r["decision"]) for r in lines]
        found.notes["left out"] = json.loads((folder / "checkpoints" / "rewinds.json").read_text())
    return found


def grown(ranks: Ranks, folder: Path, is_last_rank: bool, kind: str) -> Found:
    """Steps of 4, 4, 5, 6 and 7 rows: most do not divide by the ranks."""
    sizes = BatchSizes(full=7, start=4, warmup_steps=4)
    trained, reports = ranks.prepare(model_of(kind), STANDING, LENGTH), Reports()
    the_plan = plan(5, lambda step: micro_batches(ranks, sizes.numbers(step)), optimizer=STANDING)
    fit(trained, the_plan, Checkpoints(folder / "checkpoints", ranks=ranks), reports, ranks)
    found = found_of(ranks, trained, reports)
    named = trained.named_parameters()
    found.tensors = {n: whole_value(ranks, n, p.grad) for n, p in named if p.grad is not None}
    found.notes = {"counts": [report.count for report in reports.all]}
    return found


def with_nothing_to_learn(ranks: Ranks, folder: Path, is_last_rank: bool, kind: str) -> Found:
    """The last three rows of five, all that the last rank has, have no target."""

    def change(number: int, made: Row) -> None:
        if number >= 2:
            made.targets[:] = IGNORE

    trained, reports = ranks.prepare(model_of(kind), STANDING, LENGTH), Reports()
    the_plan = plan(1, lambda step: micro_batches(ranks, five(step), change), optimizer=STANDING)
    fit(trained, the_plan, Checkpoints(folder / "checkpoints", ranks=ranks), reports, ranks)
    found = found_of(ranks, trained, reports)
    named = trained.named_parameters()
    found.tensors = {n: whole_value(ranks, n, p.grad) for n, p in named if p.grad is not None}
    return found


VALIDATIONS = {2: 5.0, 4: 3.0, 6: 4.0, 8: 3.5}


def stopped_early(ranks: Ranks, folder: Path, is_last_rank: bool, kind: str) -> Found:
    """With an average, of which a validation after step 4 is the best; the others are none."""
    trained = ranks.prepare(model_of(kind), ADAMW, LENGTH)
    shapes = {name: tuple(t.shape) for name, t in model_of(kind).state_dict().items()}
    early_stop = EarlyStop(
        EarlyStopConfig(patience=2), "bits", folder / "best.safetensors", shapes, ranks.is_main
    )
    average, kept = WeightAverage(trained, AverageConfig(decay=0.9)), dict[str, Tensor]()

    def validate(report) -> None:
        if report.step not in VALIDATIONS:
            return
        with average.applied():
            view = ranks.view(trained)
            early_stop.saw({"bits": ranks.agreed(VALIDATIONS[report.step])}, view.weights)
            if report.step == 4:
                named = trained.named_parameters()
                kept.update((f"best.{name}", whole_value(ranks, name, p.detach())) for name, p in named)

    reports = Reports(validate)
    the_plan = replace(
        plan(20, lambda step: micro_batches(ranks, five(step)), optimizer=ADAMW, checkpoint_every=5),
        average=average,
        memory={"early_stop": early_stop},
        should_stop=early_stop.should_stop,
    )
    fit(trained, the_plan, Checkpoints(folder / "checkpoints", ranks=ranks), reports, ranks)
    found = found_of(ranks, trained, reports)
    found.tensors = {
        f"average.{name}": whole_value(ranks, name, value) for name, value in average.tensors.items()
    }
    ranks.wait()
    ranks.fill(trained, SavedWeights(model_of(kind).config, early_stop.path), shapes)
    found.tensors |= kept
    for name, parameter in trained.named_parameters():
        assert torch.equal(whole_value(ranks, name, parameter.detach()), kept[f"best.{name}"]), name
    found.notes = {"best": early_stop.best, "updates": average.num_updates}
    return found


def found_of(ranks: Ranks, trained: torch.nn.Module, reports: Reports) -> Found:
    """With the weights as the tensors."""
    return Found(
        [report.loss for report in reports.all],
        [report.gradient_norm for report in reports.all],
        [report.number for report in reports.all],
        [report.reason for report in reports.all],
        {name: whole_value(ranks, name, p.detach()) for name, p in trained.named_parameters()},
    )


QUICK = [skipped_in_float16, rewound, grown, with_nothing_to_learn, stopped_early]


@with_torch_operations
def on_ranks(rank: int, world_size: int, folder: Path, layouts, scenarios, kind) -> Any:
    found = {}
    for name, config in layouts.items():
        for scenario in scenarios:
            own = folder / name / scenario.__name__
            own.mkdir(parents=True, exist_ok=True)
            ranks = Together(build_layout(config, world_size))
            found[name, scenario.__name__] = scenario(ranks, own, rank == world_size - 1, kind)
    return found


def compared(
    tmp_path: Path,
    world_size: int,
    layouts: dict[str, ParallelConfig],
    scenarios: list[Any],
    kind: str = "tied",
) -> Any:
    """(name of the layout, scenario, what each rank has found, what one process has found)."""
    found = run_ranks(world_size, on_ranks, tmp_path, layouts, scenarios, kind)
    for scenario in scenarios:
        folder = tmp_path / "one" / scenario.__name__
        folder.mkdir(parents=True)
        alone = with_torch_operations(scenario)(Alone(), folder, True, kind)
        for name in layouts:
            yield name, scenario.__name__, [of_rank[name, scenario.__name__] for of_rank in found], alone


def assert_decided_alike(name: str, scenario: str, ours: list[Found], alone: Found) -> None:
    where, is_float16 = f"{name}, {scenario}", scenario == "skipped_in_float16"
    tensors: dict[str, Tensor] = {}
    for found in ours:
        assert found.numbers == alone.numbers, where
        assert found.reasons == alone.reasons, where
        assert found.losses == pytest.approx(alone.losses, rel=3e-3 if is_float16 else 1e-4, nan_ok=True), (
            where
        )
        assert found.losses == pytest.approx(ours[0].losses, rel=0, abs=0, nan_ok=True), where
        assert found.notes == {key: alone.notes[key] for key in found.notes}, where
        tensors |= found.tensors
    assert ours[0].notes == alone.notes, where
    assert tensors.keys() == alone.tensors.keys(), where
    # One step moves every number by the rate at most, in whichever direction rounding has turned it.
    for key, value in alone.tensors.items():
        is_gradient = scenario in ("grown", "with_nothing_to_learn")
        largest = float(value.abs().max()) if is_gradient else 1.0
        tolerance = 3e-6 * largest if is_gradient else (5e-3 if is_float16 else 1e-3)
        assert float((tensors[key] - value).abs().max()) <= tolerance, f"{where}: {key}"


def test_two_processes_decide_as_one_does(tmp_path):
    seen = {}
    for name, scenario, ours, alone in compared(tmp_path, 2, TWO, QUICK):
        assert_decided_alike(name, scenario, ours, alone)
        seen[scenario] = alone
    overflowed = [number for number, reason in enumerate(seen["skipped_in_float16"].reasons) if reason]
    assert overflowed == [2]
    assert seen["skipped_in_float16"].reasons[2].endswith("loss scale now 32768")
    assert seen["rewound"].notes["rewinds"] == 1
    assert seen["rewound"].numbers == [0, 1, 2, 3, 4, 6, 7, 8, 9, 10]
    assert [batch for _, batch, _, _ in seen["rewound"].notes["incidents"]] == [4, 5]
    assert len(seen["stopped_early"].losses) == 8
    assert seen["stopped_early"].notes["best"] == {"bits": 3.0}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("world_size", "layouts", "scenarios", "kind"),
    [
        (2, MORE_OF_TWO, QUICK, "tied"),
        (2, TWO, [rewound_for_spikes], "tied"),
        (2, EXPERTS, [grown, with_nothing_to_learn], "no balance loss"),
        (4, FOUR, [*QUICK, rewound_for_spikes], "tied"),
    ],
    ids=["two", "spikes", "experts", "four"],
)
def test_so_do_other_layouts_and_more_processes(tmp_path, world_size, layouts, scenarios, kind):
    for name, scenario, ours, alone in compared(tmp_path, world_size, layouts, scenarios, kind):
        assert_decided_alike(name, scenario, ours, alone)
        if scenario == "rewound_for_spikes":
            assert alone.notes["rewinds"] == 1


def test_a_warmup_that_begins_with_too_few_rows_is_refused_with_what_would_do():
    def config(start_rows: int, parallel: ParallelConfig) -> TrainingConfig:
        return TrainingConfig.model_validate(
            {
                "sequence_length": 64,
                "batch_tokens": 64 * 32,
                "batch_warmup": {"start_tokens": 64 * start_rows, "steps": 9},
                "parallel": parallel.model_dump(),
            }
        )

    config(3, ParallelConfig(data=3))
    with pytest.raises(ValueError, match=r"raise batch_warmup\.start_tokens to at least 192, or use at m"):
        config(2, ParallelConfig(data=3))
    config(4, ParallelConfig(data=2, pipeline=2))
    with pytest.raises(
        ValueError, match=r"a step has 3 rows, and a 1f1b pipeline of 2 .*start_tokens to at least 256"
    ):
        config(3, ParallelConfig(data=2, pipeline=2))
    config(3, ParallelConfig(data=2, pipeline=2, pipeline_schedule="interleaved"))
