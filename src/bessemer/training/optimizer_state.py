"""Where an optimizer keeps a tensor the size of a parameter: as it is, or in 8 bits (see `quantized`)."""

from typing import Any

import torch
from torch import Tensor

from bessemer.training.quantized import dequantize, quantize


class WideState:
    """One tensor of an optimizer's state, a parameter's size, kept in the parameter's dtype."""

    def __init__(self, optimizer: torch.optim.Optimizer, name: str, *, is_signed: bool) -> None:
        self._optimizer, self._name = optimizer, name

    def read(self, parameter: Tensor) -> Tensor:
        """The tensor itself, zeros at first: what is done to it in place is kept."""
        state = self._optimizer.state[parameter]
        if self._name not in state:
            state[self._name] = torch.zeros_like(parameter)
        return state[self._name]

    def write(self, parameter: Tensor, value: Tensor) -> None:
        """Keep `value`."""
        self._optimizer.state[parameter][self._name] = value


class EightBitState:
    """One tensor of an optimizer's state, kept as codes and scales."""

    def __init__(self, optimizer: torch.optim.Optimizer, name: str, *, is_signed: bool) -> None:
        self._optimizer, self._name, self._is_signed = optimizer, name, is_signed

    def read(self, parameter: Tensor) -> Tensor:
        """A float32 copy, zeros at first; changes are kept by `write` alone."""
        state = self._optimizer.state[parameter]
        if f"{self._name}_codes" not in state:
            return torch.zeros_like(parameter, dtype=torch.float32)
        codes, scales = state[f"{self._name}_codes"], state[f"{self._name}_scales"]
        return dequantize(codes, scales, is_signed=self._is_signed)

    def write(self, parameter: Tensor, value: Tensor) -> None:
        """Keep `value`, rounded."""
        state = self._optimizer.state[parameter]
        codes, scales = quantize(value, is_signed=self._is_signed)
        state[f"{self._name}_codes"], state[f"{self._name}_scales"] = codes, scales


def restore_codes(optimizer: torch.optim.Optimizer, state_dict: dict[str, Any]) -> None:
    """Put the uint8 codes of a state dict back where torch cast them to the parameters' dtype."""
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    for number, values in state_dict["state"].items():
        for name, value in values.items():
            if name.endswith("_codes"):
                optimizer.state[parameters[number]][name] = value
