"""The model: its shape, its forward pass, and its folder on disk."""

from bessemer.model.config import ModelConfig, flops_per_token, parameter_count
from bessemer.model.folder import check_reload, load_model, save_model
from bessemer.model.transformer import Transformer

__all__ = [
    "ModelConfig",
    "Transformer",
    "check_reload",
    "flops_per_token",
    "load_model",
    "parameter_count",
    "save_model",
]
