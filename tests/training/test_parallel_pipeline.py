"""Pipelines of 2 and 4 processes against one process: losses and gradients."""

from itertools import chain
from typing import Any

import pytest
from parallel_helpers import run_ranks
from pipeline_cases import (
    EXPERTS,
    Outcome,
    PipelineCase,
    in_one_process,
    on_four,
    on_two,
    preference_in_one_process,
    worst_difference,
)

from bessemer.errors import BessemerError
from bessemer.model.kernels import torch_operations
from bessemer.training.parallel.pipeline import (
    check_micro_batches,
    process_of,
    stages_of,
)
from bessemer.training.recompute import RecomputeConfig

UNTIED = {"tie_word_embeddings": False}
EIGHT_LAYERS = {"num_hidden_layers": 8}
TWO = {
    "1f1b tied": PipelineCase("1f1b"),
    "1f1b untied": PipelineCase("1f1b", UNTIED),
    "1f1b cut by hand": PipelineCase("1f1b", layers=(4, 1)),
    "1f1b even": PipelineCase("1f1b", batches="even", factor=0.125),
    "1f1b experts": PipelineCase("1f1b", {"mixture": EXPERTS}),
    "1f1b window": PipelineCase("1f1b", {"sliding_window": 5, "window_layers": (1, 4)}),
    "1f1b future tokens": PipelineCase("1f1b", {"future_tokens": 2}),
    "1f1b gpt2": PipelineCase("1f1b", {"family": "gpt2", "num_key_value_heads": 4, "qk_norm": False}),
    "1f1b recomputed": PipelineCase("1f1b", recompute=RecomputeConfig(kind="full")),
    "interleaved tied": PipelineCase("interleaved"),
    "interleaved untied": PipelineCase("interleaved", UNTIED, layers=(1, 1, 2, 1)),
    "interleaved experts": PipelineCase("interleaved", {"mixture": EXPERTS}),
    "zero bubble tied": PipelineCase("zero_bubble"),
    "zero bubble untied": PipelineCase("zero_bubble", UNTIED, layers=(1, 1, 2, 1)),
    "zero bubble experts": PipelineCase("zero_bubble", {"mixture": EXPERTS}),
    "zero bubble future tokens": PipelineCase("zero_bubble", UNTIED | {"future_tokens": 1}),
    "zero bubble recomputed": PipelineCase("zero_bubble", recompute=RecomputeConfig(kind="full")),
}
FOUR = {
    "1f1b tied": PipelineCase("1f1b", layers=(2, 1, 1, 1)),
    "1f1b untied": PipelineCase("1f1b", UNTIED),
    "interleaved tied": PipelineCase("interleaved", EIGHT_LAYERS),
    "interleaved untied": PipelineCase("interleaved", UNTIED | EIGHT_LAYERS),
    "zero bubble tied": PipelineCase("zero_bubble", EIGHT_LAYERS),
    "zero bubble experts": PipelineCase("zero_bubble", UNTIED | EIGHT_LAYERS | {"mixture": EXPERTS}),
}


@pytest.fixture(scope="module")
def two() -> list[Any]:
    """Of every rank, what `on_two` returns."""
    return run_ranks(2, on_two, list(TWO.values()), ["1f1b", "interleaved", "zero_bubble"])


@pytest.fixture(scope="module")
def four() -> list[list[Outcome]]:
    return run_ranks(4, on_four, list(FOUR.values()))


@pytest.mark.parametrize("name", TWO)
def test_two_processes_compute_what_one_does(name: str, two: list[Any]) -> None:
    place = list(TWO).index(name)
    assert_same([outcomes[place] for outcomes, _, _ in two], in_one_process(TWO[name]))


@pytest.mark.parametrize("name", FOUR)
def test_four_processes_compute_what_one_does(name: str, four: list[list[Outcome]]) -> None:
    place = list(FOUR).index(name)
    with torch_operations():
        assert_same([outcomes[place] for outcomes in four], in_one_process(FOUR[name]))


def test_gradients_add_up_over_steps(two: list[Any]) -> None:
    """One step, two, and two more: 1, 2 and 4 times the gradients of the first."""
    for _, by_schedule, _ in two:
        assert len(by_schedule) == 3
        for once, twice, four_times in by_schedule:
            for name, gradient in once.items():
                largest = float(gradient.abs().max())
                assert float((twice[name] - 2 * gradient).abs().max()) <= 2e-6 * largest, name
                assert float((four_times[name] - 4 * gradient).abs().max()) <= 4e-6 * largest, name


def test_any_objective_is_computed_by_the_last_stage(two: list[Any]) -> None:
    expected, theirs = preference_in_one_process()
    found = {}
    for _, _, (loss, ours, copies) in two:
        assert float(loss.total) == pytest.approx(float(expected.total), rel=1e-6)
        assert loss.sums == pytest.approx(expected.sums, rel=1e-5)
        found |= {name: value for name, value in ours.items() if name not in copies}
    difference, where = worst_difference(found, theirs)
    assert difference <= 1e-6, where


def test_every_stage_has_one_process_and_zero_bubble_comes_back_to_the_first() -> None:
    for schedule in ("1f1b", "interleaved", "zero_bubble"):
        held = [stages_of(process, 3, schedule) for process in range(3)]
        assert sorted(chain.from_iterable(held)) == list(range(3 if schedule == "1f1b" else 6))
    assert [process_of(stage, 3, "interleaved") for stage in range(6)] == [0, 1, 2, 0, 1, 2]
    assert [process_of(stage, 3, "zero_bubble") for stage in range(6)] == [0, 1, 2, 2, 1, 0]


@pytest.mark.parametrize(
    ("schedule", "num_batches", "fitting"), [("1f1b", 3, 4), ("interleaved", 9, 10), ("interleaved", 0, 1)]
)
def test_micro_batches_that_do_not_suit_are_refused(schedule: Any, num_batches: int, fitting: int) -> None:
    with pytest.raises(BessemerError, match=f"{num_batches} micro-batches do not suit .*: {fitting} would"):
        check_micro_batches(schedule, 4, num_batches)
    check_micro_batches(schedule, 4, fitting)


def assert_same(ranks: list[Outcome], one: Outcome) -> None:
    found = {}
    for outcome in ranks:
        for ours, theirs in ((outcome.loss, one.loss), (outcome.validation, one.validation)):
            assert float(ours.total) == pytest.approx(float(theirs.total), rel=1e-6)
            assert ours.sums == pytest.approx(theirs.sums, rel=1e-5)
        found |= {name: value for name, value in outcome.gradients.items() if name not in outcome.copies}
    difference, where = worst_difference(found, one.gradients)
    assert difference <= 1e-6, where
    for outcome in ranks:
        for name in outcome.copies:
            assert outcome.gradients[name].equal(found[name]), "copies of one parameter went apart"
