"""Loss scaling for float16, whose smallest number is 6e-8: gradients are computed times a factor.

The factor halves when a gradient overflows (that step is left out) and doubles after a row of good
steps (Micikevicius et al. 2018, "Mixed Precision Training", section 3.2).
"""

from dataclasses import dataclass
from typing import Any

_START, _LEAST, _MOST = 2.0**16, 2.0**-14, 2.0**24


@dataclass
class LossScale:
    """A power of two, so that scaling and unscaling round nothing."""

    scale: float = 1.0
    """1 for dtypes with the range of float32."""
    is_dynamic: bool = False
    growth_interval: int = 2000
    """Good steps in a row before the factor doubles (the default of torch's GradScaler)."""
    good_steps: int = 0

    def note(self, *, overflowed: bool) -> None:
        """Called once a step, after its gradients are known."""
        if not self.is_dynamic:
            return
        if overflowed:
            self.scale, self.good_steps = max(_LEAST, self.scale / 2), 0
            return
        self.good_steps += 1
        if self.good_steps >= self.growth_interval:
            self.scale, self.good_steps = min(_MOST, self.scale * 2), 0

    @property
    def can_shrink(self) -> bool:
        """Whether an overflow may be the scale's fault."""
        return self.is_dynamic and self.scale > _LEAST

    def to_json(self) -> dict[str, Any]:
        return {"scale": self.scale, "good_steps": self.good_steps}

    def from_json(self, value: dict[str, Any]) -> None:
        self.scale, self.good_steps = value["scale"], value["good_steps"]


def dynamic_loss_scale() -> LossScale:
    """For float16."""
    return LossScale(_START, is_dynamic=True)
