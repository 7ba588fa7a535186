"""What is measured while training: utilisation, time left, groups, and the tools that take it too."""

import json
import math
import sys
import time
from types import SimpleNamespace

import pytest
import torch

from bessemer.errors import BessemerError, ConfigError
from bessemer.model.config import ModelConfig, parameter_count
from bessemer.recipe import parse_recipe
from bessemer.runner.identity import identify
from bessemer.training.config import TrainingConfig
from bessemer.training.execute import scale_of
from bessemer.training.loop import StepReport
from bessemer.training.memory import _group_free_bytes, check_memory, estimate_memory
from bessemer.training.optimizers import OptimizerConfig
from bessemer.training.parallel.layout import ParallelConfig
from bessemer.training.peak import Peak, measured_flops, peak_of
from bessemer.training.sinks import open_sinks
from bessemer.training.watch import Scale, TrainingWatch
from stage_helpers import SilentProgress, said, stage_context

CPU = torch.device("cpu")


def report(step, **changes):
    values = {
        "loss": 2.0,
        "gradient_norm": 1.0,
        "learning_rate_factor": 0.5,
        "count": 64,
        "sums": {},
        "skipped": False,
        "number": step - 1,
    }
    return StepReport(step=step, **(values | changes))


def watch_of(tmp_path, num_steps=10, **changes):
    context = stage_context(tmp_path)
    scale = Scale(num_steps, lambda step: 64 * step, flops_per_token=1e6, peak_flops_per_s=1e9)
    options = {"log_every": 1, "check_every": 5, "check": lambda step: {"score": float(step)}}
    return context, TrainingWatch(context, SilentProgress(), scale, **(options | changes))


def logged(context):
    return [json.loads(line) for line in context.metrics_path.read_text().splitlines()]


def test_a_line_holds_position_rates_groups_time_left_and_utilisation(tmp_path):
    context, watch = watch_of(tmp_path)
    watch.step(report(1, gradient_norms={"attention": 0.5}, learning_rates={"muon": 0.01}))
    (row,) = logged(context)
    assert row["tokens"] == 64
    assert row["batch"] == 0
    assert row["gradient_norm/attention"] == 0.5
    assert row["learning_rate/muon"] == 0.01
    assert row["mfu"] == pytest.approx(row["tokens_per_s"] * 1e6 / 1e9)
    assert row["eta_s"] == pytest.approx(9 * 64 / row["tokens_per_s"])
    assert row["memory_bytes"] > 1e7
    assert 0 <= row["waited_share"] <= 1


def test_utilisation_is_of_the_devices_of_all_processes():
    """Tokens a second are those of all: over the peak of one device, eight could pass 100 %."""
    shape = ModelConfig(vocab_size=64, hidden_size=32, num_hidden_layers=1, num_attention_heads=2)
    scales = [
        scale_of(TrainingConfig(parallel=parallel), shape, 10, Peak(1e9, "measured"))
        for parallel in (ParallelConfig(), ParallelConfig(data=2, tensor=4))
    ]
    assert [scale.peak_flops_per_s for scale in scales] == [1e9, 8e9]
    assert scales[0].flops_per_token == scales[1].flops_per_token > 0
    assert scales[0].tokens_before(3) == scales[1].tokens_before(3) == 3 * TrainingConfig().tokens_per_step


def test_without_a_known_peak_no_utilisation_is_claimed(tmp_path):
    context, watch = watch_of(tmp_path)
    watch.scale = Scale(10, lambda step: 64 * step)
    watch.step(report(1))
    assert "mfu" not in logged(context)[0]


def test_after_a_rewind_the_lines_of_the_steps_done_again_are_replaced(tmp_path):
    context, watch = watch_of(tmp_path, check_every=100)
    for step in (1, 2, 3, 4):
        watch.step(report(step))
    for step in (3, 4, 5):
        watch.step(report(step, number=step + 10))
    rows = logged(context)
    assert [row["step"] for row in rows] == [1, 2, 3, 4, 5]
    assert [row["batch"] for row in rows] == [0, 1, 13, 14, 15]


def test_a_skipped_step_is_said_with_its_reason(tmp_path):
    context, watch = watch_of(tmp_path, log_every=100)
    watch.step(report(3, skipped=True, reason="loss 9 stands above 4"))
    assert said(context) == "step 3: loss 9 stands above 4, update skipped"
    assert [row["step"] for row in logged(context)] == [3]


def test_a_loss_that_is_not_finite_is_null_since_json_has_no_word_for_it(tmp_path):
    def refuse(word):
        raise AssertionError(f"{word} is not JSON")

    context, watch = watch_of(tmp_path)
    watch.step(report(1, loss=math.nan, gradient_norm=math.inf, skipped=True, reason="not finite"))
    (row,) = [json.loads(line, parse_constant=refuse) for line in context.metrics_path.open()]
    assert (row["loss"], row["gradient_norm"], row["tokens"]) == (None, None, 64)


def test_sinks_get_what_metrics_jsonl_gets(tmp_path):
    class Kept:
        def __init__(self):
            self.rows = []

        def log(self, step, values):
            self.rows.append((step, dict(values)))

    sink = Kept()
    context, watch = watch_of(tmp_path, sinks=[sink])
    for step in range(1, 6):
        watch.step(report(step))
    assert [{"step": step, **values} for step, values in sink.rows] == logged(context)
    assert sink.rows[-1] == (5, {"score": 5.0})


@pytest.mark.parametrize("name", ["tensorboard", "wandb", "mlflow", "trackio"])
def test_a_tool_that_is_not_installed_is_named_with_its_extra(name, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(BessemerError, match=rf"report_to names {name}.*pip install 'bessemer\[{name}\]'"):
        open_sinks([name], "run", "base", tmp_path)


@pytest.mark.parametrize("name", ["wandb", "trackio"])
def test_runs_are_opened_filled_and_closed(name, tmp_path, monkeypatch):
    calls = []
    tool = SimpleNamespace(
        init=lambda **options: calls.append(("init", options)),
        log=lambda values, step: calls.append(("log", values, step)),
        finish=lambda: calls.append(("finish",)),
    )
    monkeypatch.setitem(sys.modules, name, tool)
    (sink,) = open_sinks([name], "quickstart", "base", tmp_path)
    sink.log(3, {"loss": 1.5})
    sink.close()
    assert calls == [
        ("init", {"project": "quickstart", "name": "base"}),
        ("log", {"loss": 1.5}, 3),
        ("finish",),
    ]


def test_mlflow_runs_are_opened_filled_and_closed(tmp_path, monkeypatch):
    calls = []
    tool = SimpleNamespace(
        set_experiment=lambda name: calls.append(("experiment", name)),
        start_run=lambda run_name: calls.append(("start", run_name)),
        log_metrics=lambda values, step: calls.append(("log", values, step)),
        end_run=lambda: calls.append(("end",)),
    )
    monkeypatch.setitem(sys.modules, "mlflow", tool)
    (sink,) = open_sinks(["mlflow"], "quickstart", "base", tmp_path)
    sink.log(3, {"loss": 1.5})
    sink.close()
    assert calls == [("experiment", "quickstart"), ("start", "base"), ("log", {"loss": 1.5}, 3), ("end",)]


def test_tensorboard_files_hold_the_numbers(tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    (sink,) = open_sinks(["tensorboard"], "run", "base", tmp_path)
    for step in (1, 2):
        sink.log(step, {"loss": 3.0 / step})
    sink.close()
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert [(event.step, event.value) for event in events.Scalars("loss")] == [(1, 3.0), (2, 1.5)]


@pytest.mark.parametrize("names", [["wandb"], ["mlflow", "wandb"]])
def test_a_tool_that_is_not_installed_is_a_fault_of_the_recipe_not_of_a_stage_hours_later(names, monkeypatch):
    for name in names:
        monkeypatch.setitem(sys.modules, name, None)
    text = f"stages: [collect, curate, tokenizer, tokens, pretrain: {{report_to: [{', '.join(names)}]}}]"
    mend = rf"recipe.yaml:1: .*not installed here: pip install 'bessemer\[{','.join(names)}\]'"
    with pytest.raises(ConfigError, match=mend):
        parse_recipe(text, "recipe.yaml")


def test_a_run_goes_on_when_another_tool_is_to_get_its_metrics(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboard", SimpleNamespace())
    keys = set()
    for names in ("[]", "[tensorboard]"):
        text = f"stages: [collect, curate, tokenizer, tokens, pretrain: {{report_to: {names}}}]"
        plan = parse_recipe(text, "recipe.yaml").stages[-1]
        keys.add(identify(plan, 1, {kind: [] for kind in plan.inputs}).key)
    assert len(keys) == 1


def test_the_peak_is_measured_once_and_kept(tmp_path, monkeypatch):
    peak = peak_of(CPU, torch.float32, tmp_path)
    assert peak.source == "measured"
    assert 1e9 < peak.flops_per_s < 1e14
    monkeypatch.setattr("bessemer.training.peak.measured_flops", lambda *a: pytest.fail("measured twice"))
    assert peak_of(CPU, torch.float32, tmp_path) == peak
    (tmp_path / "peaks.json").write_text("{damaged")
    monkeypatch.setattr("bessemer.training.peak.measured_flops", lambda *a: 5.0)
    assert peak_of(CPU, torch.float32, tmp_path).flops_per_s == 5.0


def product_flops() -> float:
    """Of one product, the best of three."""
    left, right = torch.randn(1024, 1024), torch.randn(1024, 1024)
    best = 0.0
    for _ in range(3):
        started = time.perf_counter()
        torch.mm(left, right)
        best = max(best, 2 * 1024**3 / (time.perf_counter() - started))
    return best


def test_a_measured_peak_is_not_below_a_product_timed_beside_it():
    """The best of several shapes, so at least about what one of them reaches alone. Tried again where other
    programs took the processor meanwhile."""
    assert any(measured_flops(CPU, torch.float32, seconds=0.3) > 0.3 * product_flops() for _ in range(10))


def test_a_known_gpu_has_the_vendors_figure(monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "NVIDIA H100 80GB HBM3")
    peak = peak_of(torch.device("cuda", 0), torch.bfloat16)
    assert (peak.flops_per_s, peak.source) == (989e12, "data sheet")


SHAPE = ModelConfig(vocab_size=512, hidden_size=64, num_hidden_layers=2, num_attention_heads=2)


def test_the_memory_of_weights_and_state_is_counted_byte_by_byte():
    adamw = TrainingConfig(optimizer=OptimizerConfig(kind="adamw"))
    num_parameters = parameter_count(SHAPE)
    gpu = torch.device("cuda", 0)
    assert estimate_memory(adamw, SHAPE, gpu).fixed_bytes == 16 * num_parameters
    # On a CPU the copy for checkpoints lies in the same memory: weights and both moments again.
    assert estimate_memory(adamw, SHAPE, CPU).fixed_bytes == 28 * num_parameters
    tables = 512 * 64
    muon = estimate_memory(TrainingConfig(), SHAPE, gpu).fixed_bytes
    assert muon == 8 * num_parameters + 8 * tables + 4 * (num_parameters - tables)
    eight = TrainingConfig(optimizer=OptimizerConfig(kind="adamw", state_bits=8))
    assert estimate_memory(eight, SHAPE, gpu).fixed_bytes < estimate_memory(adamw, SHAPE, gpu).fixed_bytes


def test_processes_that_divide_a_model_need_their_parts_and_those_on_one_cpu_all_of_them(monkeypatch):
    def fixed(device, **parallel):
        config = TrainingConfig(
            optimizer=OptimizerConfig(kind="adamw"), batch_tokens=4096, parallel=ParallelConfig(**parallel)
        )
        return estimate_memory(config, SHAPE, device).fixed_bytes

    gpu, num_parameters = torch.device("cuda"), parameter_count(SHAPE)
    assert fixed(gpu, data=2) == 16 * num_parameters
    assert fixed(gpu, shard=2) == 8 * num_parameters
    assert fixed(gpu, shard=16) == 4 * num_parameters // 16 + 4 * 512 * 64, "one tensor is whole at a time"
    assert fixed(CPU, data=2) == 2 * 28 * num_parameters
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "1")
    assert fixed(CPU, data=2) == 28 * num_parameters


def test_a_model_that_cannot_fit_is_refused_before_it_starts_with_the_mend(monkeypatch):
    monkeypatch.setattr("bessemer.training.memory.free_bytes", lambda device: 1000)
    with pytest.raises(BessemerError, match=r"does not fit: .* GB of memory are free: take a smaller"):
        check_memory(TrainingConfig(), SHAPE, CPU)
    fixed = estimate_memory(TrainingConfig(), SHAPE, CPU).fixed_bytes
    monkeypatch.setattr("bessemer.training.memory.free_bytes", lambda device: fixed + 1)
    note = check_memory(TrainingConfig(), SHAPE, CPU)
    assert note is not None
    assert "lower micro_batch_tokens" in note
    monkeypatch.setattr("bessemer.training.memory.free_bytes", lambda device: 10**15)
    assert check_memory(TrainingConfig(), SHAPE, CPU) is None


@pytest.mark.parametrize("version", [1, 2])
def test_a_containers_limit_counts_and_its_cache_of_files_is_free(tmp_path, version):
    names = {1: ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "memory/memory.stat")}
    limit, used, parts = names.get(version, ("memory.max", "memory.current", "memory.stat"))
    (tmp_path / "memory").mkdir()
    assert _group_free_bytes(tmp_path) is None
    (tmp_path / used).write_text("700\n")
    (tmp_path / parts).write_text("anon 600\ninactive_file 100\ntotal_inactive_file 100\n")
    (tmp_path / limit).write_text("1000\n")
    assert _group_free_bytes(tmp_path) == 400
    (tmp_path / limit).write_text("max\n")
    assert _group_free_bytes(tmp_path) is None


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            {"every": {"checkpoint": 100, "milestone": 150}},
            "milestone 150 is no multiple of every.checkpoint 100",
        ),
        ({"schedule": {"warmup": 0.7, "decay": 0.5}}, "together more than all of it"),
        ({"batch_warmup": {"start_tokens": 9000, "steps": 5}}, "batch_warmup.start_tokens 9000 is more than"),
        ({"micro_batch_tokens": 100}, "less than one row of sequence_length 256"),
        ({"batch_tokens": 100}, "batch_tokens 100 is less than one row of sequence_length 256"),
        ({"optimizer": {"betas": [0.9, 1.5]}}, "betas.1\n  Input should be less than 1"),
        ({"optimizer": {"learning_rate": math.inf}}, "learning_rate\n  Input should be a finite number"),
    ],
)
def test_settings_that_contradict_each_other_are_named_with_the_mend(values, message):
    with pytest.raises(ValueError, match=message):
        TrainingConfig.model_validate(values)
