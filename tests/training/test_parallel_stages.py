"""Training stages in several processes: the numbers of one, whatever the layout."""

import math
import os
import signal
import threading
import time

import pytest
from test_training_stages import DPO as ANY_DPO
from test_training_stages import PRETRAIN as ANY_PRETRAIN
from test_training_stages import SFT as ANY_SFT
from test_training_stages import inputs, logged  # noqa: F401

from bessemer.errors import BessemerError
from bessemer.model.folder import load_model
from bessemer.training.average import AverageConfig
from bessemer.training.dpo import dpo
from bessemer.training.early_stop import EarlyStopConfig
from bessemer.training.parallel.launch import on_ranks
from bessemer.training.parallel.layout import ParallelConfig
from bessemer.training.pretrain import pretrain, train_base
from bessemer.training.sft import sft
from stage_helpers import stage_context

# Neither bfloat16, which some processors take by default, nor Muon, which computes in it there: sums in
# another order then give other curves. Its updates of parts are compared in test_parallel_loop.
DPO, PRETRAIN, SFT = (
    config.model_copy(
        update={
            "compute_dtype": "float32",
            "optimizer": config.optimizer.model_copy(update={"kind": "adamw"}),
        }
    )
    for config in (ANY_DPO, ANY_PRETRAIN, ANY_SFT)
)
WAYS = [ParallelConfig(data=2), ParallelConfig(shard=2)]
DIVIDED = {
    "tensor": ParallelConfig(tensor=2),
    "1F1B": ParallelConfig(pipeline=2),
    "zero bubble": ParallelConfig(pipeline=2, pipeline_schedule="zero_bubble"),
    "ZeRO-3 and tensor": ParallelConfig(shard=2, tensor=2),
}
DIVISIBLE = PRETRAIN.model.model_copy(update={"depth": 4, "num_attention_heads": 4, "num_key_value_heads": 2})


def numbers(context, name: str) -> list[float]:
    return [row[name] for row in logged(context) if name in row]


def train_and_die(config, context, ranks):
    """Pretraining of which a process is killed when the first checkpoint is there."""

    def wait_and_die() -> None:
        while not list((context.scratch / "checkpoints").glob("step-*")):
            time.sleep(0.001)
        os.kill(os.getpid(), signal.SIGKILL)

    if not ranks.is_main:
        threading.Thread(target=wait_and_die, daemon=True).start()
    return train_base(config, context, ranks)


def assert_same_run(ours, theirs) -> None:
    assert numbers(ours, "supervised") == numbers(theirs, "supervised")
    assert numbers(ours, "loss") == pytest.approx(numbers(theirs, "loss"), rel=1e-4)
    assert len(numbers(theirs, "loss")) > 1


@pytest.mark.slow
@pytest.mark.parametrize("way", [*WAYS, *DIVIDED.values()], ids=["DDP", "ZeRO-3", *DIVIDED])
def test_a_pretraining_of_several_processes_is_that_of_one(inputs, tmp_path, way):  # noqa: F811
    """With validation, generation, an average and early stopping on the divided model."""
    config = PRETRAIN.model_copy(
        update={
            "model": DIVISIBLE,
            "average": AverageConfig(decay=0.9),
            "early_stop": EarlyStopConfig(),
            "micro_batches": 4,
        }
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
def test_a_divided_pretraining_that_was_killed_goes_on_in_another_layout(inputs, tmp_path):  # noqa: F811
    config = PRETRAIN.model_copy(update={"model": DIVISIBLE, "micro_batches": 4})
    whole, cut = (stage_context(tmp_path / name, *inputs.values(), stage="pretrain") for name in ("a", "b"))
    pretrain(config, whole)
    with pytest.raises(BessemerError, match="was killed by SIGKILL"):
        on_ranks(train_and_die, config.model_copy(update={"parallel": DIVIDED["tensor"]}), cut)
    assert list((cut.scratch / "checkpoints").glob("step-*"))
    pretrain(config.model_copy(update={"parallel": DIVIDED["1F1B"]}), cut)
    assert_same_run(cut, whole)


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
