"""Generation: a batching engine over the model, its cache, and the samplers."""

from bessemer.inference.engine import Completion, Engine
from bessemer.inference.sampling import SamplingParams

__all__ = ["Completion", "Engine", "SamplingParams"]
