"""What the loop adds to a step: checkpoints, waiting for data, guard and logging, as shares of training.

    python benchmarks/training_overheads.py [--steps 60] [--depth 4] [--vocabulary 4096] [--dtype float32]

Checkpoints are counted twice over: the time that training stands still, and the CPU time of the thread that
writes (on a machine whose cores are all busy that slows training, too). Both for one checkpoint every 100
steps. The guard and the log are timed alone and divided by the step's time.
"""

import argparse
import json
import platform
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

import bessemer.training.checkpoint as checkpoint_module
from bessemer.formats.tokens import TokenSplit
from bessemer.model.folder import save_weights
from bessemer.model.transformer import Transformer
from bessemer.objectives.language_modeling import LanguageModeling
from bessemer.runner.context import append_metrics
from bessemer.runner.cost import resident_bytes
from bessemer.training.batches import DocumentRows
from bessemer.training.checkpoint import Checkpoints
from bessemer.training.dial import ModelDial, model_config
from bessemer.training.guard import Guard, GuardConfig
from bessemer.training.loop import Plan, fit
from bessemer.training.optimizers import OptimizerConfig
from bessemer.training.schedules import ScheduleConfig

STEPS_PER_CHECKPOINT = 100


def corpus(vocab_size: int) -> TokenSplit:
    """Random documents with the lengths of web pages."""
    draw = np.random.Generator(np.random.Philox(1))
    lengths = np.maximum(2, np.exp(draw.normal(6.2, 1.1, 5000)).astype(np.int64))
    return TokenSplit(
        shards=[draw.integers(0, vocab_size, int(lengths.sum())).astype(np.uint16)],
        shard_of=np.zeros(len(lengths), dtype=np.int32),
        offsets=np.cumsum(lengths) - lengths,
        lengths=lengths,
        num_bytes=lengths * 4,
        document_ids=[str(number) for number in range(len(lengths))],
        vocab_size=vocab_size,
    )


class Timed:
    """Keeps the CPU seconds of the thread that writes checkpoints."""

    def __init__(self) -> None:
        self.writer_cpu_s = 0.0
        real = Checkpoints._write

        def write(checkpoints: Checkpoints, *arguments: object) -> None:
            started = time.thread_time()
            real(checkpoints, *arguments)  # type: ignore[arg-type]
            self.writer_cpu_s += time.thread_time() - started

        checkpoint_module.Checkpoints._write = write  # type: ignore[method-assign, assignment]


class Silent:
    """No display."""

    def step(self, report: object) -> None: ...


def guard_and_log_s(folder: Path, num_steps: int = 2000) -> tuple[float, float]:
    """CPU seconds of the guard for a step, and of one line of metrics."""
    guard = Guard(GuardConfig(spikes="rewind"))
    started = time.process_time()
    for step in range(num_steps):
        loss = 3 + 0.1 * np.sin(step)
        guard.note(guard.judge(loss, 1.0 + 0.1 * np.cos(step)), step, step, loss, 1.0)
    guard_s = (time.process_time() - started) / num_steps
    started = time.process_time()
    for step in range(200):
        row = {"step": step, "memory_bytes": resident_bytes(), **{f"value {n}": n / 7 for n in range(20)}}
        append_metrics(folder / "metrics.jsonl", row)
    return guard_s, (time.process_time() - started) / 200


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--depth", type=int, default=4)
    parser.add_argument("--vocabulary", type=int, default=4096)
    parser.add_argument("--rows", type=int, default=8)
    parser.add_argument("--dtype", choices=("bfloat16", "float32"), default="bfloat16")
    options = parser.parse_args()
    shape = model_config(ModelDial(depth=options.depth), options.vocabulary)
    model = Transformer(shape, getattr(torch, options.dtype)).initialize(0)
    rows = DocumentRows(corpus(options.vocabulary), 256, 1)
    timed = Timed()

    def plan(num_steps: int, checkpoint_every: int) -> Plan:
        return Plan(
            objective=LanguageModeling(),
            batches=lambda number: [rows.batch(number, options.rows)],
            num_steps=num_steps,
            optimizer=OptimizerConfig(),
            schedule=ScheduleConfig(),
            checkpoint_every=checkpoint_every,
        )

    def beside(weights: Mapping[str, Tensor], folder: Path) -> None:
        save_weights(shape, weights, folder, tokenizer_folder=None, generation={}, card="")

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        fit(model, plan(3, 1000), Checkpoints(folder / "warm"), Silent())
        cpu_s = time.process_time()
        every = max(1, options.steps // 4)
        checkpoints = Checkpoints(folder / "run", beside=beside)
        result = fit(model, plan(options.steps, every), checkpoints, Silent())
        cpu_s = time.process_time() - cpu_s
        num_checkpoints = (options.steps - 1) // every
        guard_s, line_s = guard_and_log_s(folder)
    step_s = (result.wall_s - result.blocked_s) / options.steps
    step_cpu_s = (cpu_s - timed.writer_cpu_s) / options.steps
    figures = {
        "step_wall_s": step_s,
        "step_cpu_s": step_cpu_s,
        "checkpoint_blocked_share": result.blocked_s / num_checkpoints / (STEPS_PER_CHECKPOINT * step_s),
        "checkpoint_cpu_share": timed.writer_cpu_s / num_checkpoints / (STEPS_PER_CHECKPOINT * step_cpu_s),
        "loader_stall_share": result.stall_s / result.wall_s,
        "guard_cpu_share": guard_s / step_cpu_s,
        "log_cpu_share": line_s / (20 * step_cpu_s),
    }
    for figure, value in figures.items():
        print(f"{figure:28} {value:.5f}" if figure.endswith("_s") else f"{figure:28} {value:.3%}")
    machine = f"{platform.processor() or platform.machine()}, {torch.get_num_threads()} threads"
    ours = figures["checkpoint_blocked_share"] + figures["checkpoint_cpu_share"]
    print(
        json.dumps(
            {"name": "training_overheads", "unit": "share", "ours": ours, "machine": machine, **figures}
        )
    )


if __name__ == "__main__":
    main()
