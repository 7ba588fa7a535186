"""Other projects' models, loaded from a checkout of theirs, for the benchmarks of training.

    git clone https://github.com/karpathy/nanoGPT     and     git clone https://github.com/karpathy/nanochat

Their modules are imported as they are; nothing of them is kept here.
"""

import contextlib
import importlib
import io
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch


@dataclass(frozen=True)
class Shape:
    """Size of a model that both sides build."""

    name: str
    layers: int
    hidden: int
    heads: int
    vocabulary: int
    rows: int
    context: int

    @property
    def tokens(self) -> int:
        """Of a step."""
        return self.rows * self.context


SHAPES = {
    shape.name: shape
    for shape in (
        Shape("4M", 4, 256, 4, 4096, 8, 256),
        Shape("10M", 6, 384, 6, 8192, 16, 256),
        Shape("30M", 8, 512, 8, 8192, 16, 256),
        Shape("10M at 2,048", 6, 384, 6, 8192, 2, 2048),
    )
}


@contextlib.contextmanager
def importable(folder: Path) -> Iterator[None]:
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        sys.path.remove(str(folder))


def nanogpt(folder: Path, shape: Shape) -> Any:
    """nanoGPT's model as its train.py builds it for pretraining: no bias, no dropout."""
    with importable(folder), contextlib.redirect_stdout(io.StringIO()):
        module = importlib.import_module("model")
        config = module.GPTConfig(
            block_size=shape.context,
            vocab_size=shape.vocabulary,
            n_layer=shape.layers,
            n_head=shape.heads,
            n_embd=shape.hidden,
            dropout=0.0,
            bias=False,
        )
        return module.GPT(config)


def nanogpt_optimizer(model: Any, learning_rate: float = 6e-4) -> torch.optim.Optimizer:
    """AdamW with the weight decay and betas of its train.py."""
    with contextlib.redirect_stdout(io.StringIO()):
        optimizer: torch.optim.Optimizer = model.configure_optimizers(0.1, learning_rate, (0.9, 0.95), "cpu")
    return optimizer


def nanochat(folder: Path, shape: Shape, dtype: torch.dtype) -> Any:
    """nanochat's model and all its extras, with full attention in every layer."""
    os.environ["NANOCHAT_DTYPE"] = str(dtype).removeprefix("torch.")
    with importable(folder):
        module = importlib.import_module("nanochat.gpt")
    config = module.GPTConfig(
        sequence_len=shape.context,
        vocab_size=shape.vocabulary,
        n_layer=shape.layers,
        n_head=shape.heads,
        n_kv_head=shape.heads,
        n_embd=shape.hidden,
        window_pattern="L",
    )
    model = module.GPT(config)
    model.init_weights()
    return model
