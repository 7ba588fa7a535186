"""Frozen parameters, as with adapters: every layout gives the others the gradients of one process, and the
frozen ones none."""

from collections.abc import Callable

import pytest
import torch
from parallel_helpers import run_ranks
from torch import Tensor

from bessemer.model.kernels import torch_operations
from bessemer.model.transformer import Transformer
from bessemer.objectives.language_modeling import LanguageModeling
from bessemer.training.optimizers import OptimizerConfig
from bessemer.training.parallel.equivalence import gradient_differences
from bessemer.training.parallel.equivalence_step import tiny_batches, tiny_config, tiny_model
from bessemer.training.parallel.joined import whole_tensor
from bessemer.training.parallel.layout import ParallelConfig, build_layout
from bessemer.training.parallel.ranks import Alone, Ranks
from bessemer.training.parallel.together import Together

CPU = torch.device("cpu")
LAYOUTS = {
    "DDP": ParallelConfig(data=2),
    "ZeRO-1": ParallelConfig(shard=2, zero=1),
    "ZeRO-3": ParallelConfig(shard=2),
    "context": ParallelConfig(context=2),
    "tensor": ParallelConfig(tensor=2),
    "1F1B": ParallelConfig(pipeline=2),
    "interleaved": ParallelConfig(pipeline=2, pipeline_schedule="interleaved"),
    "zero bubble": ParallelConfig(pipeline=2, pipeline_schedule="zero_bubble"),
    "expert": ParallelConfig(data=2, expert=2),
}
TRAINED: dict[str, Callable[[str], bool]] = {
    "first block": lambda name: name.startswith("blocks.0."),
    "last block": lambda name: name.startswith("blocks.3."),
    "matrices of attention": lambda name: name.endswith(("qkv", "attention_out")),
    "all but the embedding": lambda name: name != "embedding",
}


def step(ranks: Ranks, trained: str, has_experts: bool) -> dict[str, Tensor]:
    """Whole gradients of the parameters that are trained and held here."""
    model: Transformer = tiny_model(tiny_config(2, has_experts=has_experts), CPU)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(TRAINED[trained](name))
    batches = tiny_batches(2, CPU)
    held = ranks.prepare(model, OptimizerConfig(), batches[0].token_ids_BT.shape[1])
    own = [ranks.own(batches[number]) for number in ranks.share.rows(range(len(batches)))]
    count, num_parts = ranks.counts(sum(LanguageModeling().count(batch) for batch in own), len(own))
    ranks.gradients(LanguageModeling(), own, num_parts, 1 / count)
    ranks.clip(held, 1e9)
    found = {}
    for name, parameter in held.named_parameters():
        assert parameter.requires_grad == TRAINED[trained](name), name
        assert (parameter.grad is not None) == parameter.requires_grad, name
        if parameter.grad is not None:
            whole = whole_tensor(parameter.grad)
            found[name] = whole if isinstance(ranks, Alone) else ranks.divided.whole(name, whole)
    return found


def in_layouts(rank: int, world_size: int, has_experts: bool) -> dict[tuple[str, str], dict[str, Tensor]]:
    with torch_operations():
        return {
            (trained, name): step(Together(build_layout(config, world_size)), trained, has_experts)
            for trained in TRAINED
            for name, config in LAYOUTS.items()
            if has_experts or config.expert == 1
        }


@pytest.mark.parametrize("has_experts", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_what_is_not_frozen_has_the_gradients_of_one_process(has_experts: bool) -> None:
    with torch_operations():
        expected = {trained: step(Alone(), trained, has_experts) for trained in TRAINED}
    assert all(expected.values())
    by_rank = run_ranks(2, in_layouts, has_experts)
    for trained, layout in by_rank[0]:
        found: dict[str, Tensor] = {}
        for of_rank in by_rank:
            found |= of_rank[trained, layout]
        assert found.keys() == expected[trained].keys(), (trained, layout)
        assert gradient_differences(found, expected[trained])[0] <= 1e-6, (trained, layout)
