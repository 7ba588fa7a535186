"""Rates and first values that stay right when the width changes, so that what is tuned on a narrow model
holds for a wide one.

The rules are those of the maximal update parametrisation (Yang et al. 2022, "Tensor Programs V", table
3) in its spectral form (Yang et al. 2023, "A Spectral Condition for Feature Learning", section 3), put
so that a saved model needs no multiplier of its own. With m = width / base width:

- Matrices inside blocks start with spectral norm about 1 for any width (see
  `bessemer.model.initialization`). Muon's updates are of that norm too: its rate stays. AdamW moves
  every entry by its rate, so the norm of its update grows with the fan-in: the rate is divided by m.
- Logits sum over the width what the output head learnt. A multiplier 1 / m is put into the final
  norm: it starts at 1 / m, and so does its rate. Embedding and head, tied or not, keep theirs.
- Vectors keep theirs.

At the base width nothing changes. Heads keep their width: a wider model has more of them.
"""

from typing import TYPE_CHECKING

import torch
from torch import nn

if TYPE_CHECKING:
    from bessemer.model.transformer import Transformer

_FINAL_NORMS = ("final_norm", "final_norm_bias", "out_norm")
"""What the output head reads: `out_norm` is that of a block for future tokens."""


def learning_rate_scales(model: nn.Module, base_width: int | None) -> dict[str, float]:
    """The factor on AdamW's rate for every parameter, by name; 1 for all without a base width."""
    if base_width is None:
        return {name: 1.0 for name, _ in model.named_parameters()}
    scales: dict[str, float] = {}
    for name, parameter in model.named_parameters():
        is_block_matrix = parameter.ndim >= 2 and name.startswith(("blocks.", "future."))
        is_scaled = is_block_matrix or name.endswith(_FINAL_NORMS)
        scales[name] = base_width / _width(model) if is_scaled else 1.0
    return scales


def first_scale(name: str, width: int, base_width: int | None) -> float:
    """The factor on a parameter's first values, which are those of the base width."""
    return base_width / width if base_width is not None and name.endswith(_FINAL_NORMS) else 1.0


@torch.no_grad()
def start_for_width(model: "Transformer", base_width: int | None) -> None:
    """Scale the first values of a fresh model."""
    for name, parameter in model.named_parameters():
        scale = first_scale(name, _width(model), base_width)
        if scale != 1.0:
            parameter.mul_(scale)


def _width(model: nn.Module) -> int:
    return model.config.hidden_size  # type: ignore[union-attr, return-value]
