"""Where a model's values come from: drawn from a seed, or read from a folder; of each tensor only what is
asked for.

A process that holds a part of a model takes these parts, and never has the whole in memory: whatever the
parts, their values are those of the whole model in one process.
"""

import json
import os
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from bessemer.model.config import ModelConfig
from bessemer.model.folder import locate_weights, opened, read_config
from bessemer.model.initialization import EMBEDDING_STD, first_values
from bessemer.model.tensor_names import canonical_name, huggingface_tensors, parameter_of_tensors
from bessemer.model.transformer import Transformer
from bessemer.model.width import first_scale
from bessemer.runner.files import fsync_folder

Box = tuple[slice, ...]
"""A part of a tensor: from where to where along each of its dimensions."""


class Weights(Protocol):
    """The values of a model's parameters and of the buffers that a checkpoint holds."""

    @property
    def config(self) -> ModelConfig:
        """The model's shape."""
        ...

    def read(self, wanted: Mapping[str, Sequence[Box]]) -> Iterator[tuple[str, int, Tensor]]:
        """Every wanted box once, in any order: the tensor's name, the box's number among those wanted of it,
        and its values on the CPU, which are to be copied before the next one is asked for."""
        ...


@dataclass(frozen=True)
class DrawnWeights:
    """The first values of a new model, as `bessemer.model.initialization` draws them, scaled for its width.

    Tensors are drawn whole, one at a time, up to the last that is wanted: the random numbers of one follow
    those of another, and so every layout draws the same.
    """

    config: ModelConfig
    seed: int
    base_width: int | None = None
    """See `bessemer.model.width`."""
    embedding_std: float = EMBEDDING_STD

    def read(self, wanted: Mapping[str, Sequence[Box]]) -> Iterator[tuple[str, int, Tensor]]:
        shapes = Transformer.without_values(self.config)
        missing = set(wanted)
        for name, buffer in shapes.named_buffers():
            for number, box in enumerate(wanted.get(name, ())):
                yield name, number, torch.zeros(buffer.shape)[box]
            missing.discard(name)
        for name, value in first_values(shapes, self.seed, self.embedding_std):
            if not missing:
                return
            if name in missing:
                value.mul_(first_scale(name, self.config.hidden_size, self.base_width))
                for number, box in enumerate(wanted[name]):
                    yield name, number, value[box]
                missing.remove(name)
            del value  # before the next one is drawn


@dataclass(frozen=True)
class _Region:
    """Where a tensor of a folder lies in one of the model's."""

    key: str
    """The folder's tensor, by the name of `huggingface_tensors`."""
    starts: tuple[int, ...]
    stops: tuple[int, ...]
    dims: tuple[int, ...]
    """The dimension, of the model's tensor, that each of the folder's is."""


class FolderWeights:
    """The weights of a Hugging Face folder. Of its files only what is wanted is read."""

    def __init__(self, folder: Path) -> None:
        """Raises BessemerError as `load_model` does; reads no more than the files' headers."""
        self.config = read_config(folder)
        shapes = Transformer.without_values(self.config)
        targets, names = huggingface_tensors(shapes), parameter_of_tensors(shapes)
        self._places = locate_weights(folder, self.config, targets)
        tensors = shapes.state_dict()
        self._regions: dict[str, list[_Region]] = defaultdict(list)
        for key, view in targets.items():
            self._regions[names[key]].append(_region(key, view, tensors[names[key]]))

    def read(self, wanted: Mapping[str, Sequence[Box]]) -> Iterator[tuple[str, int, Tensor]]:
        with ExitStack() as stack:
            files = {path: stack.enter_context(opened(path)) for path in set(self._places.values())}
            keys = {
                canonical_name(key, self.config.family): key
                for file in files.values()
                for key in file.keys()  # noqa: SIM118
            }
            for name, boxes in wanted.items():
                assert name in self._regions, f"folders hold no {name}"
                for number, box in enumerate(boxes):
                    value = torch.empty([part.stop - part.start for part in box])
                    for region in self._regions[name]:
                        file = files[self._places[region.key]]
                        _copy(file.get_slice(keys[region.key]), region, box, value)
                    yield name, number, value


@dataclass(frozen=True)
class SavedWeights:
    """The weights of a safetensors file under the model's own names, as `write_streamed` writes it."""

    config: ModelConfig
    path: Path

    def read(self, wanted: Mapping[str, Sequence[Box]]) -> Iterator[tuple[str, int, Tensor]]:
        with opened(self.path) as file:
            for name, boxes in wanted.items():
                for number, box in enumerate(boxes):
                    yield name, number, file.get_slice(name)[box]


def write_streamed(
    path: Path,
    shapes: Mapping[str, Sequence[int]],
    weights: Mapping[str, Tensor],
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Write float32 tensors of the given shapes, and `metadata`, to a safetensors file, which appears when it
    is whole. The tensors are asked for in the order of `shapes`, and one is held at a time.

    Format: the header's length in 8 bytes, the header in JSON, then the numbers of one tensor after the other
    (https://github.com/huggingface/safetensors, "Format")."""
    header: dict[str, Any] = {"__metadata__": dict(metadata or {})}
    end = 0
    for name, shape in shapes.items():
        start, end = end, end + 4 * prod(shape)
        header[name] = {"dtype": "F32", "shape": list(shape), "data_offsets": [start, end]}
    encoded = json.dumps(header).encode()
    encoded += b" " * (-len(encoded) % 8)  # so that numbers are aligned
    partial = path.with_name(f".{path.name}.partial")
    with partial.open("wb") as file:
        file.write(len(encoded).to_bytes(8, "little"))
        file.write(encoded)
        for name in shapes:
            file.write(weights[name].detach().to("cpu", torch.float32).contiguous().numpy().tobytes())
        file.flush()
        os.fsync(file.fileno())
    os.replace(partial, path)
    fsync_folder(path.parent)


def _region(key: str, view: Tensor, tensor: Tensor) -> _Region:
    """From the view's place in its tensor, which is contiguous: each dimension of it is that of the tensor
    with the same stride; along those that it has not, it lies at one place."""
    offset, starts = int(view.storage_offset()), []
    for stride in tensor.stride():
        start, offset = divmod(offset, stride)
        starts.append(start)
    dims = tuple(tensor.stride().index(stride) for stride in view.stride())
    stops = [start + 1 for start in starts]
    for dim, size in zip(dims, view.shape, strict=True):
        stops[dim] = starts[dim] + size
    return _Region(key, tuple(starts), tuple(stops), dims)


def _copy(source: Any, region: _Region, box: Box, value: Tensor) -> None:
    """What a tensor of a file, a slice of safetensors, has of a box."""
    lows = [max(part.start, start) for part, start in zip(box, region.starts, strict=True)]
    highs = [min(part.stop, stop) for part, stop in zip(box, region.stops, strict=True)]
    if any(low >= high for low, high in zip(lows, highs, strict=True)):
        return
    found = source[tuple(slice(lows[d] - region.starts[d], highs[d] - region.starts[d]) for d in region.dims)]
    found = found.permute(sorted(range(len(region.dims)), key=lambda place: region.dims[place]))
    for dim in range(value.ndim):
        if dim not in region.dims:
            found = found.unsqueeze(dim)
    at = [
        slice(low - part.start, high - part.start) for low, high, part in zip(lows, highs, box, strict=True)
    ]
    value[tuple(at)].copy_(found)
