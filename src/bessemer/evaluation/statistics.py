"""Estimates with 95 % intervals. Short, with the derivation beside each."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from pydantic import BaseModel

_Z = 1.959963984540054  # 97.5 % quantile of the normal distribution


class Estimate(BaseModel):
    """A value, its 95 % interval, and how many items it rests on."""

    value: float
    low: float
    high: float
    n: int

    def to_json(self) -> dict[str, Any]:
        """As JSON, which has no NaN: what is not known (n = 0, or no spread at n = 1) is null."""
        return {name: value if math.isfinite(value) else None for name, value in self.model_dump().items()}


def proportion(successes: int, n: int) -> Estimate:
    """Share of successes with Wilson's score interval (Wilson 1927, J. Am. Stat. Assoc. 22).

    Solves |p̂ - p| = z·sqrt(p(1-p)/n) for p; unlike the normal interval it stays inside [0, 1] and
    is not empty at 0 or n successes. With n = 0 nothing is known: the interval is [0, 1].
    """
    if n == 0:
        return Estimate(value=math.nan, low=0.0, high=1.0, n=0)
    share = successes / n
    denominator = 1 + _Z**2 / n
    centre = (share + _Z**2 / (2 * n)) / denominator
    half = _Z / denominator * math.sqrt(share * (1 - share) / n + _Z**2 / (4 * n**2))
    return Estimate(
        value=share, low=min(share, max(0.0, centre - half)), high=max(share, min(1.0, centre + half)), n=n
    )


def mean(values: Sequence[float]) -> Estimate:
    """Mean with the normal interval from the sample's standard error."""
    array = np.asarray(values, dtype=np.float64)
    n = len(array)
    if n == 0:
        return Estimate(value=math.nan, low=math.nan, high=math.nan, n=0)
    half = _Z * float(array.std(ddof=1)) / math.sqrt(n) if n > 1 else math.inf
    centre = float(array.mean())
    return Estimate(value=centre, low=centre - half, high=centre + half, n=n)


def ratio_of_sums(numerators: Sequence[float], denominators: Sequence[float]) -> Estimate:
    """Σa/Σb over independent items, interval by linearisation (Cochran 1977, section 6.4).

    The residuals a - r·b have mean zero; the ratio's variance is n·var(residuals) / (Σb)².
    """
    a, b = np.asarray(numerators, dtype=np.float64), np.asarray(denominators, dtype=np.float64)
    n, total = len(a), float(b.sum())
    if n == 0 or total == 0:
        return Estimate(value=math.nan, low=math.nan, high=math.nan, n=n)
    ratio = float(a.sum()) / total
    half = _Z * math.sqrt(n * float((a - ratio * b).var(ddof=1))) / total if n > 1 else math.inf
    return Estimate(value=ratio, low=ratio - half, high=ratio + half, n=n)
