"""What a rule is: a named value, and the bounds it must lie within (both inclusive)."""

from dataclasses import dataclass
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from bessemer.config import Config

Action = Literal["drop", "edit"]
VARIANT = "@"
"""Parts a rule's name from the publication or tool whose definition it follows to the letter."""


_Threshold = Annotated[float, Field(allow_inf_nan=False)]
"""No value is below or above NaN: such a rule would judge nothing, and not say so."""


class Bounds(Config):
    """New bounds for a rule; one that is left out keeps its published value, and null takes it away."""

    min: _Threshold | None = None
    """Least value that is kept."""
    max: _Threshold | None = None
    """Greatest value that is kept."""

    @model_serializer(mode="wrap")
    def _as_given(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        # A bound that was left out must not come back as null, which means another thing.
        return {name: bound for name, bound in write(self).items() if name in self.model_fields_set}

    @model_validator(mode="after")
    def _in_order(self) -> "Bounds":
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError(f"min {self.min} is above max {self.max}: no document could pass")
        return self


@dataclass(frozen=True)
class Rule:
    """A value by name, and the bounds that a kept document's value lies within."""

    name: str
    description: str
    min: float | None = None
    max: float | None = None
    enabled: bool = True
    action: Action = "drop"
    is_on_demand: bool = False
    """Measured only when some rule that needs the same work is enabled: the ledger is empty there
    otherwise."""
    needs: str | None = None
    """The key of `curate` that must be given before the rule can be enabled."""

    def fault(self, value: float) -> tuple[Literal["min", "max"], float] | None:
        """The bound that `value` breaks, and its threshold; None when it passes."""
        if self.min is not None and value < self.min:
            return "min", self.min
        if self.max is not None and value > self.max:
            return "max", self.max
        return None

    def fails(self, values: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Elementwise: which values break a bound."""
        failed = np.zeros(len(values), np.bool_)
        if self.min is not None:
            failed |= values < self.min
        if self.max is not None:
            failed |= values > self.max
        return failed
