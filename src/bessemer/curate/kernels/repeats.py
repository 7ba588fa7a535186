"""Finding what occurs more than once, without looking up what does not.

Of the n-grams of a text few repeat. A first pass over small marks, one byte each, finds those that may; only
they go into a table of exact keys. A longer n-gram can repeat only where both shorter ones in it do.
"""

import numpy as np
from numba import njit

from bessemer.curate.kernels.hashing import table_size

_SPREAD = np.uint64(0x9E3779B97F4A7C15)
"""Odd, so that a product's upper bits depend on all bits of a key (Knuth's multiplicative hashing)."""
_MARKS_PER_KEY = 8
"""Of a table that is at least twice the number of keys: about 6 % of keys share a mark by chance."""


@njit(cache=True)
def num_marks(num_keys):
    """Room that `mark` needs for so many keys."""
    return _MARKS_PER_KEY * table_size(num_keys)


@njit(cache=True)
def mark(keys, marks):
    """Note in `marks` (uint8, as many as `num_marks` says) which keys are there once, and which more."""
    for i in range(len(marks)):
        marks[i] = 0
    for i in range(len(keys)):
        place = _place(keys[i], marks)
        marks[place] = 1 + (marks[place] > 0)


@njit(cache=True)
def may_repeat(key, marks):
    """Whether a marked key is there more than once, or shares its mark with another."""
    return marks[_place(key, marks)] > 1


@njit(cache=True)
def _place(key, marks):
    return (((key ^ (key >> np.uint64(29))) * _SPREAD) >> np.uint64(32)) & np.uint64(len(marks) - 1)


@njit(cache=True)
def look_up(keys, tallies, mask, key):
    """Slot of a key in a table of mask + 1 slots, in which a tally of 0 means empty."""
    slot = key & np.uint64(mask)
    while tallies[slot] != 0 and keys[slot] != key:
        slot = (slot + np.uint64(1)) & np.uint64(mask)
    return slot
