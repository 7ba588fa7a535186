"""One process at a time in a run folder.

The lock is a POSIX record lock (`fcntl.lockf`), not `flock`: worker processes that a stage forks
would share a `flock` and, left over after kill -9 of their parent, keep the run locked for ever.
The price: closing any descriptor of the lock file in the holding process gives the lock up, so
nothing but this module may open it.
"""

import fcntl
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bessemer.errors import BessemerError


@contextmanager
def hold_lock(path: Path) -> Iterator[None]:
    """Hold the lock while the block runs. Raises BessemerError naming the process that has it."""
    with path.open("a+", encoding="utf-8") as file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            file.seek(0)
            holder = file.read().strip() or "another process"
            raise BessemerError(
                f"{path.parent} is in use by {holder}: wait until it ends, stop it, "
                "or work in another folder with --runs-folder"
            ) from None
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}")
        file.flush()
        yield
        file.truncate(0)


def lock_holder(path: Path) -> str | None:
    """Who holds the lock, None when nobody does. Not to be called by the holder itself (see above)."""
    if not path.exists():
        return None
    try:
        file = path.open("r+", encoding="utf-8")
    except PermissionError:
        return None  # a folder that cannot be written to is not being run by this user
    with file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            return file.read().strip() or "another process"
    return None
