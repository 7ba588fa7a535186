"""What every training stage can be told."""

from typing import Literal

from pydantic import Field, field_validator, model_validator

from bessemer.config import Config, Count
from bessemer.errors import BessemerError
from bessemer.model.precision import ComputeDtype
from bessemer.training.average import AverageConfig
from bessemer.training.batch_sizes import BatchSizes, BatchWarmup
from bessemer.training.guard import GuardConfig
from bessemer.training.optimizers import OptimizerConfig
from bessemer.training.parallel.layout import ParallelConfig, check_rows
from bessemer.training.recompute import RecomputeConfig
from bessemer.training.schedules import ScheduleConfig
from bessemer.training.sinks import SinkName, missing_packages


class Cadence(Config):
    """How often a training stage reports and saves, in steps."""

    log: Count = Field(default=20, ge=1)
    """Between lines of metrics."""
    check: Count = Field(default=400, ge=1)
    """Between validations; there is always one at the end."""
    checkpoint: Count = Field(default=200, ge=1)
    """Between checkpoints."""
    milestone: Count | None = Field(default=None, ge=1)
    """Between model folders that are kept for good, in `milestones/`; a multiple of `checkpoint`."""


class TrainingConfig(Config):
    """What every training stage can be told."""

    sequence_length: Count = Field(default=256, ge=1)
    """Tokens a row."""
    batch_tokens: Count = Field(default=2048, ge=1)
    """Tokens a step."""
    batch_warmup: BatchWarmup | None = None
    """Begin with smaller batches."""
    micro_batch_tokens: Count | None = Field(default=None, ge=1)
    """Tokens computed at once: a step's batch is cut into as many parts as that takes, to save memory. The
    result is the same up to rounding."""
    optimizer: OptimizerConfig = OptimizerConfig()
    """Optimizer and peak learning rates."""
    schedule: ScheduleConfig = ScheduleConfig()
    """Shape of the learning rate over the run."""
    compute_dtype: ComputeDtype = "auto"
    """Type of the matrix products; weights are kept in float32. auto: bfloat16 where the hardware has
    it, else float32. float16 trains with loss scaling."""
    recompute: RecomputeConfig = RecomputeConfig()
    """Activations to compute again in the backward pass, to save memory."""
    compile: Literal["off", "blocks"] = "off"
    """blocks: compile the model's blocks with torch.compile, where that works. Pays on a GPU; on a CPU the
    project's own kernels are faster."""
    float8: Literal["off", "blocks"] = "off"
    """blocks: the products of the blocks' matrices in 8 bits, for GPUs that have it (Ada, Hopper and later).
    Weights stay float32. Not with parallel.tensor."""
    parallel: ParallelConfig = ParallelConfig()
    """Processes that train together. Not part of what the result is made from: another layout continues the
    same run."""
    guard: GuardConfig = GuardConfig()
    """What is done about steps that would harm the model."""
    average: AverageConfig | None = None
    """Keep a moving average of the weights, and export it."""
    every: Cadence = Cadence()
    """Steps between metrics, validations and checkpoints."""
    report_to: tuple[SinkName, ...] = ()
    """Tools that get the metrics too: tensorboard, wandb, mlflow, trackio."""

    @property
    def rows_per_step(self) -> int:
        """Rows of `sequence_length` tokens in a full step; at least one."""
        return max(1, self.batch_tokens // self.sequence_length)

    @property
    def tokens_per_step(self) -> int:
        return self.rows_per_step * self.sequence_length

    @property
    def batch_sizes(self) -> BatchSizes:
        """Rows of each step."""
        warmup = self.batch_warmup
        if warmup is None:
            return BatchSizes(self.rows_per_step, self.rows_per_step)
        start = max(1, warmup.start_tokens // self.sequence_length)
        return BatchSizes(self.rows_per_step, start, warmup.steps)

    def num_parts(self, num_rows: int) -> int:
        """Micro-batches that `num_rows` rows are computed in."""
        if self.micro_batch_tokens is None:
            return 1
        return -(-num_rows // max(1, self.micro_batch_tokens // self.sequence_length))

    @field_validator("report_to")
    @classmethod
    def _tools_are_installed(cls, names: tuple[SinkName, ...]) -> tuple[SinkName, ...]:
        """Now, not after the hours that come before this stage."""
        if missing := missing_packages(names):
            raise ValueError(missing)
        return names

    @model_validator(mode="after")
    def _agrees_with_itself(self) -> "TrainingConfig":
        problems = self._contradictions()
        if problems:
            raise ValueError("; ".join(problems))
        return self

    def _contradictions(self) -> list[str]:
        """Settings that cannot all be meant, each with its mend. Stages add their own."""
        problems = []
        every, schedule = self.every, self.schedule
        try:
            smallest = "batch_tokens" if self.batch_warmup is None else "batch_warmup.start_tokens"
            check_rows(self.parallel, self.batch_sizes.rows(0), self.sequence_length, smallest)
        except BessemerError as error:
            problems.append(str(error))
        if every.milestone is not None and every.milestone % every.checkpoint:
            problems.append(
                f"every.milestone {every.milestone} is no multiple of every.checkpoint {every.checkpoint}: "
                "milestones are written with checkpoints, so make it one"
            )
        if self.float8 != "off" and self.parallel.tensor > 1:
            problems.append(
                "float8 multiplies whole matrices, and parallel.tensor divides them: set float8 to off, or "
                "use parallel.shard"
            )
        patience, most = self.guard.patience, self.guard.max_skipped
        if self.guard.spikes == "rewind" and patience > most:
            problems.append(
                f"guard.patience {patience} is more than guard.max_skipped {most}: the run would stop before "
                "it rewinds, so lower the first"
            )
        if schedule.shape == "wsd" and schedule.warmup + schedule.decay > 1:
            problems.append(
                f"schedule.warmup {schedule.warmup:g} and schedule.decay {schedule.decay:g} are shares of a "
                "run, and together more than all of it: lower one of them"
            )
        if self.batch_warmup is not None and self.batch_warmup.start_tokens > self.batch_tokens:
            problems.append(
                f"batch_warmup.start_tokens {self.batch_warmup.start_tokens} is more than batch_tokens "
                f"{self.batch_tokens}: the batch grows from one to the other, so lower the first"
            )
        if self.batch_tokens < self.sequence_length:
            problems.append(
                f"batch_tokens {self.batch_tokens} is less than one row of sequence_length "
                f"{self.sequence_length}: raise it, or shorten the rows"
            )
        if self.micro_batch_tokens is not None and self.micro_batch_tokens < self.sequence_length:
            problems.append(
                f"micro_batch_tokens {self.micro_batch_tokens} is less than one row of sequence_length "
                f"{self.sequence_length}: raise it, or shorten the rows"
            )
        return problems

    def remarks(self) -> list[str]:
        optimizer, schedule, recompute = self.optimizer, self.schedule, self.recompute
        without_effect = {
            f"optimizer.{name}, which is Muon's, with optimizer.kind adamw": is_set(optimizer, name)
            for name in ("muon_learning_rate", "muon_momentum", "muon_momentum_warmup")
            if optimizer.kind == "adamw"
        }
        if schedule.shape != "wsd":
            text = f"schedule.decay, which is that of shape wsd, with shape {schedule.shape}"
            without_effect[text] = is_set(schedule, "decay")
        if recompute.kind == "none":
            without_effect["recompute.every with recompute.kind none"] = is_set(recompute, "every")
        return [f"{text}, has no effect: leave it out" for text, is_it in without_effect.items() if is_it]


def is_set(config: Config, name: str) -> bool:
    """Whether a field differs from its default; a resolved recipe writes every default out."""
    return getattr(config, name) != type(config).model_fields[name].default
