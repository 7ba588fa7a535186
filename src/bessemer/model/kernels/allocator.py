"""Keeping freed memory in the process, so that each step reuses the pages of the one before."""

import ctypes
import platform

# mallopt(3), from glibc's <malloc.h>.
_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
# The most that glibc takes for the mmap threshold on 64-bit machines (HEAP_MAX_SIZE / 2).
_LARGEST_ON_HEAP_BYTES = 32 * 2**20
_NEVER_TRIM_BYTES = 2**31 - 1


def tune_allocator() -> bool:
    """Let glibc serve large tensors from its heap and keep the heap when they are freed.

    By default every large tensor is mapped afresh, and each of its pages faults on first use. Call
    once, at the start of a stage that trains. Returns whether it had an effect: False off glibc.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    libc = ctypes.CDLL(None)
    taken = libc.mallopt(_M_MMAP_THRESHOLD, _LARGEST_ON_HEAP_BYTES)
    return bool(taken and libc.mallopt(_M_TRIM_THRESHOLD, _NEVER_TRIM_BYTES))
