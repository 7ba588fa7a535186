"""A layout's memory as a table, before any process is started."""

from bessemer.model.config import ModelConfig, parameter_count
from bessemer.training.optimizers import OptimizerConfig
from bessemer.training.parallel.activation_memory import Tokens
from bessemer.training.parallel.layout import WAYS, ParallelConfig
from bessemer.training.parallel.memory import RankMemory, rank_memory
from bessemer.training.parallel.shapes import Place, held_layers

_COLUMNS = ("parameters", "gradients", "optimizer", "gathered", "activations", "buffers", "total")
_GIB = 2**30


def memory_table(
    config: ModelConfig, parallel: ParallelConfig, optimizer: OptimizerConfig, tokens: Tokens
) -> str:
    """One line for each process along the pipeline, the first along all other ways; in GiB."""
    title = (
        f"{parameter_count(config):,} parameters on {parallel.world_size:,} processes ({_sizes(parallel)}), "
        f"{tokens.micro_batches} micro-batch{'es' * (tokens.micro_batches > 1)} of {tokens.rows} x "
        f"{tokens.row:,} tokens; GiB a process"
    )
    rows: list[tuple[str, ...]] = [("layers", *_COLUMNS)]
    for place in (Place(pipeline=number) for number in range(parallel.pipeline)):
        memory = rank_memory(config, parallel, place, optimizer, tokens)
        layers = held_layers(config, parallel, place, tokens.row)
        rows.append((" ".join(map(_layers, layers)), *_numbers(memory)))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for first, *numbers in rows:
        cells = [number.rjust(width) for number, width in zip(numbers, widths[1:], strict=True)]
        lines.append("  ".join([first.ljust(widths[0]), *cells]))
    return "\n".join([title, *lines])


def _sizes(parallel: ParallelConfig) -> str:
    """The ways that more than one process goes."""
    sizes = [f"{way} {getattr(parallel, way)}" for way in (*WAYS, "expert") if getattr(parallel, way) > 1]
    if parallel.shard > 1:
        sizes.append(f"zero {parallel.zero}")
    if parallel.pipeline > 1:
        sizes.append(parallel.pipeline_schedule)
    return ", ".join(sizes) or "whole"


def _layers(layers: range) -> str:
    return f"{layers.start}-{layers.stop - 1}"


def _numbers(memory: RankMemory) -> list[str]:
    return [f"{getattr(memory, column) / _GIB:.2f}" for column in _COLUMNS]
