"""AdamW with its moments in 8 bits: two bytes a parameter instead of eight."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from bessemer.training.optimizer_state import EightBitState
from bessemer.training.parallel.matrices import local


class AdamW8bit(torch.optim.Optimizer):
    """AdamW (Loshchilov & Hutter 2019, algorithm 2) whose moments are kept in 8 bits.

    Both moments are widened to float32 for the update, one parameter at a time, and narrowed again. Of a
    sharded parameter each process updates its shard.
    """

    def __init__(
        self, params: Iterable[Any], lr: float, betas: tuple[float, float], weight_decay: float = 0.0
    ) -> None:
        self._first = EightBitState(self, "exp_avg", is_signed=True)
        self._second = EightBitState(self, "exp_avg_sq", is_signed=False)
        super().__init__(params, {"lr": lr, "betas": betas, "eps": 1e-8, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """One update of every parameter that has a gradient."""
        assert closure is None
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._step_parameter(parameter, local(parameter.grad), group)

    def _step_parameter(self, parameter: Tensor, gradient: Tensor, group: dict[str, Any]) -> None:
        first_decay, second_decay = group["betas"]
        first = self._first.read(parameter).lerp_(gradient, 1 - first_decay)
        second = self._second.read(parameter)
        second.mul_(second_decay).addcmul_(gradient, gradient, value=1 - second_decay)
        weight = local(parameter)
        step = self.state[parameter].setdefault("step", torch.zeros((), device=weight.device))
        step += 1
        first_correction = 1 - first_decay ** step.item()
        second_correction = 1 - second_decay ** step.item()
        weight.mul_(1 - group["lr"] * group["weight_decay"])
        self._first.write(parameter, first)
        self._second.write(parameter, second)
        root = second.sqrt_().div_(second_correction**0.5).add_(group["eps"])
        weight.addcdiv_(first, root, value=-group["lr"] / first_correction)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """As torch's; the moments come in float32."""
        super().load_state_dict(state_dict)
        self._first.narrow()
        self._second.narrow()
