"""Keys and values of every row of a batch, in buffers allocated once.

Active rows are always the first `num_rows`; each has its own length, so prompts of different lengths
share a batch without padding between prompt and completion.

Shapes: L layers, B active rows, R rows allocated, T new tokens, S slots, K key/value heads, E head
dimension.
"""

import torch
from torch import Tensor

from bessemer.model.attention import AttentionMask
from bessemer.model.config import ModelConfig

_CLEAN_STRIDE_SLOTS = 64


def cache_bytes_per_row(config: ModelConfig, num_slots: int, dtype: torch.dtype) -> int:
    """Bytes that one row of `num_slots` tokens takes."""
    values = 2 * config.num_hidden_layers * config.num_key_value_heads * config.head_dim * num_slots
    return values * dtype.itemsize


class KeyValueCache:
    """Implements `bessemer.model.transformer.Cache`. One forward of the model is `positions` and
    `mask`, one `store` a layer, then the caller's `advance`."""

    def __init__(
        self, config: ModelConfig, max_rows: int, num_slots: int, dtype: torch.dtype, device: torch.device
    ) -> None:
        # [L, R, K, S, E]: a row's slots are contiguous, so a slice of them is a matrix without a copy.
        shape = (config.num_hidden_layers, max_rows, config.num_key_value_heads, num_slots, config.head_dim)
        self._keys = torch.empty(shape, dtype=dtype, device=device)
        self._values = torch.empty(shape, dtype=dtype, device=device)
        self._lengths_R = torch.zeros(max_rows, dtype=torch.int64, device=device)
        self._longest = 0
        self._num_clean_slots = 0
        self.num_rows = 0

    @property
    def lengths_B(self) -> Tensor:
        """Tokens held by each active row."""
        return self._lengths_R[: self.num_rows]

    def open_rows(self, num_rows: int) -> None:
        """Start with `num_rows` empty rows."""
        assert num_rows <= len(self._lengths_R), "more rows than were allocated"
        self.num_rows, self._longest = num_rows, 0
        self._lengths_R.zero_()

    def positions(self, num_tokens: int) -> Tensor:
        """positions_BT of the next tokens: they continue each row."""
        return self.lengths_B.unsqueeze(1) + torch.arange(num_tokens, device=self._lengths_R.device)

    def mask(self, num_tokens: int, window: int | None = None) -> AttentionMask:
        """Each new token sees its row's slots up to its own, the last `window` of them; what lies beyond a
        row's end is never seen."""
        num_slots = self._longest + num_tokens
        slots_S = torch.arange(num_slots, device=self._lengths_R.device)
        positions_BT1 = self.positions(num_tokens).unsqueeze(2)
        visible_BTS = slots_S <= positions_BT1
        if window is not None and window < num_slots:
            visible_BTS = visible_BTS & (slots_S > positions_BT1 - window)
        return AttentionMask(visible_BTS, num_tokens, self._lengths_R.device)

    def store(self, layer: int, k_BTKE: Tensor, v_BTKE: Tensor) -> tuple[Tensor, Tensor]:
        """Write the new tokens behind each row's old ones; return views of both, [B, S, K, E]."""
        num_tokens = k_BTKE.shape[1]
        num_slots = self._longest + num_tokens
        self._clean(num_slots)
        keys, values = self._keys[layer, : self.num_rows], self._values[layer, : self.num_rows]
        if self._longest == 0:
            keys[:, :, :num_tokens] = k_BTKE.transpose(1, 2)
            values[:, :, :num_tokens] = v_BTKE.transpose(1, 2)
        else:
            rows_B1 = torch.arange(self.num_rows, device=keys.device).unsqueeze(1)
            slots_BT = self.positions(num_tokens)
            keys.transpose(1, 2)[rows_B1, slots_BT] = k_BTKE
            values.transpose(1, 2)[rows_B1, slots_BT] = v_BTKE
        return keys[:, :, :num_slots].transpose(1, 2), values[:, :, :num_slots].transpose(1, 2)

    def advance(self, num_tokens_B: Tensor | int) -> None:
        """Count the tokens just stored; fewer than were stored where a row's end was padding."""
        self.lengths_B.add_(num_tokens_B)
        self._measure()

    def keep(self, rows: Tensor) -> None:
        """Keep only these active rows (ascending); rows from the end move into the gaps, so that row i
        is then what row `surviving_order(rows)[i]` was."""
        order = surviving_order(rows)
        moved = order != torch.arange(len(order), device=order.device)
        if bool(moved.any()):
            targets, sources = moved.nonzero().squeeze(1), order[moved]
            used = slice(0, self._longest)
            self._keys[:, targets, :, used] = self._keys[:, sources, :, used]
            self._values[:, targets, :, used] = self._values[:, sources, :, used]
            self._lengths_R[targets] = self._lengths_R[sources]
        self.num_rows = len(order)
        self._measure()

    def append(self, other: "KeyValueCache") -> None:
        """Add the rows of another cache behind the active ones."""
        start, stop = self.num_rows, self.num_rows + other.num_rows
        assert stop <= len(self._lengths_R), "more rows than were allocated"
        self._clean(max(self._longest, other._longest))
        used = slice(0, other._longest)
        self._keys[:, start:stop, :, used] = other._keys[:, : other.num_rows, :, used]
        self._values[:, start:stop, :, used] = other._values[:, : other.num_rows, :, used]
        self._lengths_R[start:stop] = other.lengths_B
        self.num_rows = stop
        self._measure()

    def _clean(self, num_slots: int) -> None:
        """Zero slots before their first use: a masked slot has probability zero, but zero times whatever
        fresh memory holds may be NaN. In strides, so that memory that is never used is never touched."""
        if num_slots > self._num_clean_slots:
            stop = min(-(-num_slots // _CLEAN_STRIDE_SLOTS) * _CLEAN_STRIDE_SLOTS, self._keys.shape[3])
            for buffer in (self._keys, self._values):
                buffer[:, :, :, self._num_clean_slots : stop].zero_()
            self._num_clean_slots = stop

    def _measure(self) -> None:
        self._longest = int(self.lengths_B.max()) if self.num_rows else 0


def surviving_order(rows: Tensor) -> Tensor:
    """Old row of each new row when only `rows` (ascending) stay: as many as can stay in place do.

    Rows below the new count keep their place; the others fill the gaps in order.
    """
    count = len(rows)
    order = torch.arange(count, device=rows.device)
    is_kept = torch.zeros(count, dtype=torch.bool, device=rows.device)
    is_kept[rows[rows < count]] = True
    order[~is_kept] = rows[rows >= count]
    return order
