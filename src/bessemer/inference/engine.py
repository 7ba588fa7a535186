"""Batched generation: prompts in, completions with log-probabilities out.

Rows that finish make room for waiting prompts, so the batch stays full. What a request yields
depends on its prompt, the sampling parameters, the seed and its index in the list of prompts, never on
who shares its batch (up to the rounding of matrix products of other shapes).

Shapes: B rows in the batch, T tokens, D hidden, V vocabulary.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from bessemer.errors import BessemerError
from bessemer.inference.cache import KeyValueCache, cache_bytes_per_row, surviving_order
from bessemer.inference.sampling import SamplingParams, log_probability, request_uniforms, sample
from bessemer.model.transformer import Transformer

StopReason = Literal["stop", "length"]
OnProgress = Callable[[int, int], None]


@dataclass(frozen=True)
class Completion:
    """What the model wrote after one prompt."""

    token_ids: list[int]
    """With the stop token, where there is one, as the last."""
    log_probabilities: list[float]
    """Of each token: the model's log-softmax over the full vocabulary at temperature 1, before top-k,
    top-p and temperature, as a trainer computes it."""
    stop_reason: StopReason
    """`stop`: ended with a stop token. `length`: reached max_new_tokens or the model's last position."""


@dataclass(frozen=True)
class _Draw:
    """What one step of the batch drew, one entry a row."""

    requests: np.ndarray
    tokens: np.ndarray
    log_probabilities: np.ndarray
    is_stopped: np.ndarray
    is_finished: np.ndarray


class Engine:
    """Generates with a model's current weights; they are read afresh at every call."""

    def __init__(
        self,
        model: Transformer,
        stop_ids: set[int],
        pad_id: int,
        *,
        max_rows: int = 128,
        max_prefill_tokens: int = 8_192,
        max_cache_bytes: int = 2 * 2**30,
    ) -> None:
        """`max_rows` bounds the batch, and so does `max_cache_bytes` (at least one row always runs);
        `max_prefill_tokens` bounds the prompts read at once, padding included."""
        self.model, self.stop_ids, self.pad_id = model, frozenset(stop_ids), pad_id
        self.max_rows, self.max_prefill_tokens = max_rows, max_prefill_tokens
        self.max_cache_bytes = max_cache_bytes

    def generate(
        self,
        prompts: Sequence[Sequence[int]],
        sampling: SamplingParams,
        seed: int,
        on_progress: OnProgress | None = None,
    ) -> list[Completion]:
        """One completion a prompt, in the order of the prompts.

        `on_progress` is called with (finished, total) whenever rows finish. Raises BessemerError that
        lists the prompts that are empty or leave no room for a new token.
        """
        token_ids: list[list[int]] = [[] for _ in prompts]
        log_probabilities: list[list[float]] = [[] for _ in prompts]
        stop_reasons: list[StopReason] = ["length"] * len(prompts)
        num_finished = 0
        for draw in _Batch(self, prompts, sampling, seed).run():
            rows = zip(
                draw.requests.tolist(), draw.tokens.tolist(), draw.log_probabilities.tolist(), strict=True
            )
            for request, token, log_p in rows:
                token_ids[request].append(token)
                log_probabilities[request].append(log_p)
            for request in draw.requests[draw.is_stopped].tolist():
                stop_reasons[request] = "stop"
            if on_progress is not None and draw.is_finished.any():
                num_finished += int(draw.is_finished.sum())
                on_progress(num_finished, len(prompts))
        return [
            Completion(*fields) for fields in zip(token_ids, log_probabilities, stop_reasons, strict=True)
        ]

    def stream(self, prompt: Sequence[int], sampling: SamplingParams, seed: int) -> Iterator[int]:
        """Tokens as they are drawn, the stop token included: those of `generate([prompt])`."""
        for draw in _Batch(self, [prompt], sampling, seed).run():
            yield int(draw.tokens[0])


class _Batch:
    """One call's state: the cache and, for every active row, its request and tokens drawn so far."""

    def __init__(
        self, engine: Engine, prompts: Sequence[Sequence[int]], sampling: SamplingParams, seed: int
    ) -> None:
        self.model = engine.model.in_compute_dtype()
        self.engine, self.prompts, self.sampling, self.seed = engine, prompts, sampling, seed
        config = self.model.config
        self.device, self.dtype = self.model.embedding.device, self.model.compute_dtype
        lengths = np.array([len(prompt) for prompt in prompts], dtype=np.int64)
        _check_lengths(lengths, config.max_position_embeddings)
        self.limits = np.minimum(sampling.max_new_tokens, config.max_position_embeddings - lengths)
        # Longest first: prompts that are read together are about as long as each other.
        self.waiting = sorted(range(len(prompts)), key=lambda request: len(prompts[request]))
        self.num_slots = int((lengths + self.limits).max(initial=1))
        row_bytes = cache_bytes_per_row(config, self.num_slots, self.dtype)
        affordable_rows = max(1, engine.max_cache_bytes // row_bytes)
        self.max_rows = max(1, min(engine.max_rows, affordable_rows, len(prompts)))
        self.cache = self._new_cache(self.max_rows, self.num_slots)
        self.requests = np.empty(0, dtype=np.int64)
        self.steps = np.empty(0, dtype=np.int64)
        self.last_tokens = np.empty(0, dtype=np.int64)
        self.stop_ids = np.array(sorted(engine.stop_ids), dtype=np.int64)

    def run(self) -> Iterator[_Draw]:
        """Draw until every request is finished. No inference mode is held while the caller runs."""
        # Reading few prompts costs almost as much as reading many: wait until some rows are free.
        worthwhile_rows = max(1, self.max_rows // 8)
        while self.waiting or len(self.requests):
            num_free = self.max_rows - len(self.requests)
            is_due = num_free >= min(worthwhile_rows, len(self.waiting)) or not len(self.requests)
            yield self._admit(num_free) if self.waiting and is_due else self._step()

    @torch.inference_mode()
    def _admit(self, num_free: int) -> _Draw:
        """Read waiting prompts, draw the first token of each, and add them to the batch."""
        longest = len(self.prompts[self.waiting[-1]])
        count = min(num_free, len(self.waiting), max(1, self.engine.max_prefill_tokens // longest))
        requests = [self.waiting.pop() for _ in range(count)]
        lengths = np.array([len(self.prompts[request]) for request in requests], dtype=np.int64)
        token_ids = np.full((count, longest), self.engine.pad_id, dtype=np.int64)
        for row, request in enumerate(requests):
            token_ids[row, : lengths[row]] = self.prompts[request]
        cache = self._new_cache(count, longest)
        cache.open_rows(count)
        hidden_BTD = self.model(self._tensor(token_ids), cache=cache)
        lengths_B = self._tensor(lengths)
        cache.advance(lengths_B)
        last_BD = hidden_BTD[torch.arange(count, device=self.device), lengths_B - 1]
        self.cache.append(cache)
        draw = self._draw(last_BD, np.array(requests), np.zeros(count, dtype=np.int64))
        self.requests = np.concatenate((self.requests, draw.requests))
        self.steps = np.concatenate((self.steps, np.ones(count, dtype=np.int64)))
        self.last_tokens = np.concatenate((self.last_tokens, draw.tokens))
        num_old = len(self.requests) - count
        self._drop(np.concatenate((np.zeros(num_old, dtype=bool), draw.is_finished)))
        return draw

    @torch.inference_mode()
    def _step(self) -> _Draw:
        """One token for every active row."""
        hidden_BTD = self.model(self._tensor(self.last_tokens).unsqueeze(1), cache=self.cache)
        self.cache.advance(1)
        draw = self._draw(hidden_BTD[:, 0], self.requests, self.steps)
        self.steps, self.last_tokens = self.steps + 1, draw.tokens
        self._drop(draw.is_finished)
        return draw

    def _draw(self, hidden_BD: Tensor, requests: np.ndarray, steps: np.ndarray) -> _Draw:
        logits_BV = self.model.logits(hidden_BD)
        uniforms_B = self._tensor(request_uniforms(self.seed, requests, steps))
        tokens_B = sample(logits_BV, self.sampling, uniforms_B)
        log_probabilities = log_probability(logits_BV, tokens_B).cpu().numpy()
        tokens = tokens_B.cpu().numpy()
        is_stopped = np.isin(tokens, self.stop_ids)
        is_finished = is_stopped | (steps + 1 >= self.limits[requests])
        return _Draw(requests, tokens, log_probabilities, is_stopped, is_finished)

    def _drop(self, is_finished: np.ndarray) -> None:
        """Remove finished rows from the cache and the bookkeeping alike."""
        if not is_finished.any():
            return
        rows = torch.from_numpy(np.flatnonzero(~is_finished))
        self.cache.keep(rows.to(self.device))
        order = surviving_order(rows).numpy()
        self.requests, self.steps = self.requests[order], self.steps[order]
        self.last_tokens = self.last_tokens[order]

    def _new_cache(self, max_rows: int, num_slots: int) -> KeyValueCache:
        return KeyValueCache(self.model.config, max_rows, num_slots, self.dtype, self.device)

    def _tensor(self, values: np.ndarray) -> Tensor:
        return torch.from_numpy(values).to(self.device)


def _check_lengths(lengths: np.ndarray, max_positions: int) -> None:
    empty = np.flatnonzero(lengths == 0).tolist()
    too_long = np.flatnonzero(lengths >= max_positions).tolist()
    problems = [f"prompt {index} is empty: give at least one token, such as <bos>" for index in empty] + [
        f"prompt {index} has {lengths[index]} tokens and leaves no room within the model's "
        f"{max_positions} positions: shorten it"
        for index in too_long
    ]
    if problems:
        raise BessemerError("cannot generate:\n  " + "\n  ".join(problems))
