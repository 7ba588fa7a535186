"""One step of a tiny model, in one process and in the processes of a layout: its loss and its gradients.

The rows are what hides faults least: documents of all lengths that cross every border, a tenth of the
targets not learnt, one row with a single target, a micro-batch a row. No weight has its starting value.
Gradients are compared, not weights: optimizers and clipping hide faults of scale.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from bessemer.model.config import MixtureConfig, ModelConfig
from bessemer.model.transformer import Transformer
from bessemer.objectives.language_modeling import IGNORE, LanguageModeling
from bessemer.training.batches import Batch, Row, rng, row_of_pieces, stack_rows
from bessemer.training.optimizers import OptimizerConfig
from bessemer.training.parallel.joined import whole_tensor
from bessemer.training.parallel.layout import Layout
from bessemer.training.parallel.together import Together

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
    kv_heads = num_processes * -(-4 // num_processes)  # four or more
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
            scale = 1.0 if name == "embedding" else 0.05
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
    """In the processes of a layout, by the code that training runs. Each has the whole model and all rows;
    both are divided here."""
    ranks, objective = Together(layout), LanguageModeling()
    trained = ranks.prepare(model, OptimizerConfig(), batches[0].token_ids_BT.shape[1])
    own = [ranks.own(batches[number]) for number in ranks.share.rows(range(len(batches)))]
    count, num_parts = ranks.counts(_count(own), len(own))
    loss, _ = ranks.gradients(objective, own, num_parts, 1 / count)
    gradients = {}
    for name, parameter in trained.named_parameters():
        gradients[name] = ranks.divided.whole(name, whole_tensor(_gradient(name, parameter)))
    return Step(ranks.sums([loss])[0], gradients)


def _count(batches: Sequence[Batch]) -> int:
    return sum(LanguageModeling().count(batch) for batch in batches)


def _gradient(name: str, parameter: Tensor) -> Tensor:
    assert parameter.grad is not None, f"{name} has no gradient"
    return parameter.grad
