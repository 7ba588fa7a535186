"""Learning-rate schedules as pure functions of the step: factors of the peak rate."""

import math
from typing import Literal

from pydantic import Field

from bessemer.config import Config


class ScheduleConfig(Config):
    """Shape of the learning rate over the run."""

    shape: Literal["wsd", "cosine", "linear"] = "wsd"
    """wsd: warmup, stable, decay (Hu et al. 2024, MiniCPM, section 4); cosine; linear."""
    warmup: float = Field(default=0.02, ge=0, le=1)
    """Share of the steps that rise linearly from zero."""
    decay: float = Field(default=0.4, ge=0, le=1)
    """wsd only: share of the steps, at the end, that fall linearly to `final`."""
    final: float = Field(default=0.0, ge=0, le=1)
    """Factor at the end."""


def learning_rate_factor(config: ScheduleConfig, step: int, num_steps: int) -> float:
    """Factor of the peak learning rate for step 0 ≤ step < num_steps.

    The first step already moves (factor 1/warmup steps) and the last still does.
    """
    warmup_steps = round(config.warmup * num_steps)
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    if config.shape == "wsd":
        decay_steps = round(config.decay * num_steps)
        progress = max(0.0, (step + 1 - (num_steps - decay_steps)) / (decay_steps + 1))
        falling = 1 - progress
    else:
        progress = (step - warmup_steps) / max(1, num_steps - warmup_steps)
        falling = 1 - progress if config.shape == "linear" else (1 + math.cos(math.pi * progress)) / 2
    return config.final + (1 - config.final) * falling
