"""Processes of a layout start with their parts of a model, bit for bit those of one process, and hold no more
on the way there."""

import weakref
from pathlib import Path
from typing import Any

import pytest
import torch
from parallel_helpers import run_ranks
from test_data_parallel import SIGMOID
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from bessemer.model.config import ModelConfig
from bessemer.model.folder import save_model
from bessemer.model.transformer import Transformer
from bessemer.model.weights import DrawnWeights, FolderWeights, Weights
from bessemer.model.width import start_for_width
from bessemer.training.optimizers import OptimizerConfig
from bessemer.training.parallel.layout import ParallelConfig, build_layout
from bessemer.training.parallel.matrices import local
from bessemer.training.parallel.ranks import Alone, Ranks
from bessemer.training.parallel.together import Together

ROW, BASE_WIDTH = 24, 16
SIZES: dict[str, Any] = {
    "vocab_size": 61,
    "hidden_size": 32,
    "num_hidden_layers": 8,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 50,
    "max_position_embeddings": 64,
    "qk_norm": True,
}
DENSE = ModelConfig(**SIZES)
UNTIED = ModelConfig(**SIZES, tie_word_embeddings=False)
EXPERTS = ModelConfig(**SIZES, mixture=SIGMOID)
TWO = {
    "DDP": (DENSE, ParallelConfig(data=2)),
    "ZeRO-3": (DENSE, ParallelConfig(shard=2)),
    "ZeRO-1, offloaded": (DENSE, ParallelConfig(shard=2, zero=1, offload="cpu")),
    "tensor": (EXPERTS, ParallelConfig(tensor=2)),
    "expert": (EXPERTS, ParallelConfig(data=2, expert=2)),
    "pipeline": (UNTIED, ParallelConfig(pipeline=2)),
    "zero bubble": (DENSE, ParallelConfig(pipeline=2, pipeline_schedule="zero_bubble")),
}
FOUR = {
    "tensor, pipeline": (EXPERTS, ParallelConfig(tensor=2, pipeline=2)),
    "shard, tensor": (DENSE, ParallelConfig(shard=2, tensor=2)),
    "shard, pipeline": (UNTIED, ParallelConfig(shard=2, pipeline=2, pipeline_schedule="interleaved")),
    "shard, expert": (EXPERTS, ParallelConfig(data=2, shard=2, expert=2)),
    "copies of shards": (DENSE, ParallelConfig(data=2, shard=2)),
    "expert, pipeline": (EXPERTS, ParallelConfig(data=2, expert=2, pipeline=2)),
}


class LiveBytes(TorchDispatchMode):
    """Bytes of the tensors that operations within have made and that are still there, and the most so far.
    Meta tensors have none."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.most = 0
        self._seen: set[int] = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        made = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(made):
            if isinstance(tensor, Tensor) and not tensor.is_meta:
                storage = local(tensor).untyped_storage()
                if storage._cdata not in self._seen:
                    self._add(storage)
        return made

    def _add(self, storage: torch.UntypedStorage) -> None:
        address, size = storage._cdata, storage.nbytes()
        self._seen.add(address)
        self.now += size
        self.most = max(self.most, self.now)

        def gone() -> None:
            self._seen.discard(address)
            self.now -= size

        weakref.finalize(storage, gone)


def whole_model(config: ModelConfig) -> Transformer:
    model = Transformer(config).initialize(3)
    start_for_width(model, BASE_WIDTH)
    return model


def tensors_of(trained) -> dict[str, Tensor]:
    found = {name: local(p).detach() for name, p in trained.named_parameters()}
    return found | {name: b for name, b in trained.named_buffers() if name.endswith("selection_bias")}


def started(ranks: Ranks, config: ModelConfig, weights: Weights) -> tuple[dict[str, Tensor], int]:
    """What is held of a model that starts without values, and the most bytes on the way."""
    model = Transformer.without_values(config, torch.float32)
    with LiveBytes() as live:
        trained = ranks.prepare(model, OptimizerConfig(), ROW, weights)
    return tensors_of(trained), live.most


def starts(rank: int, world_size: int, layouts, folder: Path) -> dict[str, tuple[int, int]]:
    """For each layout the bytes held and the most on the way; compares values."""
    found = {}
    for name, (config, parallel) in layouts.items():
        layout = build_layout(parallel, world_size)
        expected = tensors_of(Together(layout).prepare(whole_model(config), OptimizerConfig(), ROW))
        sources: list[Weights] = [DrawnWeights(config, 3, BASE_WIDTH), FolderWeights(folder / digest(config))]
        for weights in sources:
            held, most = started(Together(layout), config, weights)
            assert held.keys() == expected.keys()
            for key, value in held.items():
                assert torch.equal(value, expected[key]), (name, key, type(weights))
            size = sum(value.nbytes for value in held.values())
            found[f"{name}, {type(weights).__name__}"] = (size, most)
    return found


def digest(config: ModelConfig) -> str:
    return f"tied-{config.tie_word_embeddings}-experts-{config.mixture is not None}"


@pytest.mark.parametrize("layouts", [TWO, pytest.param(FOUR, marks=pytest.mark.slow)], ids=["two", "four"])
def test_parts_start_as_those_of_one_process_and_no_process_holds_the_whole(tmp_path, layouts):
    largest, whole = {}, {}
    for config in (DENSE, UNTIED, EXPERTS):
        model = whole_model(config)
        save_model(model, tmp_path / digest(config), tokenizer_folder=None, generation={}, card="")
        sizes = [p.nbytes for p in model.parameters()]
        largest[digest(config)], whole[digest(config)] = max(sizes), sum(sizes)
    world_size = 2 if layouts is TWO else 4
    for of_rank in run_ranks(world_size, starts, layouts, tmp_path):
        for name, (config, parallel) in layouts.items():
            for source in ("DrawnWeights", "FolderWeights"):
                held, most = of_rank[f"{name}, {source}"]
                # The buckets of DDP, as large as what it sums, are no part of the model.
                buckets = held if parallel.data > 1 and parallel.shard == parallel.pipeline == 1 else 0
                assert most <= held + largest[digest(config)] + buckets + 8192, (name, source)
                if name not in ("DDP", "expert"):
                    assert most < 0.8 * whole[digest(config)], (name, source)


def test_one_process_starts_as_it_always_did():
    for config in (DENSE, EXPERTS):
        held, _ = started(Alone(), config, DrawnWeights(config, 3, BASE_WIDTH))
        for name, value in tensors_of(whole_model(config)).items():
            assert torch.equal(held[name], value), name
