"""The part of a row's scores that is not masked, cut into rectangles: packed documents see little of it.

Of 256 tokens in documents of 40, all pairs of tokens are six times as many as those that may see each
other. Rectangles of 64 queries, each with the keys that any of its queries sees, leave out most of the rest.

Shapes as in `bessemer.model.attention`.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor

from bessemer.model.kernels import visible_spans

_QUERIES = 64
_ALIGNMENT = 16
"""Keys begin at a multiple of this, for whole vectors in products."""
_LONGEST_JOINT_TOKENS = 512
"""Rows up to this length share one rectangle, from the first key that any of them needs: fewer, larger
products. Longer rows have their own."""


@dataclass(frozen=True)
class Tile:
    """Some queries, and keys among which are all that they see."""

    rows: slice
    """Of the batch."""
    queries: slice
    keys: slice
    visible_BTS: Tensor
    """Boolean, contiguous; B is 1 where all rows are alike."""
    _biases: dict[torch.dtype, Tensor] = field(default_factory=dict, repr=False)

    @cached_property
    def spans_BT2(self) -> Tensor:
        """The first key that each query sees and one past the last; for the fused softmax."""
        return visible_spans(self.visible_BTS)

    def bias_BTS(self, dtype: torch.dtype) -> Tensor:
        """0 where a key is visible and -inf where not: adding it is three times as fast on a CPU as
        filling by a boolean mask. Kept, so that all layers share one."""
        if dtype not in self._biases:
            hidden_BTS = ~self.visible_BTS
            zeros_BTS = torch.zeros(hidden_BTS.shape, dtype=dtype, device=hidden_BTS.device)
            self._biases[dtype] = zeros_BTS.masked_fill_(hidden_BTS, -torch.inf)
        return self._biases[dtype]


def whole(visible_BTS: Tensor) -> Tile:
    """All queries and keys."""
    _, num_queries, num_keys = visible_BTS.shape
    return Tile(slice(None), slice(0, num_queries), slice(0, num_keys), visible_BTS.contiguous())


def tiles(first_BT: Tensor, places_T: Tensor | None = None) -> list[Tile]:
    """Tiles of rows in which a query sees every key from `first_BT` to its own place.

    int64 [B or 1, T] on a CPU, not falling along a row. `places_T` are the queries' places among the keys,
    rising; default: the queries are at 0 … T-1.
    """
    num_rows, num_tokens = first_BT.shape
    if places_T is None:
        places_T = torch.arange(num_tokens)
    is_joint = num_tokens <= _LONGEST_JOINT_TOKENS or num_rows == 1
    groups = [slice(None)] if is_joint else [slice(row, row + 1) for row in range(num_rows)]
    keys_S = torch.arange(int(places_T[-1]) + 1)
    return [
        Tile(rows, queries, keys, visible(first_BT[rows, queries], places_T[queries], keys_S[keys]))
        for rows in groups
        for queries, keys in _rectangles(first_BT[rows], places_T)
    ]


def _rectangles(first_BT: Tensor, places_T: Tensor) -> Iterator[tuple[slice, slice]]:
    """Queries and keys of each tile of a group of rows."""
    num_tokens = first_BT.shape[1]
    earliest_T, places = first_BT.amin(0).tolist(), places_T.tolist()
    for start in range(0, num_tokens, _QUERIES):
        stop = min(start + _QUERIES, num_tokens)
        keys = slice(earliest_T[start] // _ALIGNMENT * _ALIGNMENT, places[stop - 1] + 1)
        yield slice(start, stop), keys


def visible(first_BT: Tensor, queries_T: Tensor, keys_S: Tensor) -> Tensor:
    """Boolean [B, T, S]: whether a key is from the first that its query sees to the query's own."""
    return (keys_S >= first_BT.unsqueeze(2)) & (keys_S <= queries_T.unsqueeze(1))


def first_visible(documents_BT: Tensor, window: int | None) -> Tensor:
    """int64 [B, T]: where each token's document begins, or the window where that is later."""
    num_tokens = documents_BT.shape[1]
    places_T = torch.arange(num_tokens, device=documents_BT.device)
    is_new_BT = torch.ones_like(documents_BT, dtype=torch.bool)
    is_new_BT[:, 1:] = documents_BT[:, 1:] != documents_BT[:, :-1]
    first_BT = torch.where(is_new_BT, places_T, 0).cummax(dim=1).values
    return first_BT if window is None else first_BT.maximum(places_T - (window - 1))
