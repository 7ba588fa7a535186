"""Worker processes that do not outlive a killed run."""

import multiprocessing
import os
import threading
from multiprocessing.connection import wait


def exit_with_parent() -> None:
    """Initializer for a process pool: the worker ends when its parent does, even by kill -9.

    Without it the workers of a killed run wait for work for ever, and what they were writing at the
    time may get in the way of the run that continues. Does nothing in a process without a parent.
    """
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_watch, args=(parent.sentinel,), name="parent watch", daemon=True).start()


def _watch(sentinel: int) -> None:
    wait([sentinel])
    os._exit(1)  # at once: whatever the worker would still write is no longer wanted
