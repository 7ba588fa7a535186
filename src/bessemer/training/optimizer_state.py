"""Where an optimizer keeps a tensor the size of a parameter: as it is, or in 8 bits (see `quantized`).

Of a parameter that is sharded, or of which this process has a part, state in 8 bits has blocks of its own
there. Runs in other layouts so agree up to the rounding of 8 bits.
"""

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor

from bessemer.training.parallel.matrices import local
from bessemer.training.quantized import Quantized, dequantize, quantize


class WideState:
    """One tensor of an optimizer's state, a parameter's size, kept in the parameter's dtype."""

    def __init__(self, optimizer: torch.optim.Optimizer, name: str, *, is_signed: bool) -> None:
        self._optimizer, self._name = optimizer, name

    def read(self, parameter: Tensor) -> Tensor:
        """What is held here of the tensor itself, zeros at first: what is done to it in place is kept."""
        state = self._optimizer.state[parameter]
        if self._name not in state:
            state[self._name] = torch.zeros_like(parameter)
        return local(state[self._name])

    def write(self, parameter: Tensor, value: Tensor) -> None:
        """Keep `value`, which `read` gave."""

    def narrow(self) -> None:
        """Nothing to do after a load."""


class EightBitState:
    """One tensor of an optimizer's state, kept as codes and scales."""

    def __init__(self, optimizer: torch.optim.Optimizer, name: str, *, is_signed: bool) -> None:
        self._optimizer, self._name, self._is_signed = optimizer, name, is_signed

    def read(self, parameter: Tensor) -> Tensor:
        """A float32 copy of what is held here, zeros at first; changes are kept by `write` alone."""
        kept = self._optimizer.state[parameter].get(self._name)
        if kept is None:
            return torch.zeros_like(local(parameter), dtype=torch.float32)
        return dequantize(local(kept.codes), kept.scales, is_signed=kept.is_signed)

    def write(self, parameter: Tensor, value: Tensor) -> None:
        """Keep `value`, rounded."""
        codes, scales = quantize(value, is_signed=self._is_signed)
        kept = Quantized(_lying_as(codes, parameter), scales, self._is_signed)
        self._optimizer.state[parameter][self._name] = kept

    def narrow(self) -> None:
        """Round what a load has brought in float32."""
        for parameter, state in self._optimizer.state.items():
            self.write(parameter, local(state[self._name]))


def widened(state: Tensor | Quantized) -> Tensor:
    """What a load may fill with float32 in the place of this state: itself where it is wide."""
    return torch.zeros_like(state.codes, dtype=torch.float32) if isinstance(state, Quantized) else state


def _lying_as(held: Tensor, like: Tensor) -> Tensor:
    """What is held here, as a part of a tensor that is sharded as `like` is."""
    if not isinstance(like, DTensor):
        return held
    mesh, placements = like.device_mesh, like.placements
    return DTensor.from_local(held, mesh, placements, run_check=False, shape=like.shape, stride=like.stride())
