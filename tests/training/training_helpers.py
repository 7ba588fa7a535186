"""A tiny run of the training loop: model, plan and folder decide every byte."""

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor

from bessemer.model.config import ModelConfig
from bessemer.model.precision import resolve_dtype
from bessemer.model.transformer import Transformer
from bessemer.objectives.language_modeling import LanguageModeling
from bessemer.training.batches import Batch
from bessemer.training.checkpoint import Checkpoints
from bessemer.training.guard import GuardConfig
from bessemer.training.loop import FitResult, Plan, StepReport, fit
from bessemer.training.optimizers import OptimizerConfig
from bessemer.training.schedules import ScheduleConfig

VOCAB_SIZE = 32


def plain_batch(token_ids_BT: Tensor, targets_BT: Tensor) -> Batch:
    """Rows of one document each."""
    num_rows, num_tokens = token_ids_BT.shape
    return Batch(
        token_ids_BT=token_ids_BT,
        targets_BT=targets_BT,
        documents_BT=torch.zeros(num_rows, num_tokens, dtype=torch.int32),
        positions_BT=torch.arange(num_tokens).repeat(num_rows, 1),
    )


def random_batches(step: int) -> list[Batch]:
    """Two micro-batches that depend on the step alone."""
    generator = torch.Generator().manual_seed(step)
    ids_BT = torch.randint(VOCAB_SIZE, (4, 17), generator=generator)
    return plain_batch(ids_BT[:, :-1], ids_BT[:, 1:]).split(2)


def new_model(dtype: torch.dtype = torch.float32, seed: int = 0, vocab_size: int = VOCAB_SIZE) -> Transformer:
    config = ModelConfig(
        vocab_size=vocab_size,
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=64,
        qk_norm=True,
    )
    return Transformer(config, dtype).initialize(seed)


MUON_ROUNDING = 1e-3 if resolve_dtype("auto", torch.device("cpu")) == torch.float32 else 3e-2
"""Of the way that Muon moves a matrix: what sums in another order may change. It orthogonalises in bfloat16
where the processor has it."""


def plan(
    num_steps: int,
    batches: Callable[[int], Sequence[Batch]] = random_batches,
    *,
    checkpoint_every: int = 1000,
    optimizer: OptimizerConfig | None = None,
    guard: GuardConfig | None = None,
) -> Plan[Batch]:
    return Plan(
        objective=LanguageModeling(),
        batches=batches,
        num_steps=num_steps,
        optimizer=optimizer or OptimizerConfig(weight_decay=0.01),
        schedule=ScheduleConfig(warmup=0.1),
        checkpoint_every=checkpoint_every,
        guard=guard or GuardConfig(),
    )


class Reports:
    """Keeps the report of every step, and may do something after one."""

    def __init__(self, then: Callable[[StepReport], None] = lambda report: None) -> None:
        self.all: list[StepReport] = []
        self._then = then

    def step(self, report: StepReport) -> None:
        self.all.append(report)
        self._then(report)


def run(
    model: Transformer, the_plan: Plan[Batch], folder: Path, watch: Reports | None = None
) -> tuple[FitResult, list[str]]:
    """Fit with checkpoints in `folder`; the result, and what the checkpoints had to say."""
    said: list[str] = []
    return fit(model, the_plan, Checkpoints(folder, say=said.append), watch or Reports()), said


def weights(model: Transformer) -> dict[str, bytes]:
    """Every parameter, bit by bit."""
    return {name: value.detach().numpy().tobytes() for name, value in model.named_parameters()}
