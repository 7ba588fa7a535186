"""Runs the loop inside a stage: progress, metrics, checkpoints, and the device it all happens on."""

from typing import Any, NamedTuple

import torch
from pydantic import Field

from bessemer.config import Config, Count
from bessemer.errors import BessemerError
from bessemer.model.config import ModelConfig
from bessemer.model.transformer import Transformer
from bessemer.runner.context import StageContext
from bessemer.training.checkpoint import Checkpoints
from bessemer.training.loop import FitResult, Plan, fit
from bessemer.training.watch import Check, TrainingWatch


class Cadence(Config):
    """How often a training stage reports and saves, in steps."""

    log: Count = Field(default=20, ge=1)
    """Between lines of metrics."""
    check: Count = Field(default=400, ge=1)
    """Between validations; there is always one at the end."""
    checkpoint: Count = Field(default=200, ge=1)
    """Between checkpoints."""


class Trained(NamedTuple):
    """What a training stage reports about its run of the loop."""

    result: FitResult
    metrics: dict[str, Any]


def train(
    model: Transformer,
    plan: Plan[Any],
    context: StageContext,
    *,
    description: str,
    tokens_per_step: int,
    cadence: Cadence,
    check: Check,
) -> Trained:
    """Fit the model with a progress bar in tokens; returns the loop's result and its metrics."""
    with context.progress(description, plan.num_steps * tokens_per_step, "tokens") as progress:
        watch = TrainingWatch(
            context,
            progress,
            num_steps=plan.num_steps,
            tokens_per_step=tokens_per_step,
            log_every=cadence.log,
            check_every=cadence.check,
            check=check,
        )
        checkpoints = Checkpoints(context.scratch / "checkpoints", say=context.say)
        result = fit(model, plan, checkpoints, watch)
    done_tokens = (plan.num_steps - result.first_step) * tokens_per_step
    metrics = {
        "steps": plan.num_steps,
        "tokens": plan.num_steps * tokens_per_step,
        "loss": watch.last_loss,
        **watch.last_check,
        "skipped_steps": len(result.skipped_steps),
        "tokens_per_s": done_tokens / max(result.wall_s, 1e-9),
    }
    return Trained(result, metrics)


def check_sequence_length(sequence_length: int, shape: ModelConfig) -> None:
    """Raises BessemerError when rows are longer than the positions that the model knows."""
    if sequence_length > shape.max_position_embeddings:
        raise BessemerError(
            f"sequence_length {sequence_length} is more than the model's {shape.max_position_embeddings} "
            "positions: lower it, or pretrain with a larger model.max_position_embeddings"
        )


def best_device() -> torch.device:
    """The first CUDA device when there is one, else the CPU."""
    return torch.device("cuda", 0) if torch.cuda.is_available() else torch.device("cpu")


def torch_dtype(name: str) -> torch.dtype:
    """`bfloat16` or `float32` as a torch dtype."""
    return {"bfloat16": torch.bfloat16, "float32": torch.float32}[name]
