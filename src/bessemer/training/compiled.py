"""Compilation of the model's blocks, where there is a compiler and it pays.

Each block is compiled as one region: they are all alike, so one compilation serves them all, and torch
keeps it in its cache folder for the next start. On a CPU the project's own kernels are left for torch's
operations inside a compiled block, because a compiler cannot see into them.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from bessemer.model.kernels import torch_operations
from bessemer.model.transformer import AroundBlock


def plain(block: Any, *inputs: Any) -> Tensor:
    """The block itself."""
    return block(*inputs)


def compiled(say: Callable[[str], None]) -> AroundBlock:
    """Blocks compiled by torch, or as they are, with one line that says why, where that fails."""
    reason = _why_not()
    if reason is not None:
        say(f"compile: no working compiler ({reason}); training goes on without")
        return plain
    return _Compiled(say)


class _Compiled:
    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._run: AroundBlock = torch.compile(plain, dynamic=False)
        self._has_failed = False

    def __call__(self, block: Any, *inputs: Any) -> Tensor:
        # Validations and samples come in ever other shapes, and each would be compiled anew.
        if self._has_failed or not torch.is_grad_enabled():
            return plain(block, *inputs)
        try:
            with torch_operations():
                return self._run(block, *inputs)
        except Exception as error:  # the compiler's own are of many types
            self._has_failed = True
            self._say(f"compile: failed ({_first_line(error)}); training goes on without")
            return plain(block, *inputs)


def _why_not() -> str | None:
    """None where a small function can be compiled and run, else the reason."""
    try:
        doubled = torch.compile(lambda x: x * 2 + 1, dynamic=False)(torch.ones(8))
    except Exception as error:
        return _first_line(error)
    return None if torch.equal(doubled, torch.full((8,), 3.0)) else "it computes wrong numbers"


def _first_line(error: Exception) -> str:
    lines = [line for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0].strip()}" if lines else type(error).__name__
