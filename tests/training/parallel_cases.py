"""Models of every shape, and a batch whose documents cross every border, for comparing one process with
several: loss and gradients of the same weights on the same tokens."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import wraps
from typing import Any

import torch
from torch import Tensor

from bessemer.model.config import MixtureConfig, ModelConfig
from bessemer.model.kernels import torch_operations
from bessemer.model.transformer import Transformer
from bessemer.objectives.language_modeling import IGNORE, LanguageModeling
from bessemer.training.batches import Batch

_BASE = {
    "vocab_size": 61,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "head_dim": 8,
    "intermediate_size": 50,
    "max_position_embeddings": 64,
}
_EXPERTS = MixtureConfig(num_experts=4, experts_per_token=2, expert_size=12, shared_size=24, balance_loss=0.5)
CASES = {
    "grouped heads": ModelConfig(**_BASE, qk_norm=True),
    "biases, untied": ModelConfig(
        **_BASE, tie_word_embeddings=False, attention_bias=True, attention_out_bias=True, mlp_bias=True
    ),
    "window": ModelConfig(**_BASE, sliding_window=5, window_layers=(1,)),
    "future tokens": ModelConfig(**_BASE, future_tokens=2),
    "gpt2": ModelConfig(**(_BASE | {"family": "gpt2", "num_key_value_heads": 8, "hidden_size": 64})),
    "experts": ModelConfig(**_BASE, mixture=_EXPERTS),
    "sigmoid experts": ModelConfig(
        **_BASE,
        qk_norm=True,
        mixture=_EXPERTS.model_copy(
            update={"scores": "sigmoid", "balance_loss": 0.01, "balance_rate": 0.01, "dense_layers": (0,)}
        ),
    ),
}


@dataclass
class Step:
    """One forward and backward pass."""

    loss: float
    """Summed over the tokens."""
    gradients: dict[str, Tensor]
    sums: dict[str, float] = field(default_factory=dict)


@contextmanager
def operations(world_size: int) -> Iterator[None]:
    """Two processes run this project's kernels, and more run torch's operations: loading the kernels takes
    every process seconds."""
    with nullcontext() if world_size == 2 else torch_operations():
        yield


def with_torch_operations(function: Callable[..., Any]) -> Callable[..., Any]:
    """For functions on ranks that compare no gradients with those of kernels."""

    @wraps(function)
    def run(*args: Any) -> Any:
        with torch_operations():
            return function(*args)

    return run


def every_call(rank: int, world_size: int, calls: list[tuple[Any, ...]]) -> dict[tuple[Any, ...], Any]:
    """What each (function, *arguments) returns on this rank: processes start once for many tests."""
    return {call: call[0](rank, world_size, *call[1:]) for call in calls}


def build(case: str) -> Transformer:
    """The same weights in every process, none at its starting value."""
    model = Transformer(CASES[case]).initialize(0)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            # Larger embeddings: norms of small ones amplify what is rounded.
            scale = 0.5 if name == "embedding" else 0.05
            parameter.add_(scale * torch.randn(parameter.shape, generator=generator))
    return model.train()


def packed_batch(num_rows: int = 2, num_tokens: int = 24, seed: int = 0, vocab_size: int = 61) -> Batch:
    """Rows of documents of 1 to 13 tokens; a tenth of the targets is not learnt."""
    generator = torch.Generator().manual_seed(seed)
    ids_BT = torch.randint(vocab_size, (num_rows, num_tokens + 1), generator=generator)
    documents_BT, positions_BT = torch.zeros(2, num_rows, num_tokens + 1, dtype=torch.int64)
    for row in range(num_rows):
        start, document = 0, 0
        while start <= num_tokens:
            length = int(torch.randint(1, 14, (), generator=generator))
            stop = min(start + length, num_tokens + 1)
            documents_BT[row, start:stop] = document
            positions_BT[row, start:stop] = torch.arange(stop - start)
            start, document = stop, document + 1
    is_same_BT = documents_BT[:, 1:] == documents_BT[:, :-1]
    is_learnt_BT = torch.rand(is_same_BT.shape, generator=generator) > 0.1
    targets_BT = torch.where(is_same_BT & is_learnt_BT, ids_BT[:, 1:], IGNORE)
    return Batch(ids_BT[:, :-1], targets_BT, documents_BT[:, :-1].int(), positions_BT[:, :-1])


def one_step(model: Transformer, batch: Batch, divisor: float = 1.0) -> Step:
    """Loss and gradients as the training loop has them: summed, then divided by the count of all processes.

    Gradients are added to those that are there already."""
    loss = LanguageModeling().loss(model, batch)
    (loss.total / divisor).backward()
    return Step(float(loss.total.detach()), gradients(model), loss.sums)


def gradients(model: Transformer) -> dict[str, Tensor]:
    found = {}
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, f"{name} has no gradient"
        found[name] = parameter.grad.clone()
    return found


def assert_same(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> None:
    """Every gradient differs by at most 1e-6 of the largest of all, and by 3e-6 of the largest of its own
    parameter: float32 sums in another order (one process, with torch's operations and with this project's
    kernels, differs by up to 5e-7 and 1e-6)."""
    assert ours.keys() == theirs.keys()
    largest_of_all = max(float(gradient.abs().max()) for gradient in theirs.values())
    for name, gradient in theirs.items():
        assert gradient.shape == ours[name].shape, name
        largest, difference = float(gradient.abs().max()), float((ours[name] - gradient).abs().max())
        assert largest > 0, f"{name} has a zero gradient: the comparison would say nothing"
        assert difference <= 1e-6 * largest_of_all, f"{name}: {difference / largest_of_all:.2e} of all"
        assert difference <= 3e-6 * largest, f"{name}: {difference / largest:.2e} of its own"
