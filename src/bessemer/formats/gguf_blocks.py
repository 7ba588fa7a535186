"""The numbers of GGUF tensors: blocks of quantised weights, and what they stand for.

A block holds one or two float16 scales and small whole numbers q; its weights are scale * q + offset. The
"K" kinds are blocks of 256 in sub-blocks of 16 or 32 with quantised scales of their own (layouts:
`ggml-common.h` of https://github.com/ggml-org/ggml; I. Kawrakow 2023, llama.cpp pull request 1684).

Shapes: N blocks, B bytes or numbers of one field of a block.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

_HALF = np.dtype("<f2")
_NIBBLES, _PAIRS, _BITS = (0, 4), (0, 2, 4, 6), tuple(range(8))


@dataclass(frozen=True)
class Block:
    """One kind of block."""

    number: int
    """Its number in the file's table of tensors."""
    values: int
    """Weights that it holds."""
    layout: np.dtype
    """Its fields, in the order of their bytes."""
    weights: Callable[[np.ndarray], np.ndarray]
    """From N blocks to float32 weights [N, values]."""

    @property
    def bytes(self) -> int:
        """Bytes that it takes."""
        return self.layout.itemsize


def dequantize(raw: np.ndarray, kind: str) -> np.ndarray:
    """Whole blocks of a kind, as bytes, to their weights: a flat float32 array.

    Scales are taken as they are: NaN and infinity pass through.
    """
    block = BLOCKS[kind]
    with np.errstate(invalid="ignore", over="ignore"):
        return block.weights(raw.view(block.layout)).reshape(-1)


def _planes(field_NB: np.ndarray, width: int, shifts: tuple[int, ...], bits: int) -> np.ndarray:
    """Small numbers that lie side by side in bytes. Each `width` bytes hold as many numbers at every
    shift; all at the first shift come first, then those at the next. int16 [N, B * shifts]."""
    groups = field_NB.reshape(len(field_NB), -1, 1, width)
    planes = (groups >> np.array(shifts, dtype=np.uint8).reshape(-1, 1)) & np.uint8(2**bits - 1)
    return planes.reshape(len(field_NB), -1).astype(np.int16)


def _wide(field: np.ndarray) -> np.ndarray:
    """A scale a block, [N, 1] in float32."""
    return field.astype(np.float32).reshape(-1, 1)


def _scaled(q: np.ndarray, scales: np.ndarray, offsets: np.ndarray | None = None) -> np.ndarray:
    """scale * q - offset by sub-blocks: q is [N, values], scales and offsets [N, sub-blocks]."""
    parts = q.reshape(*scales.shape, -1).astype(np.float32) * scales[..., None]
    return (parts if offsets is None else parts - offsets[..., None]).reshape(q.shape)


def _six_bit_pairs(packed_N12: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The 8 scales and 8 offsets of Q4_K and Q5_K, 6 bits each. Bytes 0 to 3 hold the first four scales and
    4 to 7 the first four offsets, whose upper two bits are lent to the other four of each; bytes 8 to 11
    hold the lower four bits of those."""
    first, second, low = packed_N12[:, :4], packed_N12[:, 4:8], packed_N12[:, 8:]
    scales = np.concatenate((first & 63, (low & 15) | (first >> 6 << 4)), axis=1)
    offsets = np.concatenate((second & 63, (low >> 4) | (second >> 6 << 4)), axis=1)
    return scales.astype(np.float32), offsets.astype(np.float32)


def _q4_0(b: np.ndarray) -> np.ndarray:
    return (_planes(b["q"], 16, _NIBBLES, 4) - 8).astype(np.float32) * _wide(b["d"])


def _q4_1(b: np.ndarray) -> np.ndarray:
    return _planes(b["q"], 16, _NIBBLES, 4).astype(np.float32) * _wide(b["d"]) + _wide(b["m"])


def _fifth_bits(b: np.ndarray) -> np.ndarray:
    """Q5_0 and Q5_1: the lower four bits in halves, the fifth of every weight in turn."""
    high = np.unpackbits(b["h"], axis=1, bitorder="little").astype(np.int16)
    return _planes(b["q"], 16, _NIBBLES, 4) | (high << 4)


def _q5_0(b: np.ndarray) -> np.ndarray:
    return (_fifth_bits(b) - 16).astype(np.float32) * _wide(b["d"])


def _q5_1(b: np.ndarray) -> np.ndarray:
    return _fifth_bits(b).astype(np.float32) * _wide(b["d"]) + _wide(b["m"])


def _q8_0(b: np.ndarray) -> np.ndarray:
    return b["q"].astype(np.float32) * _wide(b["d"])


def _q2_k(b: np.ndarray) -> np.ndarray:
    scales = _wide(b["d"]) * (b["s"] & 15).astype(np.float32)
    offsets = _wide(b["m"]) * (b["s"] >> 4).astype(np.float32)
    return _scaled(_planes(b["q"], 32, _PAIRS, 2), scales, offsets)


def _q3_k(b: np.ndarray) -> np.ndarray:
    """16 scales of 6 bits: the lower four in two halves of 8 bytes, the upper two in 4 bytes. The third bit
    of a weight is one where nothing is to be taken off."""
    low = _planes(b["s"][:, :8], 8, _NIBBLES, 4)
    scales = (low | (_planes(b["s"][:, 8:], 4, _PAIRS, 2) << 4)) - 32
    q = _planes(b["q"], 32, _PAIRS, 2) + (_planes(b["h"], 32, _BITS, 1) << 2) - 4
    return _scaled(q, _wide(b["d"]) * scales.astype(np.float32))


def _q4_k(b: np.ndarray) -> np.ndarray:
    scales, offsets = _six_bit_pairs(b["s"])
    return _scaled(_planes(b["q"], 32, _NIBBLES, 4), _wide(b["d"]) * scales, _wide(b["m"]) * offsets)


def _q5_k(b: np.ndarray) -> np.ndarray:
    scales, offsets = _six_bit_pairs(b["s"])
    q = _planes(b["q"], 32, _NIBBLES, 4) | (_planes(b["h"], 32, _BITS, 1) << 4)
    return _scaled(q, _wide(b["d"]) * scales, _wide(b["m"]) * offsets)


def _q6_k(b: np.ndarray) -> np.ndarray:
    q = (_planes(b["q"], 64, _NIBBLES, 4) | (_planes(b["h"], 32, _PAIRS, 2) << 4)) - 32
    return _scaled(q, _wide(b["d"]) * b["s"].astype(np.float32))


def _bf16(b: np.ndarray) -> np.ndarray:
    """A bfloat16 is the upper half of a float32."""
    return (b["q"].astype(np.uint32) << 16).view(np.float32)


def _layout(*fields: tuple[str, str, int] | tuple[str, np.dtype]) -> np.dtype:
    return np.dtype(list(fields))


_D, _M = ("d", _HALF), ("m", _HALF)
BLOCKS: dict[str, Block] = {
    "F32": Block(0, 1, _layout(("q", "<f4", 1)), lambda b: b["q"]),
    "F16": Block(1, 1, _layout(("q", "<f2", 1)), lambda b: b["q"].astype(np.float32)),
    "BF16": Block(30, 1, _layout(("q", "<u2", 1)), _bf16),
    "Q4_0": Block(2, 32, _layout(_D, ("q", "u1", 16)), _q4_0),
    "Q4_1": Block(3, 32, _layout(_D, _M, ("q", "u1", 16)), _q4_1),
    "Q5_0": Block(6, 32, _layout(_D, ("h", "u1", 4), ("q", "u1", 16)), _q5_0),
    "Q5_1": Block(7, 32, _layout(_D, _M, ("h", "u1", 4), ("q", "u1", 16)), _q5_1),
    "Q8_0": Block(8, 32, _layout(_D, ("q", "i1", 32)), _q8_0),
    "Q2_K": Block(10, 256, _layout(("s", "u1", 16), ("q", "u1", 64), _D, _M), _q2_k),
    "Q3_K": Block(11, 256, _layout(("h", "u1", 32), ("q", "u1", 64), ("s", "u1", 12), _D), _q3_k),
    "Q4_K": Block(12, 256, _layout(_D, _M, ("s", "u1", 12), ("q", "u1", 128)), _q4_k),
    "Q5_K": Block(13, 256, _layout(_D, _M, ("s", "u1", 12), ("h", "u1", 32), ("q", "u1", 128)), _q5_k),
    "Q6_K": Block(14, 256, _layout(("q", "u1", 128), ("h", "u1", 64), ("s", "i1", 16), _D), _q6_k),
}
"""By the name that llama.cpp gives them."""
