"""A copy of the training state in main memory, into the same buffers every time."""

import copy
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor

from bessemer.training.quantized import WIDENED_BYTES, Quantized

_CODES = "codes"


class Snapshot:
    """Copies nested dicts and lists of tensors and plain values; of sharded tensors, this process's part.

    The buffers of the last copy are used again: fresh memory costs page faults, and the peak stays at one
    copy. So only one copy is valid at a time.
    """

    def __init__(self) -> None:
        self._buffers: dict[tuple[Any, ...], Tensor] = {}

    @property
    def num_bytes(self) -> int:
        """Of the last copy as a checkpoint holds it, where state in 8 bits takes 32."""
        return sum(
            buffer.numel() * WIDENED_BYTES if way[-1:] == (_CODES,) else buffer.nbytes
            for way, buffer in self._buffers.items()
        )

    @torch.no_grad()
    def take(self, state: dict[str, Any]) -> dict[str, Any]:
        """The copy; the one before is overwritten."""
        return self._copied((), state)

    def _copied(self, way: tuple[Any, ...], value: Any) -> Any:
        if isinstance(value, DTensor):
            # Not `from_local`, which would move the copy to the mesh's own device.
            return DTensor(self._filled(way, value.detach().to_local()), value._spec, requires_grad=False)  # type: ignore[reportCallIssue]
        if isinstance(value, Tensor):
            return self._filled(way, value.detach())
        if isinstance(value, Quantized):
            codes = self._copied((*way, _CODES), value.codes)
            return replace(value, codes=codes, scales=self._copied((*way, "scales"), value.scales))
        if isinstance(value, dict):
            return {name: self._copied((*way, name), part) for name, part in value.items()}
        if isinstance(value, (list, tuple)):
            return type(value)(self._copied((*way, place), part) for place, part in enumerate(value))
        return copy.deepcopy(value)

    def _filled(self, way: tuple[Any, ...], tensor: Tensor) -> Tensor:
        buffer = self._buffers.get(way)
        if buffer is None or buffer.shape != tensor.shape or buffer.dtype != tensor.dtype:
            buffer = self._buffers[way] = torch.empty_like(tensor, device="cpu")
        return buffer.copy_(tensor)
