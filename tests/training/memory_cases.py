"""What autograd keeps, counted while a model or a pipeline works."""

from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor


@dataclass
class Kept:
    """Bytes of the storages that saved tensors lie in, each counted once."""

    left_out: set[int]
    """Addresses of storages that would be there anyway, such as parameters."""
    now: int = 0
    most: int = 0
    _users: Counter[int] = field(default_factory=Counter)

    def add(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        address = storage.data_ptr()
        if address in self.left_out or not storage.nbytes():
            return
        if not self._users[address]:
            self.now += storage.nbytes()
            self.most = max(self.most, self.now)
        self._users[address] += 1

    def remove(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        address = storage.data_ptr()
        if self._users[address]:
            self._users[address] -= 1
            if not self._users[address]:
                self.now -= storage.nbytes()


class _Saved:
    """A tensor that autograd keeps until it lets go of this."""

    def __init__(self, tensor: Tensor, kept: Kept) -> None:
        self.tensor, self.kept = tensor, kept
        kept.add(tensor)

    def __del__(self) -> None:
        self.kept.remove(self.tensor)


@contextmanager
def counted(left_out: Iterable[Tensor]) -> Iterator[Kept]:
    """Counts what is saved for backward passes within."""
    kept = Kept({tensor.untyped_storage().data_ptr() for tensor in left_out})
    with torch.autograd.graph.saved_tensors_hooks(lambda t: _Saved(t, kept), lambda saved: saved.tensor):
        yield kept
