"""Texts as the kernels read them: one UTF-8 buffer and offsets."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Column = NDArray[np.float64]


def pack(texts: Sequence[str]) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Texts as one UTF-8 buffer and byte offsets [documents + 1]. Texts must hold no lone surrogates."""
    encoded = [text.encode() for text in texts]
    offsets = np.zeros(len(encoded) + 1, np.int64)
    np.cumsum([len(text) for text in encoded], out=offsets[1:])
    return np.frombuffer(b"".join(encoded), np.uint8), offsets


def ratio(numerator: NDArray, denominator: NDArray) -> Column:
    """Elementwise, and 0 over nothing."""
    result = np.zeros(len(numerator), np.float64)
    return np.divide(numerator, denominator, out=result, where=denominator > 0)
