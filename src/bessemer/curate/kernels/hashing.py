"""64-bit hashing inside kernels. With 64 bits, a million distinct n-grams collide with p < 3e-8."""

import numpy as np
from numba import njit

FNV_OFFSET = np.uint64(0xCBF29CE484222325)
FNV_PRIME = np.uint64(0x100000001B3)
"""FNV-1a, 64 bits (Fowler, Noll, Vo)."""
_MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2 = np.uint64(0x94D049BB133111EB)
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


@njit(cache=True)
def finalize(state):
    """SplitMix64's finaliser (Steele, Lea, Flood 2014): a bijection in which every bit affects every bit."""
    state = (state ^ (state >> np.uint64(30))) * _MIX_1
    state = (state ^ (state >> np.uint64(27))) * _MIX_2
    return state ^ (state >> np.uint64(31))


@njit(cache=True)
def extend(state, item):
    """Hash of a sequence from the hash of its head and its last item; order matters."""
    return finalize((state + _GOLDEN) ^ (item * FNV_PRIME))


@njit(cache=True)
def insert(keys, is_used, mask, key):
    """Slot of `key` in an open-addressing table (linear probing), and whether it was new there."""
    slot = np.int64(key & np.uint64(mask))
    while is_used[slot]:
        if keys[slot] == key:
            return slot, False
        slot = (slot + 1) & mask
    is_used[slot] = True
    keys[slot] = key
    return slot, True


@njit(cache=True)
def table_size(num_items):
    """A power of two that keeps the table at most half full."""
    size = 16
    while size < 2 * num_items:
        size *= 2
    return size
