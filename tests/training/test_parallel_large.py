"""Layouts of 1,024 processes, looked at from one: torch's fake process group, and models without memory."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from large_models import LLAMA_70B, LLAMA_405B
from plan_examples import EXAMPLES
from torch import Tensor
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from torch.testing._internal.distributed.fake_pg import FakeStore

from bessemer.model.config import MixtureConfig, ModelConfig, parameter_count
from bessemer.model.kernels import torch_operations
from bessemer.model.transformer import Transformer
from bessemer.model.weights import DrawnWeights
from bessemer.objectives.language_modeling import LanguageModeling
from bessemer.training.batches import Batch
from bessemer.training.optimizers import OptimizerConfig, Optimizers
from bessemer.training.parallel.activation_memory import Tokens
from bessemer.training.parallel.expert import divide_experts, expert_mesh
from bessemer.training.parallel.layout import Layout, ParallelConfig, build_layout
from bessemer.training.parallel.matrices import local
from bessemer.training.parallel.memory import rank_memory
from bessemer.training.parallel.parts import is_expert_divided
from bessemer.training.parallel.pipeline import Pipeline
from bessemer.training.parallel.plan_text import memory_table
from bessemer.training.parallel.shapes import Place, held_shapes, num_elements, sharded_shapes
from bessemer.training.parallel.tensor import divide_tensors
from bessemer.training.parallel.together import Together

ROW = 8192
OPTIMIZER = OptimizerConfig(kind="adamw")


DOCUMENT = Path(__file__).parents[2] / "docs" / "parallel-memory.md"


@contextmanager
def rank_of_many(rank: int, config: ParallelConfig) -> Iterator[Layout]:
    """As one rank of a layout whose other ranks do not exist: collectives return at once."""
    dist.init_process_group("fake", rank=rank, world_size=config.world_size, store=FakeStore())
    try:
        yield build_layout(config, config.world_size)
    finally:
        dist.destroy_process_group()


def local_shapes(config: ModelConfig, layout: Layout) -> dict[str, tuple[int, ...]]:
    """What is left on this rank of a model without memory: cut, divided and sharded as for training."""
    parallel = layout.config
    with torch.device("meta"):
        model = Transformer(config, torch.bfloat16)
    divide_tensors(model, config, layout.mesh["tensor"].get_group())
    if parallel.expert > 1:
        divide_experts(model, expert_mesh(layout)["expert"].get_group())
    pipeline = Pipeline(model, layout.mesh["pipeline"].get_group(), parallel.pipeline_schedule, context=ROW)
    mesh = layout.mesh["data", "shard"] if parallel.data > 1 else layout.mesh["shard"]
    for stage in pipeline.stages:
        # Experts that are divided are not sharded again.
        experts = {
            p for name, p in stage.named_parameters() if parallel.expert > 1 and is_expert_divided(name)
        }
        for block in stage.blocks:
            fully_shard(block, mesh=mesh, ignored_params=experts)
        fully_shard(stage, mesh=mesh, ignored_params=experts)
    return {
        name: tuple(p.to_local().shape if isinstance(p, DTensor) else p.shape)
        for name, p in pipeline.held().named_parameters()
    }


LAYOUTS: dict[str, tuple[ModelConfig, ParallelConfig]] = {
    **{title: (config, parallel) for title, (config, parallel, _) in EXAMPLES.items()},
    "70B, interleaved": (
        LLAMA_70B,
        ParallelConfig(pipeline=8, shard=32, tensor=4, pipeline_schedule="interleaved"),
    ),
    "405B, 1F1B": (LLAMA_405B, ParallelConfig(pipeline=16, shard=8, tensor=8)),
}


@pytest.mark.parametrize(
    ("name", "rank"), [*((name, 777) for name in LAYOUTS), ("Llama 3 405B", 0), ("Llama 3 405B", 1023)]
)
def test_shards_of_a_rank_of_1024_are_as_computed(name: str, rank: int) -> None:
    config, parallel = LAYOUTS[name]
    assert parallel.world_size == 1024
    with rank_of_many(rank, parallel) as layout:
        place = Place.of_rank(parallel, rank)
        ways = ("pipeline", "data", "shard", "context", "tensor")
        assert [getattr(place, way) for way in ways] == [layout.place(way) for way in ways]
        found = local_shapes(config, layout)
    assert found == sharded_shapes(held_shapes(config, parallel, place, ROW), parallel, place)


@pytest.mark.parametrize("name", LAYOUTS)
def test_the_parts_of_all_ranks_are_the_model(name: str) -> None:
    """Copies are those of `data`; norms, routers and their like, which `tensor` leaves whole, count once."""
    config, parallel = LAYOUTS[name]
    total = 0
    for rank in range(parallel.world_size):
        place = Place.of_rank(parallel, rank)
        shapes = sharded_shapes(held_shapes(config, parallel, place, ROW), parallel, place)
        if parallel.expert == parallel.shard:  # experts of one data rank: each is held once
            assert place.expert(parallel) == place.shard
        if place.data == 0:
            total += sum(
                num_elements({key: shape})
                for key, shape in shapes.items()
                if place.tensor == 0 or _is_cut(key)
            )
    assert total == parameter_count(config)


def _is_cut(name: str) -> bool:
    return not name.endswith(("norm", "router"))


def test_llama_405b_by_hand() -> None:
    """8 layers of 126, an 8th of their matrices, an 8th of the rows of what is left."""
    config, parallel = LAYOUTS["405B, 1F1B"]
    assert parameter_count(config) == 405_853_388_800
    matrices = (16_384 * (16_384 + 2 * 1024) + 16_384 * 16_384 + 3 * 16_384 * 53_248) // 8
    assert matrices == 398_458_880
    numbers = 8 * (matrices // 8 + 2 * 16_384 // 8)
    assert numbers == 398_491_648
    memory = rank_memory(
        config, parallel, Place(pipeline=1), OPTIMIZER, Tokens(row=ROW, rows=1, micro_batches=16)
    )
    assert memory.parameters == memory.gradients == 4 * numbers
    # Two moments a number, and the step of 6 tensors in each of 8 layers.
    assert memory.optimizer == 8 * numbers + 4 * 6 * 8
    # In the second of 16 stages 15 micro-batches are under way. Of each, hidden states between layers are
    # 8,192 / 8 x 16,384 numbers of 2 bytes.
    states = 1024 * 16_384 * 2
    assert memory.buffers == (1 + 16) * states
    # A layer: two norms' inputs and what their products read, all tokens of it; queries, keys and values of
    # 16 and 1 heads, of them queries and keys again after rotation; attention's output; gate, up, product.
    of_token = 2 * (2 * 16_384 // 8 + 2 * 16_384 + (16 + 2) * 128 + (16 + 1) * 128 + 16 * 128 + 3 * 6656)
    # In float32: 1 / rms of two norms, and the logarithm of each head's sum. The matrices cast to bfloat16.
    layer = 8192 * (of_token + 4 * 2 // 8 + 4 * 16) + 2 * matrices
    angles = 2 * 8192 * 128 * 2
    assert memory.activations == 15 * (8 * layer + angles)


def test_experts_by_hand() -> None:
    """13 of 48 layers, for the head weighs as much as two or three; 25 of 200 experts whole; an 8th of
    everything else."""
    config, parallel = LAYOUTS["200 experts"]
    experts = 25 * 3 * 4096 * 1024
    rest = 4096 * (32 + 2 * 8) * 128 + 4096 * 4096 + 2 * 4096 + 2 * 128 + 200 * 4096
    assert parameter_count(config) == 48 * (8 * experts + rest) + 2 * 128_256 * 4096 + 4096
    memory = rank_memory(
        config, parallel, Place(pipeline=1), OPTIMIZER, Tokens(row=ROW, rows=1, micro_batches=8)
    )
    assert memory.parameters == 4 * 13 * (experts + rest // 8)


def test_a_small_model_takes_a_step_as_one_of_1024() -> None:
    """HSDP over 1,024 ranks with real tensors: shards are stepped, and are as small as computed."""
    parallel = ParallelConfig(data=8, shard=128)
    config = ModelConfig(vocab_size=300, hidden_size=256, num_hidden_layers=2, num_attention_heads=4)
    place = Place.of_rank(parallel, 777)
    with rank_of_many(777, parallel) as layout:
        model = Transformer(config).initialize(0)
        for block in model.blocks:
            fully_shard(block, mesh=layout.mesh["data", "shard"])
        fully_shard(model, mesh=layout.mesh["data", "shard"])
        optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
        ids_BT = torch.randint(300, (2, 17))
        batch = Batch(
            ids_BT[:, :-1],
            ids_BT[:, 1:],
            torch.zeros(2, 16, dtype=torch.int32),
            torch.arange(16).repeat(2, 1),
        )
        before = {name: p.to_local().clone() for name, p in model.named_parameters()}
        LanguageModeling().loss(model, batch).total.backward()
        optimizer.step()
        expected = sharded_shapes(held_shapes(config, parallel, place, 16), parallel, place)
        for name, parameter in model.named_parameters():
            assert isinstance(parameter, DTensor)
            assert isinstance(parameter.grad, DTensor)
            local = parameter.to_local()
            assert tuple(local.shape) == tuple(parameter.grad.to_local().shape) == expected[name]
            assert tuple(optimizer.state[parameter]["exp_avg"].to_local().shape) == expected[name]
            assert local.numel() == 0 or not torch.equal(local, before[name]), f"{name} was not updated"
    # 300 rows over 128 ranks are 3 each, for the first 100 of them; this is number 9.
    assert place == Place(data=6, shard=9)
    assert expected["embedding"] == (3, 256)


STEPPED = ModelConfig(
    vocab_size=300,
    hidden_size=64,
    num_hidden_layers=16,
    num_attention_heads=8,
    num_key_value_heads=8,
    head_dim=8,
    intermediate_size=96,
    max_position_embeddings=64,
    tie_word_embeddings=False,
)
STEPPED_EXPERTS = ModelConfig(
    **STEPPED.model_dump(exclude={"mixture"}),
    mixture=MixtureConfig(num_experts=200, experts_per_token=8, expert_size=8),
)
PIPELINES = {
    "1F1B": (STEPPED, ParallelConfig(pipeline=8, data=16, tensor=8)),
    "interleaved, sharded": (
        STEPPED,
        ParallelConfig(pipeline=8, data=4, shard=8, tensor=4, pipeline_schedule="interleaved"),
    ),
    "zero bubble, sharded": (
        STEPPED,
        ParallelConfig(pipeline=8, shard=32, tensor=4, pipeline_schedule="zero_bubble"),
    ),
    "200 experts": (STEPPED_EXPERTS, ParallelConfig(pipeline=4, data=4, shard=8, tensor=8, expert=8)),
}
SHORT_ROW = 32


def nothing_came(x: Tensor, group: object, received: Any = None, sent: Any = None) -> Tensor:
    """An exchange with processes that do not exist."""
    return x.new_zeros(len(x) if received is None else sum(received), *x.shape[1:])


@pytest.mark.parametrize(
    ("name", "rank"),
    [*((name, 777) for name in PIPELINES), ("1F1B", 0), ("1F1B", 1023), ("zero bubble, sharded", 0)],
)
def test_a_pipeline_takes_a_step_as_one_of_1024(
    name: str, rank: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The whole step of training, with real tensors: micro-batches through the schedule, gradients summed,
    clipped, the update. What this rank then holds is as computed, to the byte."""
    config, parallel = PIPELINES[name]
    assert parallel.world_size == 1024
    monkeypatch.setattr(dist, "new_group", lambda **options: dist.group.WORLD)
    for module in ("collectives", "expert"):
        monkeypatch.setattr(f"bessemer.training.parallel.{module}.exchange", nothing_came)
    place = Place.of_rank(parallel, rank)
    with rank_of_many(rank, parallel) as layout, torch_operations():
        ranks = Together(layout)
        model = Transformer.without_values(config)
        trained = ranks.prepare(model, OPTIMIZER, SHORT_ROW, DrawnWeights(config, 0))
        optimizers = Optimizers(trained, OPTIMIZER, ranks.joined(trained))
        batches = [short_batch(config, number) for number in range(8)]
        count, num_parts = ranks.counts(8, len(batches))
        ranks.gradients(LanguageModeling(), batches, num_parts, 1 / count)
        ranks.clip(trained, 1.0)
        optimizers.step()
        shapes = sharded_shapes(held_shapes(config, parallel, place, SHORT_ROW), parallel, place)
        held = dict(trained.named_parameters())
        assert {key: tuple(local(p).shape) for key, p in held.items()} == shapes
        assert {key: tuple(local(p.grad).shape) for key, p in held.items() if p.grad is not None} == shapes
        steps = [state["step"] for each in optimizers.all for state in each.state.values()]
        assert len(steps) == len(held)
        assert all(float(step) == 1 for step in steps)
        state = [value for each in optimizers.all for of in each.state.values() for value in of.values()]
        tokens = Tokens(row=SHORT_ROW, rows=1, micro_batches=8)
        memory = rank_memory(config, parallel, place, OPTIMIZER, tokens)
        assert sum(local(p).nbytes for p in held.values()) == memory.parameters
        assert sum(local(value).nbytes for value in state) == memory.optimizer


def short_batch(config: ModelConfig, seed: int) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    ids_BT = torch.randint(config.vocab_size, (1, SHORT_ROW + 1), generator=generator)
    documents_BT = torch.zeros(1, SHORT_ROW, dtype=torch.int32)
    return Batch(ids_BT[:, :-1], ids_BT[:, 1:], documents_BT, torch.arange(SHORT_ROW).unsqueeze(0))


@pytest.mark.parametrize("title", EXAMPLES)
def test_the_guide_shows_the_tables_that_are_printed(title: str) -> None:
    config, parallel, tokens = EXAMPLES[title]
    table = memory_table(config, parallel, OPTIMIZER, tokens)
    assert f"### {title}\n```\n{table}\n```\n" in DOCUMENT.read_text()
