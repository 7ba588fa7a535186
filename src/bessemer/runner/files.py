"""Durable file operations: checksums, atomic writes, fsynced renames."""

import errno
import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO


def sha256_of(path: Path) -> str:
    """SHA-256 of a file's content, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fsync_folder(folder: Path) -> None:
    """Make renames and new names inside `folder` durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def fsync_tree(folder: Path) -> None:
    """Make every file and folder below `folder` durable."""
    for root, _, names in os.walk(folder):
        for name in names:
            with open(os.path.join(root, name), "rb") as file:
                os.fsync(file.fileno())
        fsync_folder(Path(root))


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file so that a reader sees the old content or the new, never a part."""
    with written_atomically(path) as file:
        file.write(content)


@contextmanager
def written_atomically(path: Path) -> Iterator[BinaryIO]:
    """A file to write, which takes its place when the context is left without an error.

    Until then, and after an error, a reader sees the old content.
    """
    partial = path.with_name(f".{path.name}.partial")
    with partial.open("wb") as file:
        yield file
        file.flush()
        os.fsync(file.fileno())
    os.replace(partial, path)
    fsync_folder(path.parent)


def replace_folder(source: Path, target: Path) -> None:
    """Move a complete folder into place; an old one at `target` is set aside first, then deleted."""
    aside = _aside(target)
    shutil.rmtree(aside, ignore_errors=True)
    if target.exists():
        os.rename(target, aside)
    os.rename(source, target)
    fsync_folder(target.parent)
    shutil.rmtree(aside, ignore_errors=True)


def remove_folder(folder: Path) -> None:
    """Delete a folder, if it is there, so that a kill half-way leaves none of it under its name."""
    if not folder.exists():
        return
    aside = _aside(folder)
    shutil.rmtree(aside, ignore_errors=True)
    os.rename(folder, aside)
    fsync_folder(folder.parent)
    shutil.rmtree(aside)


def _aside(folder: Path) -> Path:
    """Where a folder on its way out lies: `.<name>.old` beside it."""
    return folder.with_name(f".{folder.name}.old")


def is_disk_full(error: BaseException | None) -> bool:
    """Whether an exception, or one behind it, is the system's "no space" or "quota exceeded".

    Libraries in other languages pass only the system's words on, so these count too.
    """
    codes = (errno.ENOSPC, errno.EDQUOT)
    while error is not None:
        if isinstance(error, OSError) and error.errno in codes:
            return True
        if any(os.strerror(code) in str(error) for code in codes):
            return True
        error = error.__cause__ or error.__context__
    return False
