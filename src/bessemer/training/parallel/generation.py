"""Completions of a model that processes divide by tensors, shards or experts: every process has a cache of
the keys and values of the heads that it holds, and all draw the same tokens.

Shapes: B rows that are not finished, T tokens, D hidden, V vocabulary.
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from bessemer.inference.cache import KeyValueCache, surviving_order
from bessemer.inference.sampling import SamplingParams, request_uniforms, sample
from bessemer.model.transformer import Transformer


# Not in inference mode: what FSDP gathers into would then be of no use to training.
@torch.no_grad()
def generate(
    model: Transformer,
    num_kv_heads: int,
    prompts: Sequence[Sequence[int]],
    sampling: SamplingParams,
    seed: int,
    stop_ids: set[int],
    agreed: Callable[[Tensor], Tensor],
) -> list[list[int]]:
    """What `bessemer.inference.engine.Engine.generate` draws, stop tokens included. Called by all processes.

    The model takes whole rows; `num_kv_heads` of its heads are held here. `agreed` gives every process the
    first one's tokens: where machines round differently, they would otherwise part ways.
    """
    lengths = [len(prompt) for prompt in prompts]
    longest = model.config.max_position_embeddings
    limits = [min(sampling.max_new_tokens, longest - length) for length in lengths]
    answers: list[list[int]] = [[] for _ in prompts]
    num_slots = max(length + limit for length, limit in zip(lengths, limits, strict=True))
    held = model.config.model_copy(update={"num_key_value_heads": num_kv_heads})
    cache = KeyValueCache(held, len(prompts), num_slots, model.compute_dtype, model.device)
    last_BD = _read(model, cache, prompts)
    requests = np.arange(len(prompts))
    while True:
        steps = np.array([len(answers[request]) for request in requests])
        uniforms_B = torch.from_numpy(request_uniforms(seed, requests, steps)).to(last_BD.device)
        tokens_B = agreed(sample(model.logits(last_BD), sampling, uniforms_B))
        is_open = []
        for request, token in zip(requests, tokens_B.tolist(), strict=True):
            answers[request].append(token)
            is_open.append(token not in stop_ids and len(answers[request]) < limits[request])
        rows = torch.tensor(is_open).nonzero().squeeze(1)
        if not len(rows):
            return answers
        if len(rows) < len(requests):
            cache.keep(rows.to(last_BD.device))
            order = surviving_order(rows)
            requests, tokens_B = requests[order.numpy()], tokens_B[order.to(last_BD.device)]
        last_BD = model(tokens_B.unsqueeze(1), cache=cache)[:, 0]
        cache.advance(1)


def _read(model: Transformer, cache: KeyValueCache, prompts: Sequence[Sequence[int]]) -> Tensor:
    """Hidden states after the last token of each prompt, [B, D]; the cache then holds the prompts."""
    longest = max(len(prompt) for prompt in prompts)
    ids_BT = torch.tensor([[*prompt, *[0] * (longest - len(prompt))] for prompt in prompts])
    lengths_B = torch.tensor([len(prompt) for prompt in prompts], device=model.device)
    cache.open_rows(len(prompts))
    hidden_BTD = model(ids_BT.to(model.device), cache=cache)
    cache.advance(lengths_B)
    return hidden_BTD[torch.arange(len(prompts), device=model.device), lengths_B - 1]
