"""Training stages in several processes: the numbers of one, whatever the layout."""

import math

import pytest
from test_training_stages import DPO, PRETRAIN, SFT, inputs, logged  # noqa: F401

from bessemer.model.folder import load_model
from bessemer.training.average import AverageConfig
from bessemer.training.dpo import dpo
from bessemer.training.early_stop import EarlyStopConfig
from bessemer.training.parallel.layout import ParallelConfig
from bessemer.training.pretrain import pretrain
from bessemer.training.sft import sft
from stage_helpers import stage_context

WAYS = [ParallelConfig(data=2), ParallelConfig(shard=2)]


def numbers(context, name: str) -> list[float]:
    return [row[name] for row in logged(context) if name in row]


def assert_same_run(ours, theirs) -> None:
    assert numbers(ours, "supervised") == numbers(theirs, "supervised")
    assert numbers(ours, "loss") == pytest.approx(numbers(theirs, "loss"), rel=1e-4)
    assert len(numbers(theirs, "loss")) > 1


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS, ids=["DDP", "ZeRO-3"])
def test_a_pretraining_of_two_processes_is_that_of_one(inputs, tmp_path, way):  # noqa: F811
    """With validation, generation, an average and early stopping on the sharded model."""
    config = PRETRAIN.model_copy(
        update={"average": AverageConfig(decay=0.9), "early_stop": EarlyStopConfig(), "micro_batches": 4}
    )
    found = {}
    for name, parallel in (("one", ParallelConfig()), ("two", way)):
        context = stage_context(tmp_path / name, *inputs.values(), stage="pretrain")
        metrics = pretrain(config.model_copy(update={"parallel": parallel}), context)
        found[name] = context, metrics
    assert_same_run(found["two"][0], found["one"][0])
    for name in ("steps", "tokens", "parameters"):
        assert found["two"][1][name] == found["one"][1][name]
    bits = [metrics["validation_bits_per_byte"] for _, metrics in found.values()]
    assert bits[0] == pytest.approx(bits[1], rel=1e-3)
    weights = [load_model(context.output).embedding for context, _ in found.values()]
    assert float((weights[0] - weights[1]).detach().abs().max()) < 1e-3


@pytest.mark.slow
@pytest.mark.parametrize(("stage", "config"), [(sft, SFT), (dpo, DPO)], ids=["sft", "dpo"])
def test_tuning_in_two_processes_is_that_of_one(inputs, tmp_path, stage, config):  # noqa: F811
    found = []
    for parallel in (ParallelConfig(), WAYS[1]):
        context = stage_context(tmp_path / str(parallel.shard), *inputs.values(), stage="tuning")
        stage(config.model_copy(update={"parallel": parallel}), context)
        found.append(context)
    assert_same_run(found[1], found[0])
    if stage is dpo:
        assert numbers(found[1], "loss")[0] == pytest.approx(numbers(found[0], "loss")[0], rel=1e-6), (
            "the reference is the same"
        )
        assert math.isfinite(numbers(found[1], "margin")[-1])
