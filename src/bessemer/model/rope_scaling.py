"""Context extensions of RoPE: how the rotary frequencies change so that a model reads further than it
was first trained for.

Each extension is a frozen config with the published parameters and one pure function,
`frequencies(plain_E2, theta)`, on the E/2 plain frequencies theta^(-2i/E). Names and defaults are those
of `rope_parameters` in a Hugging Face config.json.
"""

import math
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from bessemer.config import Config, Count


class LinearScaling(Config):
    """Positions divided by a factor (Chen et al. 2023, "Extending Context Window of Large Language Models
    via Positional Interpolation", equation 4)."""

    rope_type: Literal["linear"] = "linear"
    factor: float = Field(gt=0)
    """How many times further the model is to read."""

    @property
    def amplitude(self) -> float:
        """Scale of cos and sin."""
        return 1.0

    def frequencies(self, plain_E2: Tensor, theta: float) -> Tensor:
        """The scaled frequencies, float32 [E/2]."""
        return plain_E2 / self.factor


class Llama3Scaling(Config):
    """Long waves divided by a factor, short ones kept, a ramp between (Meta 2024, Llama 3.1:
    `apply_scaling` of the released code)."""

    rope_type: Literal["llama3"] = "llama3"
    factor: float = Field(gt=0)
    """Divisor of the frequencies whose wave is longer than the original context / low_freq_factor."""
    low_freq_factor: float = Field(gt=0)
    """Waves longer than original context / this are divided."""
    high_freq_factor: float = Field(gt=0)
    """Waves shorter than original context / this are kept; more than low_freq_factor."""
    original_max_position_embeddings: Count
    """Context in tokens before the extension."""

    @property
    def amplitude(self) -> float:
        """Scale of cos and sin."""
        return 1.0

    def frequencies(self, plain_E2: Tensor, theta: float) -> Tensor:
        """The scaled frequencies, float32 [E/2]."""
        turns_E2 = self.original_max_position_embeddings * plain_E2 / (2 * math.pi)
        kept_E2 = (turns_E2 - self.low_freq_factor) / (self.high_freq_factor - self.low_freq_factor)
        kept_E2 = kept_E2.clamp(0.0, 1.0)
        return plain_E2 * (kept_E2 + (1.0 - kept_E2) / self.factor)


class YarnScaling(Config):
    """A ramp over the number of turns within the original context, and a temperature for the scores (Peng
    et al. 2023, "YaRN", sections 3.2 to 3.4)."""

    rope_type: Literal["yarn"] = "yarn"
    factor: float = Field(gt=0)
    """Divisor of the frequencies that turn fewer than beta_slow times within the original context."""
    original_max_position_embeddings: Count
    """Context in tokens before the extension."""
    beta_fast: float = 32.0
    """Frequencies with more turns than this are kept."""
    beta_slow: float = 1.0
    """Frequencies with fewer turns than this are divided."""
    attention_factor: float | None = None
    """Scale of cos and sin; None derives it from the factor, 0.1 ln(factor) + 1 (YaRN, equation 22)."""
    mscale: float | None = None
    """With mscale_all_dim, attention_factor is the quotient of two such terms (DeepSeek-V2 and V3)."""
    mscale_all_dim: float | None = None
    """See mscale."""
    truncate: bool = True
    """Round the ends of the ramp outwards to whole dimensions."""

    @property
    def amplitude(self) -> float:
        """Scale of cos and sin: scores grow by its square, which sharpens a softmax over more keys."""
        if self.attention_factor is not None:
            return self.attention_factor
        if self.mscale and self.mscale_all_dim:
            return _temperature(self.factor, self.mscale) / _temperature(self.factor, self.mscale_all_dim)
        return _temperature(self.factor, 1.0)

    def frequencies(self, plain_E2: Tensor, theta: float) -> Tensor:
        """The scaled frequencies, float32 [E/2]."""
        half = len(plain_E2)
        low, high = self._dimension(self.beta_fast, half, theta), self._dimension(self.beta_slow, half, theta)
        if self.truncate:
            low, high = math.floor(low), math.ceil(high)
        low, high = max(low, 0), min(high, 2 * half - 1)
        width = high - low or 0.001  # the published code's way around a ramp without width
        divided_E2 = ((torch.arange(half, dtype=torch.float32) - low) / width).clamp(0.0, 1.0)
        return plain_E2 / self.factor * divided_E2 + plain_E2 * (1.0 - divided_E2)

    def _dimension(self, num_turns: float, half: int, theta: float) -> float:
        """The (fractional) index of the frequency that turns so often within the original context."""
        context = self.original_max_position_embeddings
        return half * math.log(context / (num_turns * 2 * math.pi)) / math.log(theta)


RopeScaling = Annotated[LinearScaling | Llama3Scaling | YarnScaling, Field(discriminator="rope_type")]
"""Any of the extensions, told apart by `rope_type`."""


def _temperature(factor: float, mscale: float) -> float:
    return 1.0 if factor <= 1 else 0.1 * mscale * math.log(factor) + 1.0
