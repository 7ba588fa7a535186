"""The shape of every parameter of a model, and of the part that one process holds: arithmetic alone, so that
a layout of a thousand processes can be looked at anywhere.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod

import torch

from bessemer.model.config import ModelConfig
from bessemer.training.parallel.layout import WAYS, ParallelConfig
from bessemer.training.parallel.parts import Part, expert_part, is_expert_divided, tensor_part
from bessemer.training.parallel.pipeline import num_stages, stages_of
from bessemer.training.parallel.pipeline_split import balanced_split, layer_ranges

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Place:
    """Where a process stands along each way of splitting, from 0."""

    pipeline: int = 0
    data: int = 0
    shard: int = 0
    context: int = 0
    tensor: int = 0

    @classmethod
    def of_rank(cls, config: ParallelConfig, rank: int) -> "Place":
        """Of a rank in the mesh, whose last dimension counts fastest."""
        places = {}
        for way in reversed(WAYS):
            rank, places[way] = divmod(rank, getattr(config, way))
        return cls(**places)

    def expert(self, config: ParallelConfig) -> int:
        """Among the processes that divide the experts: neighbours along data, shard and context together."""
        tokens = (self.data * config.shard + self.shard) * config.context + self.context
        return tokens % config.expert


def parameter_shapes(config: ModelConfig) -> dict[str, Shape]:
    """Shape of every parameter by name, as `Transformer` has them."""
    hidden, shapes = config.hidden_size, dict[str, Shape]()
    shapes["embedding"] = (config.vocab_size, hidden)
    is_gpt2 = config.family == "gpt2"
    if is_gpt2:
        shapes["positions"] = (config.max_position_embeddings, hidden)
    for layer in range(config.num_hidden_layers):
        shapes |= _under(f"blocks.{layer}", block_shapes(config, layer))
    shapes["final_norm"] = (hidden,)
    if is_gpt2:
        shapes["final_norm_bias"] = (hidden,)
    if not config.tie_word_embeddings:
        shapes["head"] = (config.vocab_size, hidden)
    for number in range(config.future_tokens):
        future = {"hidden_norm": (hidden,), "embedding_norm": (hidden,), "join": (hidden, 2 * hidden)}
        future |= _under("block", block_shapes(config, config.num_hidden_layers - 1))
        shapes |= _under(f"future.{number}", future | {"out_norm": (hidden,)})
    return shapes


def block_shapes(config: ModelConfig, layer: int) -> dict[str, Shape]:
    """Those of one layer."""
    hidden, heads = config.hidden_size, config.num_attention_heads * config.head_dim
    qkv, width = heads + 2 * config.num_key_value_heads * config.head_dim, config.intermediate_size
    shapes: dict[str, Shape] = {
        "attention_norm": (hidden,),
        "qkv": (qkv, hidden),
        "attention_out": (hidden, heads),
        "feed_forward_norm": (hidden,),
    }
    if config.family == "gpt2":
        biases = {"attention_norm_bias": hidden, "qkv_bias": qkv, "attention_out_bias": hidden}
        biases |= {"feed_forward_norm_bias": hidden, "up_bias": width, "down_bias": hidden}
        shapes |= {name: (size,) for name, size in biases.items()}
        return shapes | {"up": (width, hidden), "down": (hidden, width)}
    if config.attention_bias:
        shapes["qkv_bias"] = (qkv,)
    if config.attention_out_bias:
        shapes["attention_out_bias"] = (hidden,)
    if config.qk_norm:
        shapes |= {"q_norm": (config.head_dim,), "k_norm": (config.head_dim,)}
    if config.is_mixture(layer):
        return shapes | _under("mixture", _mixture_shapes(config))
    if config.mlp_bias:
        shapes |= {"gate_up_bias": (2 * width,), "down_bias": (hidden,)}
    return shapes | {"gate_up": (2 * width, hidden), "down": (hidden, width)}


def _mixture_shapes(config: ModelConfig) -> dict[str, Shape]:
    mixture, hidden = config.mixture, config.hidden_size
    assert mixture is not None
    experts, width, shared = mixture.num_experts, mixture.expert_size, mixture.shared_size
    shapes: dict[str, Shape] = {
        "router": (experts, hidden),
        "gate_up": (experts, 2 * width, hidden),
        "down": (experts, hidden, width),
    }
    if shared:
        shapes |= {"shared_gate_up": (2 * shared, hidden), "shared_down": (hidden, shared)}
        if mixture.scores == "softmax":
            shapes["shared_gate"] = (1, hidden)
    return shapes


def held_shapes(
    config: ModelConfig, parallel: ParallelConfig, place: Place, context: int
) -> dict[str, Shape]:
    """Shapes of what the process at `place` works with: its stages' layers, and of each parameter its part of
    tensors and experts. Sharding (ZeRO) is apart: `shard_shape`.

    `context` is the length of a row in tokens, by which stages are balanced.
    """
    shapes = {}
    for name, shape in _of_stages(config, parallel, place, context).items():
        size = torch.Size(shape)
        shape = _divided(shape, tensor_part(name, size, config, parallel.tensor, place.tensor))
        shapes[name] = _divided(shape, expert_part(name, size, parallel.expert, place.expert(parallel)))
    return shapes


def held_layers(config: ModelConfig, parallel: ParallelConfig, place: Place, context: int) -> list[range]:
    """The layers of each stage of the process, ascending."""
    stages = num_stages(parallel.pipeline_schedule, parallel.pipeline)
    ranges = layer_ranges(balanced_split(config, stages, context))
    return [
        ranges[stage] for stage in stages_of(place.pipeline, parallel.pipeline, parallel.pipeline_schedule)
    ]


def has_ends(parallel: ParallelConfig, place: Place) -> tuple[bool, bool]:
    """Whether the process holds the first stage, and the last."""
    held = stages_of(place.pipeline, parallel.pipeline, parallel.pipeline_schedule)
    return held[0] == 0, held[-1] == num_stages(parallel.pipeline_schedule, parallel.pipeline) - 1


def _of_stages(
    config: ModelConfig, parallel: ParallelConfig, place: Place, context: int
) -> Mapping[str, Shape]:
    """Whole shapes of the parameters of the process's stages."""
    layers = {layer for layers in held_layers(config, parallel, place, context) for layer in layers}
    is_first, is_last = has_ends(parallel, place)
    looks_up_again = config.tie_word_embeddings or config.future_tokens > 0

    def is_held(name: str) -> bool:
        kind, _, rest = name.partition(".")
        if kind == "blocks":
            return int(rest.partition(".")[0]) in layers
        if kind == "embedding":
            return is_first or (is_last and looks_up_again)
        return is_first if kind == "positions" else is_last

    return {name: shape for name, shape in parameter_shapes(config).items() if is_held(name)}


def copied_elements(
    config: ModelConfig, parallel: ParallelConfig, place: Place, sharded: Mapping[str, Shape]
) -> int:
    """Of the second copy of the embedding, of a process that holds both ends of a sharded pipeline."""
    looks_up_again = config.tie_word_embeddings or config.future_tokens > 0
    is_copied = parallel.pipeline > 1 and parallel.shard > 1 and looks_up_again
    return prod(sharded["embedding"]) if is_copied and all(has_ends(parallel, place)) else 0


def shard_shape(shape: Shape, size: int, place: int) -> Shape:
    """The rows of a parameter that FSDP leaves at `place` of `size` processes: as `torch.chunk`, the first
    ones have as many as can be, the last fewer or none."""
    rows = -(-shape[0] // size)
    return (min(rows, max(0, shape[0] - place * rows)), *shape[1:])


def num_elements(shapes: Mapping[str, Shape]) -> int:
    """Of all together."""
    return sum(prod(shape) for shape in shapes.values())


def sharded_shapes(held: Mapping[str, Shape], parallel: ParallelConfig, place: Place) -> dict[str, Shape]:
    """What ZeRO leaves of each parameter of `held_shapes`: its rows in equal pieces, as FSDP2 does.

    Shards lie on the processes of `shard` and `context` together. Experts that are divided over processes
    are not sharded over them again.
    """
    if parallel.shard == 1:
        return dict(held)
    size, number = parallel.shard * parallel.context, place.shard * parallel.context + place.context
    return {
        name: shape if parallel.expert > 1 and is_expert_divided(name) else shard_shape(shape, size, number)
        for name, shape in held.items()
    }


def _divided(shape: Shape, part: Part | None) -> Shape:
    if part is None:
        return shape
    sizes = list(shape)
    sizes[part.dim] = part.length
    return tuple(sizes)


def _under(prefix: str, shapes: Mapping[str, Shape]) -> dict[str, Shape]:
    return {f"{prefix}.{name}": shape for name, shape in shapes.items()}
