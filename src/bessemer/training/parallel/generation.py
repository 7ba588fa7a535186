"""Completions of a divided model: every process has a cache of the keys and values of the heads and layers
that it holds, all work on all rows, and all are told the same tokens.

Shapes: B rows that are not finished, T tokens, D hidden, V vocabulary.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn

from bessemer.inference.cache import KeyValueCache, surviving_order
from bessemer.inference.sampling import SamplingParams, request_uniforms, sample
from bessemer.model.config import ModelConfig
from bessemer.model.transformer import Transformer
from bessemer.training.parallel.context import with_rows_undivided
from bessemer.training.parallel.tensor import with_whole_rows


class Reader(Protocol):
    """A model that goes on from what a cache holds, as one process knows it. All processes of the model make
    the same calls."""

    @property
    def config(self) -> ModelConfig: ...
    @property
    def device(self) -> torch.device: ...

    def new_cache(self, num_rows: int, num_slots: int) -> KeyValueCache:
        """For what is held here."""
        ...

    def hidden(self, token_ids_BT: Tensor, cache: KeyValueCache) -> Tensor | None:
        """Hidden states [B, T, D] after tokens that go on from the cache's rows; None where another process
        has them."""
        ...

    def logits(self, hidden_BD: Tensor) -> Tensor:
        """float32 [B, V], where there are hidden states."""
        ...

    def shared(self, tokens_B: Tensor) -> Tensor:
        """The tokens of the process that has hidden states, on all."""
        ...


class WholeReader:
    """This process has all layers, perhaps with a share of the heads."""

    def __init__(self, model: Transformer, num_kv_heads: int) -> None:
        """`num_kv_heads` key/value heads are held here."""
        self._model, self._num_kv_heads = model, num_kv_heads
        self.config, self.device = model.config, model.device

    def new_cache(self, num_rows: int, num_slots: int) -> KeyValueCache:
        held = self.config.model_copy(update={"num_key_value_heads": self._num_kv_heads})
        return KeyValueCache(held, num_rows, num_slots, self._model.compute_dtype, self.device)

    def hidden(self, token_ids_BT: Tensor, cache: KeyValueCache) -> Tensor | None:
        return self._model(token_ids_BT, cache=cache)

    def logits(self, hidden_BD: Tensor) -> Tensor:
        return self._model.logits(hidden_BD)

    def shared(self, tokens_B: Tensor) -> Tensor:
        return tokens_B


@contextmanager
def whole_rows(modules: Sequence[nn.Module]) -> Iterator[None]:
    """Within it, modules between whose processes rows are divided take whole rows of any length, without
    gradients."""
    with ExitStack() as stack:
        for module in modules:
            stack.enter_context(with_whole_rows(module))
            stack.enter_context(with_rows_undivided(module))
        yield


# Not in inference mode: what FSDP gathers into would then be of no use to training.
@torch.no_grad()
def generate(
    model: Reader,
    prompts: Sequence[Sequence[int]],
    sampling: SamplingParams,
    seed: int,
    stop_ids: set[int],
    agreed: Callable[[Tensor], Tensor],
) -> list[list[int]]:
    """What `bessemer.inference.engine.Engine.generate` draws, stop tokens included. Called by all processes.

    The model takes whole rows. `agreed` gives every process the first one's tokens: where machines round
    differently, they would otherwise part ways.
    """
    lengths_B = torch.tensor([len(prompt) for prompt in prompts], device=model.device)
    longest = model.config.max_position_embeddings
    limits = [min(sampling.max_new_tokens, longest - len(prompt)) for prompt in prompts]
    answers: list[list[int]] = [[] for _ in prompts]
    num_slots = max(len(prompt) + limit for prompt, limit in zip(prompts, limits, strict=True))
    cache = model.new_cache(len(prompts), num_slots)
    cache.open_rows(len(prompts))
    hidden_BTD, last_B = model.hidden(_padded(prompts).to(model.device), cache), lengths_B - 1
    cache.advance(lengths_B)
    requests = np.arange(len(prompts))
    while True:
        tokens_B = torch.zeros(len(requests), dtype=torch.int64, device=model.device)
        if hidden_BTD is not None:
            logits_BV = model.logits(hidden_BTD[torch.arange(len(requests), device=model.device), last_B])
            steps = np.array([len(answers[request]) for request in requests])
            uniforms_B = torch.from_numpy(request_uniforms(seed, requests, steps)).to(model.device)
            tokens_B = sample(logits_BV, sampling, uniforms_B)
        tokens_B = agreed(model.shared(tokens_B))
        is_open = []
        for request, token in zip(requests, tokens_B.tolist(), strict=True):
            answers[request].append(token)
            is_open.append(token not in stop_ids and len(answers[request]) < limits[request])
        rows = torch.tensor(is_open).nonzero().squeeze(1)
        if not len(rows):
            return answers
        if len(rows) < len(requests):
            cache.keep(rows.to(model.device))
            order = surviving_order(rows)
            requests, tokens_B = requests[order.numpy()], tokens_B[order.to(model.device)]
        hidden_BTD, last_B = model.hidden(tokens_B.unsqueeze(1), cache), torch.zeros_like(tokens_B)
        cache.advance(1)


def _padded(prompts: Sequence[Sequence[int]]) -> Tensor:
    """int64 [B, T]."""
    longest = max(len(prompt) for prompt in prompts)
    return torch.tensor([[*prompt, *[0] * (longest - len(prompt))] for prompt in prompts])
