"""Exact repetition by 128-bit keys: the same URL, the same text, the same paragraph.

With 128 bits, a billion distinct keys hold two equal ones with p < 2e-21.
"""

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from bessemer.curate.dedup.external_sort import ExternalSorter, unpack_numbers

Keys = NDArray[np.uint64]
"""[n, 2]"""


def repeats(
    sorter: ExternalSorter, number_bits: int, keys_of: Callable[[NDArray[np.int64]], Keys]
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Numbers whose key occurred before, and the first number with that key; in pieces.

    `sorter` holds the first word of every key packed with its number (`external_sort.pack`); `keys_of`
    reads whole keys by ascending numbers. Only numbers that share a prefix are looked up.
    """
    carried = np.empty(0, np.uint64)
    for chunk in sorter.chunks():
        values = np.concatenate([carried, chunk])
        prefixes = values >> np.uint64(number_bits)
        is_equal = prefixes[1:] == prefixes[:-1]
        is_candidate = np.zeros(len(values), np.bool_)
        is_candidate[1:] |= is_equal
        is_candidate[:-1] |= is_equal
        candidates = np.sort(unpack_numbers(values[is_candidate], number_bits))
        later, first = _repeated(candidates, keys_of(candidates))
        yield later, first
        # The last prefix may go on in the next chunk: its first occurrences stay in play.
        last = values[prefixes == prefixes[-1]]
        carried = last[~np.isin(unpack_numbers(last, number_bits), later)]


def _repeated(numbers: NDArray[np.int64], keys: Keys) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Of ascending numbers with their keys: those that repeat one, and the first with that key."""
    order = np.lexsort((numbers, keys[:, 1], keys[:, 0]))
    ordered, keys = numbers[order], keys[order]
    is_first = np.ones(len(ordered), np.bool_)
    is_first[1:] = (keys[1:] != keys[:-1]).any(axis=1)
    first = ordered[np.flatnonzero(is_first)[np.cumsum(is_first) - 1]] if len(ordered) else ordered
    return ordered[~is_first], first[~is_first]
