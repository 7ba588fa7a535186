"""The one place that decides between torch's own operations and the fused CPU kernels."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from torch import Tensor

_is_enabled: ContextVar[bool] = ContextVar("fused_kernels", default=True)


def is_fused(x: Tensor) -> bool:
    """Whether the work on x goes to the kernels of this package: on a CPU, in bfloat16 or float32.

    It does for any size: a call costs a few microseconds, less than the several operations of torch
    that it stands for, and small inputs stay on the calling thread.
    """
    return x.device.type == "cpu" and x.dtype in (torch.bfloat16, torch.float32) and _is_enabled.get()


@contextmanager
def torch_operations() -> Iterator[None]:
    """Within it, forward passes use torch's own operations on every device: the reference that tests
    and benchmarks compare with."""
    token = _is_enabled.set(False)
    try:
        yield
    finally:
        _is_enabled.reset(token)
