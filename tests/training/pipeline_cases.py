"""Pipelines to compare with one process: what each rank does, and what one process would."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from bessemer.model.config import MixtureConfig, ModelConfig
from bessemer.model.kernels import torch_operations
from bessemer.model.transformer import Transformer
from bessemer.objectives.base import LossSum
from bessemer.objectives.language_modeling import IGNORE, LanguageModeling
from bessemer.objectives.preference import DirectPreference, PairBatch
from bessemer.training.batches import Batch, Row, row_of_pieces, stack_rows
from bessemer.training.parallel.pipeline import Pipeline, PipelineSchedule
from bessemer.training.recompute import RecomputeConfig, recompute

EXPERTS = MixtureConfig(num_experts=4, experts_per_token=2, expert_size=16, balance_loss=0.5)


@dataclass(frozen=True)
class PipelineCase:
    """A model, how it is cut, and how its micro-batches pass through."""

    schedule: PipelineSchedule
    changes: dict[str, Any] = field(default_factory=dict)
    """From the tiny model's config."""
    layers: tuple[int, ...] | None = None
    """Of each stage; None: balanced."""
    batches: str = "uneven"
    recompute: RecomputeConfig = field(default_factory=RecomputeConfig)
    factor: float = 1.0


@dataclass(frozen=True)
class Outcome:
    """Of one step and one validation, on one rank or in one process."""

    loss: LossSum
    gradients: dict[str, Tensor]
    validation: LossSum
    layers: tuple[int, ...] = ()
    copies: frozenset[str] = frozenset()


def build(case: PipelineCase) -> Transformer:
    """The same weights in every process, none at its starting value."""
    shape = {
        "vocab_size": 61,
        "hidden_size": 32,
        "num_hidden_layers": 5,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 8,
        "intermediate_size": 48,
        "max_position_embeddings": 64,
        "qk_norm": True,
    }
    model = Transformer(ModelConfig(**(shape | case.changes))).initialize(0)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    model.around_block = recompute(case.recompute, lambda block, *inputs: block(*inputs))
    return model.train()


def packed_batch(num_rows: int, num_tokens: int, seed: int, vocab_size: int = 61) -> Batch:
    """Rows of documents of 1 to 12 tokens; a tenth of the targets is not learnt."""
    generator = torch.Generator().manual_seed(seed)
    rows = []
    for _ in range(num_rows):
        lengths = torch.randint(1, 13, (num_tokens,), generator=generator).tolist()
        pieces = [torch.randint(vocab_size, (length,), generator=generator).numpy() for length in lengths]
        whole = row_of_pieces(pieces)
        rows.append(Row(*(values[:num_tokens] for values in vars(whole).values())))
    batch = stack_rows(rows)
    is_left_out_BT = torch.rand(batch.targets_BT.shape, generator=generator) < 0.1
    return replace(batch, targets_BT=batch.targets_BT.masked_fill(is_left_out_BT, IGNORE))


def micro_batches(kind: str) -> list[Batch]:
    """Micro-batches that differ in targets, and where they are uneven in rows and tokens too."""
    if kind == "even":
        return [packed_batch(2, 16, seed=seed) for seed in range(4)]
    batches = [packed_batch(rows, tokens, seed=rows) for rows, tokens in ((2, 24), (1, 24), (3, 16), (2, 24))]
    few = batches[3].targets_BT.clone()
    few[:, 1:] = IGNORE
    few[:, 0] = 7
    none = torch.full_like(batches[1].targets_BT, IGNORE)
    batches[1] = replace(batches[1], targets_BT=none)
    batches[3] = replace(batches[3], targets_BT=few)
    return batches


def in_one_process(case: PipelineCase) -> Outcome:
    """The same without a pipeline."""
    model, objective, batches = build(case), LanguageModeling(), micro_batches(case.batches)
    losses = [objective.loss(model, batch) for batch in batches]
    for loss in losses:
        (loss.total * case.factor).backward()
    with torch.no_grad():
        validation = [objective.loss(model, batch) for batch in batches]
    return Outcome(_summed(losses), gradients(model), _summed(validation))


def on_a_rank(rank: int, world_size: int, cases: Sequence[PipelineCase]) -> list[Outcome]:
    """Every case on this rank of the default group."""
    outcomes = []
    for case in cases:
        pipeline = Pipeline(build(case), dist.group.WORLD, case.schedule, case.layers, context=24)
        objective, batches = LanguageModeling(), micro_batches(case.batches)
        held = pipeline.held()
        loss = pipeline.step(objective, batches, case.factor)
        found = gradients(held)
        validation = pipeline.evaluate(objective, batches)
        outcomes.append(Outcome(loss, found, validation, pipeline.layers, pipeline.copies))
    return outcomes


def on_two(
    rank: int, world_size: int, cases: Sequence[PipelineCase], schedules: Sequence[PipelineSchedule]
) -> Any:
    """All that is asked of two ranks, for processes take longer to start than to compute."""
    return (
        on_a_rank(rank, world_size, cases),
        step_again_and_again(rank, world_size, schedules),
        preference_on_a_rank(rank, world_size),
    )


def on_four(rank: int, world_size: int, cases: Sequence[PipelineCase]) -> list[Outcome]:
    """With torch's operations: loading this project's kernels takes every process seconds."""
    with torch_operations():
        return on_a_rank(rank, world_size, cases)


def step_again_and_again(
    rank: int, world_size: int, schedules: Sequence[PipelineSchedule]
) -> list[tuple[dict[str, Tensor], ...]]:
    """Gradients of this rank after a step, after a validation and the same step again without clearing them,
    and after a step over other numbers of micro-batches."""
    outcomes = []
    for schedule in schedules:
        pipeline = Pipeline(build(PipelineCase(schedule)), dist.group.WORLD, schedule, context=24)
        objective, batches, held = LanguageModeling(), micro_batches("even"), pipeline.held()
        gradients_now = []
        for part in (batches, batches, batches * 2):
            pipeline.step(objective, part)
            gradients_now.append(gradients(held))
            pipeline.evaluate(objective, part[:1])
        outcomes.append(tuple(gradients_now))
    return outcomes


def pairs(seed: int) -> PairBatch:
    """Three pairs: the answers of a pair are the two documents of a row."""
    generator = torch.Generator().manual_seed(seed)
    pieces = [[torch.randint(61, (size,), generator=generator).numpy() for size in (8, 9)] for _ in range(3)]
    places_P, zeros_P = torch.arange(3), torch.zeros(3)
    batch = stack_rows([row_of_pieces(row) for row in pieces])
    return PairBatch(batch, 2, 2 * places_P, 2 * places_P + 1, zeros_P, zeros_P, torch.full((3,), 7))


def preference_on_a_rank(rank: int, world_size: int) -> tuple[LossSum, dict[str, Tensor], frozenset[str]]:
    """An objective of other batches than those of language modelling."""
    pipeline = Pipeline(build(PipelineCase("1f1b")), dist.group.WORLD, context=24)
    loss = pipeline.step(DirectPreference(0.1, chosen_weight=0.5), [pairs(seed) for seed in range(3)])
    return loss, gradients(pipeline.held()), pipeline.copies


def preference_in_one_process() -> tuple[LossSum, dict[str, Tensor]]:
    model, objective = build(PipelineCase("1f1b")), DirectPreference(0.1, chosen_weight=0.5)
    losses = [objective.loss(model, pairs(seed)) for seed in range(3)]
    for loss in losses:
        loss.total.backward()
    return _summed(losses), gradients(model)


def gradients(module: nn.Module) -> dict[str, Tensor]:
    """A copy of every parameter's gradient."""
    found = {}
    for name, parameter in module.named_parameters():
        assert parameter.grad is not None, f"{name} has no gradient"
        found[name] = parameter.grad.clone()
    return found


def worst_difference(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> tuple[float, str]:
    """The largest difference over all parameters, over the largest gradient of its parameter; and where."""
    assert ours.keys() == theirs.keys()
    found = (0.0, "")
    for name, gradient in theirs.items():
        largest = float(gradient.abs().max())
        assert largest > 0, f"{name} has a zero gradient: the comparison would say nothing"
        found = max(found, (float((ours[name] - gradient).abs().max()) / largest, name))
    return found


def _summed(losses: Sequence[LossSum]) -> LossSum:
    sums: dict[str, float] = {}
    for loss in losses:
        for name, value in loss.sums.items():
            sums[name] = sums.get(name, 0.0) + value
    total = sum(float(loss.total.detach()) for loss in losses)
    return LossSum(torch.tensor(total, dtype=torch.float64), sums)
