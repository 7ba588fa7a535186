"""Tensors of which a process holds pieces, as torch's distributed checkpoints take them: for each piece,
where in the whole it lies. A checkpoint that is written so can be read in any other layout of processes.

DTensor tells this of evenly sharded tensors itself. A part of a joint matrix, such as a process's heads of
queries, keys and values, lies in several places of the whole.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import torch
from torch import Tensor
from torch.distributed.checkpoint.metadata import ChunkStorageMetadata, MetadataIndex, TensorProperties
from torch.distributed.checkpoint.planner import TensorWriteData, WriteItem, WriteItemType

from bessemer.training.parallel.matrices import local
from bessemer.training.quantized import Quantized, dequantize


@dataclass(frozen=True)
class Segment:
    """A run of a dimension that lies together both here and in the whole."""

    here: int
    whole: int
    length: int


def segments_of_ranges(ranges: Sequence[tuple[int, int]]) -> list[Segment]:
    """Ranges of the whole, laid end to end here."""
    found, here = [], 0
    for start, stop in ranges:
        found.append(Segment(here, start, stop - start))
        here += stop - start
    return found


def cut_segments(segments: Sequence[Segment], start: int, stop: int) -> list[Segment]:
    """Those of the places `start` to `stop` here, which become places from 0."""
    found = []
    for segment in segments:
        low, high = max(start, segment.here), min(stop, segment.here + segment.length)
        if low < high:
            found.append(Segment(low - start, segment.whole + low - segment.here, high - low))
    return found


class Pieces(Tensor):
    """A tensor held here, and where its pieces lie in the whole; shares the tensor's memory."""

    whole_size: torch.Size
    segments: list[list[Segment]]
    """By dimension; pieces are their products."""

    @staticmethod
    def of(tensor: Tensor, whole_size: Sequence[int], segments: list[list[Segment]]) -> "Pieces":
        """`tensor` is a plain one."""
        pieces = torch.Tensor._make_subclass(Pieces, tensor)
        pieces.whole_size, pieces.segments = torch.Size(whole_size), segments
        return pieces

    def size(self, dim: int | None = None) -> Any:  # type: ignore[override]
        """Of the whole: loading compares it with what was saved."""
        return self.whole_size if dim is None else self.whole_size[dim]

    def __create_chunk_list__(self) -> list[ChunkStorageMetadata]:
        return [
            ChunkStorageMetadata(
                torch.Size(segment.whole for segment in piece),
                torch.Size(segment.length for segment in piece),
            )
            for piece in product(*self.segments)
        ]

    def __create_write_items__(self, fqn: str, object: Any) -> list[WriteItem]:
        properties = TensorProperties.create_from_tensor(self._like())
        return [
            WriteItem(
                index=MetadataIndex(fqn, chunk.offsets),
                type=WriteItemType.SHARD,
                tensor_data=TensorWriteData(chunk=chunk, properties=properties, size=self.whole_size),
            )
            for chunk in self.__create_chunk_list__()
        ]

    def __get_tensor_shard__(self, index: MetadataIndex) -> Tensor:
        for piece in product(*self.segments):
            if index.offset == torch.Size(segment.whole for segment in piece):
                view = self._held()
                for dim, segment in enumerate(piece):
                    view = view.narrow(dim, segment.here, segment.length)
                return view
        raise ValueError(f"no piece of {index.fqn} begins at {index.offset}")

    def _like(self) -> Tensor:
        """Tells dtype and device."""
        return self.as_subclass(Tensor)

    def _held(self) -> Tensor:
        """All that is held."""
        return self.as_subclass(Tensor)


class QuantizedPieces(Pieces):
    """What is held of a tensor in 8 bits, which is written in float32: other layouts have other blocks. It is
    widened when it is written, one tensor at a time."""

    quantized: Quantized

    @staticmethod
    def of_quantized(
        value: Quantized, whole_size: Sequence[int], segments: list[list[Segment]]
    ) -> "QuantizedPieces":
        """See `Pieces.of`."""
        pieces = torch.Tensor._make_subclass(QuantizedPieces, local(value.codes))
        pieces.whole_size, pieces.segments = torch.Size(whole_size), segments
        pieces.quantized = value
        return pieces

    def _like(self) -> Tensor:
        return self.quantized.scales

    def _held(self) -> Tensor:
        value = self.quantized
        return dequantize(local(value.codes), value.scales, is_signed=value.is_signed)
