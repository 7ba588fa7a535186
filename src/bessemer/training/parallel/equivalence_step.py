"""One step of a tiny model, in one process and in the processes of a layout: its loss and its gradients.

The rows are what hides faults least: documents of all lengths that cross every border, a tenth of the
targets not learnt, one row with a single target, a micro-batch a row. No weight has its starting value.
Gradients are compared, not weights: optimizers and clipping hide faults of scale.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from bessemer.model.config import MixtureConfig, ModelConfig
from bessemer.model.transformer import Transformer
from bessemer.objectives.language_modeling import IGNORE, LanguageModeling
from bessemer.training.batches import Batch, Row, rng, row_of_pieces, stack_rows
from bessemer.training.parallel.data import DataParallel, distribute
from bessemer.training.parallel.divided import Divided
from bessemer.training.parallel.layout import Layout
from bessemer.training.parallel.pipeline import Pipeline
from bessemer.training.parallel.ranks import Share

VOCABULARY, HEAD = 61, 8
"""61 is odd, so that no way of dividing it is even."""


@dataclass(frozen=True)
class Step:
    """What one step computed."""

    loss: float
    """Summed over the tokens of all rows."""
    gradients: dict[str, Tensor]
    """Of the mean loss, whole, by parameter; in a pipeline those of the layers held here."""


def tiny_config(num_processes: int, *, has_experts: bool) -> ModelConfig:
    """A model that so many processes can divide in every way."""
    kv_heads = max(4, num_processes)
    experts = MixtureConfig(
        num_experts=kv_heads, experts_per_token=2, expert_size=12, shared_size=24, balance_loss=0.5
    )
    return ModelConfig(
        vocab_size=VOCABULARY,
        hidden_size=2 * kv_heads * HEAD,
        # Two stages a process, in the schedules that have as many.
        num_hidden_layers=max(4, 2 * num_processes),
        num_attention_heads=2 * kv_heads,
        num_key_value_heads=kv_heads,
        head_dim=HEAD,
        intermediate_size=50,
        max_position_embeddings=tiny_row_tokens(num_processes),
        qk_norm=not has_experts,  # no published class has it together with a shared expert
        mixture=experts if has_experts else None,
    )


def tiny_row_tokens(num_processes: int) -> int:
    """Length of the rows: divides by the processes."""
    return 8 * max(3, num_processes)


def tiny_model(config: ModelConfig, device: torch.device) -> Transformer:
    """The same weights in every process."""
    model = Transformer(config).initialize(0)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            # Larger embeddings: norms of small ones amplify what is rounded.
            scale = 0.5 if name == "embedding" else 0.05
            parameter.add_(scale * torch.randn(parameter.shape, generator=generator))
    return model.to(device).train()


def tiny_batches(num_processes: int, device: torch.device) -> list[Batch]:
    """Micro-batches of a row each, two for every process."""
    rows = [_row(number, tiny_row_tokens(num_processes)) for number in range(2 * num_processes)]
    rows[1].targets[1:] = IGNORE
    rows[1].targets[0] = 7
    return [stack_rows([row]).to(device) for row in rows]


def _row(number: int, num_tokens: int) -> Row:
    """Packed documents of 1 to 13 tokens."""
    draw = rng(5, number)
    lengths = draw.integers(1, 14, num_tokens)
    whole = row_of_pieces([draw.integers(0, VOCABULARY, int(length)) for length in lengths])
    row = Row(*(values[:num_tokens].copy() for values in vars(whole).values()))
    row.targets[draw.random(num_tokens) < 0.1] = IGNORE
    return row


def step_alone(model: Transformer, batches: Sequence[Batch]) -> Step:
    """In this process, without any of the parallel code."""
    objective = LanguageModeling()
    count, total = _count(batches), 0.0
    for batch in batches:
        loss = objective.loss(model, batch)
        (loss.total / count).backward()
        total += loss.total.item()
    return Step(total, {name: _gradient(name, p) for name, p in model.named_parameters()})


def step_together(model: Transformer, batches: Sequence[Batch], layout: Layout) -> Step:
    """In the processes of a layout, each of which has the whole model and all rows; both are divided here."""
    config = layout.config
    divided = Divided(layout, model.config)
    divided.divide(model)
    share = Share(layout.place("data") * config.shard + layout.place("shard"), config.data * config.shard)
    own = [divided.part_of(batches[number]) for number in share.rows(range(len(batches)))]
    held, loss = (_in_pipeline if config.pipeline > 1 else _in_one_stage)(
        model, own, 1 / _count(batches), layout, divided
    )
    divided.sum_gradients(held)
    gradients = {}
    for name, parameter in held.named_parameters():
        value = _gradient(name, parameter)
        gradients[name] = divided.whole(name, value.full_tensor() if isinstance(value, DTensor) else value)
    total = torch.tensor(loss, dtype=torch.float64, device=batches[0].token_ids_BT.device)
    dist.all_reduce(total, group=_token_ranks(layout))
    return Step(float(total), gradients)


def _in_one_stage(
    model: Transformer, batches: Sequence[Batch], factor: float, layout: Layout, divided: Divided
) -> tuple[nn.Module, float]:
    """This process's gradients, summed over rows and parts of rows; and its loss."""
    has_own_sum = layout.config.expert > 1
    parallel: DataParallel | None = None if has_own_sum else distribute(model, layout)
    objective, total = LanguageModeling(), 0.0
    for place, batch in enumerate(batches, start=1):
        if parallel is None:
            loss = objective.loss(model, batch)
            (loss.total * factor).backward()
        else:
            with parallel.part(is_last=place == len(batches)):
                loss = parallel.loss(objective, batch)
                (loss.total * factor).backward()
        total += loss.total.item()
    if parallel is None:
        _sum_over_tokens(model, layout, divided)
    return model, total


def _in_pipeline(
    model: Transformer, batches: Sequence[Batch], factor: float, layout: Layout, divided: Divided
) -> tuple[nn.Module, float]:
    config, row_tokens = layout.config, batches[0].token_ids_BT.shape[1]
    pipeline = Pipeline(
        model, layout.mesh["pipeline"].get_group(), config.pipeline_schedule, context=row_tokens
    )
    held = pipeline.held()
    loss = pipeline.step(LanguageModeling(), batches, factor)
    _sum_over_tokens(held, layout, divided)
    return held, float(loss.total)


def _sum_over_tokens(model: nn.Module, layout: Layout, divided: Divided) -> None:
    """Gradients of all but the divided experts, over the ranks that see different tokens."""
    elsewhere = divided.divided_elsewhere(model)
    for name, parameter in model.named_parameters():
        if parameter not in elsewhere:
            dist.all_reduce(_gradient(name, parameter), group=_token_ranks(layout))


def _token_ranks(layout: Layout) -> dist.ProcessGroup:
    return layout.flat("data", "shard", "context").get_group()


def _count(batches: Sequence[Batch]) -> int:
    return sum(LanguageModeling().count(batch) for batch in batches)


def _gradient(name: str, parameter: Tensor) -> Tensor:
    assert parameter.grad is not None, f"{name} has no gradient"
    return parameter.grad
