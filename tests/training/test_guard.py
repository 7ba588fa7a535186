"""The guard against bad steps: what it calls a spike, what it skips, how it rewinds, what it reports."""

import json
import math
import os
import signal
import statistics
from dataclasses import replace

import pytest
import torch
from training_helpers import Reports, new_model, plan, random_batches, run, weights

from bessemer.errors import BessemerError
from bessemer.objectives.base import LossSum
from bessemer.objectives.language_modeling import LanguageModeling
from bessemer.training.guard import Guard, GuardConfig, robust_limit
from bessemer.training.incidents import DataOrder
from bessemer.training.optimizers import OptimizerConfig
from stage_helpers import killed

SKIP = GuardConfig(spikes="skip")
REWIND = GuardConfig(spikes="rewind", patience=2)
EVERY = 10


def test_the_limit_is_median_plus_robust_deviations():
    values = [1.0, 2.0, 3.0, 4.0, 100.0]
    assert robust_limit(values, 2.0, 0.0) == (3.0, pytest.approx(3 + 2 * 1.4826 * 1))
    assert robust_limit([5.0] * 9, 3.0, 0.5) == (5.0, 6.5)


def test_one_huge_value_hardly_moves_the_limit_as_it_would_a_standard_deviation():
    calm = [2.0 + 0.01 * math.sin(n) for n in range(99)]
    spoilt = [*calm, 1e6]
    assert robust_limit(spoilt, 8, 0)[1] == pytest.approx(robust_limit(calm, 8, 0)[1], rel=1e-2)
    assert statistics.mean(spoilt) + 6 * statistics.stdev(spoilt) > 1e5


def feed(guard, losses, norms=None):
    """Judge and note a row of steps; the verdicts."""
    verdicts = []
    for step, loss in enumerate(losses):
        norm = 1.0 if norms is None else norms[step]
        verdicts.append(guard.judge(loss, norm))
        guard.note(verdicts[-1], step, step, loss, norm)
    return verdicts


def test_a_spike_of_loss_or_gradient_is_told_apart_from_noise_and_drift():
    noise = [3.0 - 0.005 * n + 0.05 * math.sin(7 * n) for n in range(100)]
    assert not any(verdict.is_bad for verdict in feed(Guard(SKIP), noise))
    loss_spike = feed(Guard(SKIP), [*noise, 4.5, 2.5])
    assert [v.judgement for v in loss_spike[-2:]] == ["spike", "fine"]
    assert loss_spike[-2].quantity == "loss"
    norms = [1.0 + 0.3 * math.sin(5 * n) for n in range(100)]
    norm_spike = feed(Guard(SKIP), [*noise, 2.5, 2.5], [*norms, 400.0, 1.0])
    assert [v.judgement for v in norm_spike[-2:]] == ["spike", "fine"]
    assert norm_spike[-2].quantity == "gradient norm"


def test_a_spike_is_not_taken_into_the_statistics():
    guard = Guard(SKIP)
    feed(guard, [3.0] * 50)
    before = guard.to_json()
    verdict = guard.judge(30.0, 1.0)
    guard.note(verdict, 50, 50, 30.0, 1.0)
    assert guard.losses == before["losses"]
    assert guard.bad_numbers == [50]


def test_after_a_change_of_data_the_level_is_learnt_anew():
    guard = Guard(SKIP)
    feed(guard, [3.0] * 50)
    assert guard.judge(5.0, 1.0).is_bad
    guard.forget_recent()
    assert not guard.judge(5.0, 1.0).is_bad


def test_harder_data_after_a_change_is_not_taken_for_divergence():
    guard = Guard(GuardConfig(diverged_after=5))
    feed(guard, [1.0, 0.9])
    guard.forget_recent()
    feed(guard, [3.0] * 20)
    guard.check(22)
    feed(guard, [9.0] * 5)
    with pytest.raises(BessemerError, match="diverged"):
        guard.check(27)


def test_a_loss_that_stays_far_above_the_first_stops_the_run_and_names_the_mend():
    guard = Guard(GuardConfig(diverged_after=5))
    feed(guard, [3.0, 2.0, *([9.0] * 5)])
    with pytest.raises(BessemerError, match=r"diverged.*lower optimizer\.learning_rate"):
        guard.check(7)
    calm = Guard(GuardConfig(diverged_after=5))
    feed(calm, [3.0, *([9.0] * 4), 3.0, *([9.0] * 4)])
    calm.check(10)


def test_batches_left_out_shift_those_after_them(tmp_path):
    order = DataOrder(tmp_path)
    assert [order.number(step) for step in range(5)] == [0, 1, 2, 3, 4]
    order.skip_to(2, 3)
    assert [order.number(step) for step in range(5)] == [0, 1, 4, 5, 6]
    order.skip_to(3, 7)  # of step 3, which had number 5
    expected = [0, 1, 4, 8, 9]
    assert [order.number(step) for step in range(5)] == expected
    assert [DataOrder(tmp_path).number(step) for step in range(5)] == expected


def test_batches_left_out_twice_count_once(tmp_path):
    """A second rewind goes further back than the first when the checkpoint between them is damaged."""
    order = DataOrder(tmp_path)
    order.skip_to(4, 5)
    order.skip_to(2, 8)
    assert [order.number(step) for step in range(5)] == [0, 1, 9, 10, 11]
    order.skip_to(0, 3)  # ends inside the second
    assert [order.number(step) for step in range(3)] == [9, 10, 11]


class Poisoned:
    """Language modelling whose loss is far too high, or not finite, on some batches."""

    def __init__(self, bad, factor=1e4):
        self._bad, self._factor, self._inner = bad, factor, LanguageModeling()

    def count(self, batch):
        return self._inner.count(batch[1])

    def loss(self, model, batch):
        number, inner = batch
        loss = self._inner.loss(model, inner)
        return LossSum(loss.total * self._factor) if number in self._bad else loss


def poisoned_plan(bad, tmp_path, guard, num_steps=40, factor=1e4):
    tmp_path.mkdir(parents=True, exist_ok=True)
    return replace(
        plan(num_steps, checkpoint_every=EVERY, guard=guard),
        objective=Poisoned(bad, factor),
        batches=lambda number: [(number, batch) for batch in random_batches(number)],
        documents=lambda number: [f"document {number}"],
        incidents=tmp_path / "incidents.jsonl",
    )


def incidents(tmp_path):
    return [json.loads(line) for line in (tmp_path / "incidents.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("factor", [1e4, math.nan])
def test_a_spike_is_skipped_and_reported_with_its_documents_and_values(tmp_path, factor):
    model, states = new_model(), []
    reports = Reports(lambda report: states.append(weights(model)))
    result, _ = run(model, poisoned_plan({33}, tmp_path, SKIP, factor=factor), tmp_path / "c", reports)
    assert result.skipped_steps == [33]
    assert states[33] == states[32] != states[34]
    (incident,) = incidents(tmp_path)
    assert incident["step"] == 34
    assert incident["batch"] == 33
    assert incident["documents"] == ["document 33"]
    assert incident["decision"] == "update skipped"
    assert float(incident["loss"]) > 1e3 or math.isnan(float(incident["loss"]))


def test_repeated_spikes_rewind_to_the_checkpoint_and_leave_the_data_since_out(tmp_path):
    model, reports = new_model(), Reports()
    result, _ = run(model, poisoned_plan({33, 34}, tmp_path, REWIND), tmp_path / "c", reports)
    assert result.num_rewinds == 1
    numbers = [report.number for report in reports.all]
    assert numbers == [*range(34), *range(35, 45)], "batches 30 to 34 are left out the second time"
    assert [report.step for report in reports.all[34:]] == [*range(31, 41)]
    assert [incident["batch"] for incident in incidents(tmp_path)] == [33, 34]
    # The same weights as a run that never met those batches.
    clean, kept = new_model(), [*range(30), *range(35, 60)]
    whole = poisoned_plan(set(), tmp_path / "clean", SKIP)
    run(clean, replace(whole, batches=lambda n: whole.batches(kept[n])), tmp_path / "clean" / "c")
    assert weights(model) == weights(clean)


def test_a_run_that_spikes_before_its_first_checkpoint_goes_back_to_the_start(tmp_path):
    guard = GuardConfig(spikes="rewind", patience=2)
    the_plan = replace(poisoned_plan({3, 4}, tmp_path, guard, 12, math.nan), checkpoint_every=50)
    result, _ = run(new_model(), the_plan, tmp_path / "c")
    assert result.num_rewinds == 1
    assert result.skipped_steps == []


def test_a_run_that_goes_bad_on_any_data_stops_after_a_few_rewinds(tmp_path):
    guard = GuardConfig(spikes="rewind", patience=2, max_rewinds=2)
    with pytest.raises(BessemerError, match="after 2 rewinds past the data, so the data is not to blame"):
        run(new_model(), poisoned_plan(set(range(5, 90)), tmp_path, guard, 40, math.nan), tmp_path / "c")


@pytest.mark.parametrize("die_at", [31, 34, 38])
def test_a_killed_run_takes_the_same_decisions(tmp_path, die_at):
    """Before the spikes, between spike and rewind, and after the rewind."""
    undisturbed = new_model()
    run(undisturbed, poisoned_plan({32, 34, 35}, tmp_path / "one", REWIND), tmp_path / "one" / "c")

    def die(report):
        if report.step == die_at:
            os.kill(os.getpid(), signal.SIGKILL)

    two = tmp_path / "two"
    two.mkdir()
    assert killed(lambda: run(new_model(), poisoned_plan({32, 34, 35}, two, REWIND), two / "c", Reports(die)))
    resumed = new_model()
    result, _ = run(resumed, poisoned_plan({32, 34, 35}, two, REWIND), two / "c")
    assert result.first_step > 0
    assert result.num_rewinds == 1
    assert weights(resumed) == weights(undisturbed)
    assert incidents(two) == incidents(tmp_path / "one")


def test_the_guard_costs_no_byte_when_nothing_happens(tmp_path):
    models = [new_model(), new_model()]
    for number, guard in enumerate((GuardConfig(), REWIND)):
        run(models[number], plan(30, guard=guard), tmp_path / str(number))
    assert weights(models[0]) == weights(models[1])
    assert torch.isfinite(models[0].embedding).all()


def test_a_learning_rate_that_explodes_ends_the_run_with_the_mend_not_with_a_useless_model(tmp_path):
    config = OptimizerConfig(kind="adamw", learning_rate=30.0)
    the_plan = plan(300, optimizer=config, guard=GuardConfig(diverged_after=10))
    with pytest.raises(BessemerError, match=r"lower optimizer\.learning_rate"):
        run(new_model(), the_plan, tmp_path)


def test_a_run_that_is_too_short_to_be_stopped_does_not_end_with_a_useless_model_either(tmp_path):
    config = OptimizerConfig(kind="adamw", learning_rate=30.0)
    short = plan(40, optimizer=config)
    with pytest.raises(BessemerError, match=r"up to step 40.*lower optimizer\.learning_rate"):
        run(new_model(), short, tmp_path / "plain")
    run(new_model(), replace(short, keeps_best=True), tmp_path / "best")
