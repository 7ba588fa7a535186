"""Memory that one step frees is kept for the next, instead of given back to the system and faulted in anew.

glibc maps large blocks one by one and unmaps them when they are freed, so each activation of each step is
made of fresh pages that the kernel has to clear: with a 10 M model half a million page faults in five steps,
and a tenth of the time. With these settings (mallopt(3)) large blocks come from the heap, and it does not
shrink.
"""

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager

# Parameters of mallopt and the values of a process that never called it; <malloc.h>, mallopt(3).
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
_KEEP_ALL = 2**31 - 1
_USUAL_TRIM = 128 << 10
_USUAL_MMAP = 32 << 20
"""Where glibc's own moving threshold ends."""


@contextmanager
def recycled_memory() -> Iterator[None]:
    """Within it, this process keeps freed memory for itself; at its end the system gets it back.

    Does nothing where the C library has no such settings.
    """
    library = ctypes.CDLL(None)
    if not hasattr(library, "mallopt"):
        yield
        return
    library.mallopt(_MMAP_THRESHOLD, _KEEP_ALL)
    library.mallopt(_TRIM_THRESHOLD, _KEEP_ALL)
    try:
        yield
    finally:
        library.mallopt(_MMAP_THRESHOLD, _USUAL_MMAP)
        library.mallopt(_TRIM_THRESHOLD, _USUAL_TRIM)
        library.malloc_trim(0)
