"""Runs the loop inside a stage: what every training stage can be told, and what it reports and writes."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from pydantic import Field

from bessemer.config import Config, Count
from bessemer.errors import BessemerError
from bessemer.model.config import ModelConfig, flops_per_token, parameter_count
from bessemer.model.precision import ComputeDtype, has_native_bfloat16
from bessemer.model.transformer import Transformer
from bessemer.objectives.base import Objective
from bessemer.runner.context import StageContext
from bessemer.tokenization.tokenizer import Tokenizer
from bessemer.training.checkpoint import Checkpoints
from bessemer.training.finish import write_model
from bessemer.training.loop import Plan, fit
from bessemer.training.optimizers import OptimizerConfig
from bessemer.training.schedules import ScheduleConfig
from bessemer.training.watch import Check, TrainingWatch


class Cadence(Config):
    """How often a training stage reports and saves, in steps."""

    log: Count = Field(default=20, ge=1)
    """Between lines of metrics."""
    check: Count = Field(default=400, ge=1)
    """Between validations; there is always one at the end."""
    checkpoint: Count = Field(default=200, ge=1)
    """Between checkpoints."""


class TrainingConfig(Config):
    """What every training stage can be told."""

    sequence_length: Count = Field(default=256, ge=1)
    """Tokens a row."""
    batch_tokens: Count = Field(default=2048, ge=1)
    """Tokens a step."""
    optimizer: OptimizerConfig = OptimizerConfig()
    """Optimizer and peak learning rates."""
    schedule: ScheduleConfig = ScheduleConfig()
    """Shape of the learning rate over the run."""
    compute_dtype: ComputeDtype = "auto"
    """Type of the matrix products; weights are kept in float32. auto: bfloat16 where the hardware has it."""
    every: Cadence = Cadence()
    """Steps between metrics, validations and checkpoints."""

    @property
    def rows_per_step(self) -> int:
        """Rows of `sequence_length` tokens in a step; at least one."""
        return max(1, self.batch_tokens // self.sequence_length)

    @property
    def tokens_per_step(self) -> int:
        return self.rows_per_step * self.sequence_length


def no_check(step: int) -> dict[str, float]:
    """For stages without a validation of their own."""
    return {}


def train(
    model: Transformer,
    config: TrainingConfig,
    objective: Objective[Any],
    batches: Callable[[int], Sequence[Any]],
    num_steps: int,
    context: StageContext,
    *,
    tokenizer_folder: Path,
    tokenizer: Tokenizer,
    description: str,
    check: Check = no_check,
) -> dict[str, Any]:
    """Fit the model with a progress bar in tokens, write its folder to `context.output`; the metrics.

    `batches` gives the micro-batches of a step, a pure function of its number. Continues from the newest
    checkpoint of an attempt that was cut short.
    """
    plan = Plan(
        objective=objective,
        batches=batches,
        num_steps=num_steps,
        optimizer=config.optimizer,
        schedule=config.schedule,
        checkpoint_every=config.every.checkpoint,
    )
    num_tokens = num_steps * config.tokens_per_step
    _say_precision(model, context)
    with context.progress(description, num_tokens, "tokens") as progress:
        watch = TrainingWatch(
            context,
            progress,
            num_steps=num_steps,
            tokens_per_step=config.tokens_per_step,
            log_every=config.every.log,
            check_every=config.every.check,
            check=check,
        )
        checkpoints = Checkpoints(context.scratch / "checkpoints", say=context.say)
        result = fit(model, plan, checkpoints, watch)
    difference = write_model(model, context.output, tokenizer_folder, tokenizer, context.stage)
    done_tokens = (num_steps - result.first_step) * config.tokens_per_step
    return {
        "parameters": parameter_count(model.config),
        "steps": num_steps,
        "tokens": num_tokens,
        "loss": watch.last_loss,
        **watch.last_check,
        "compute_dtype": str(model.compute_dtype).removeprefix("torch."),
        "skipped_steps": len(result.skipped_steps),
        "tokens_per_s": done_tokens / max(result.wall_s, 1e-9),
        "flops": flops_per_token(model.config, config.sequence_length) * num_tokens,
        "reload_logit_difference": difference,
    }


def _say_precision(model: Transformer, context: StageContext) -> None:
    """Name the type of the products where it is not the one to expect on this hardware."""
    is_native = has_native_bfloat16(model.embedding.device)
    if model.compute_dtype == torch.bfloat16 and not is_native:
        context.say(
            "this processor has no bfloat16 arithmetic and emulates it a hundred times slower: "
            "leave compute_dtype at auto, or set it to float32"
        )
    elif model.compute_dtype == torch.float32 and not is_native:
        context.say("computing in float32: this processor has no bfloat16 arithmetic")


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
