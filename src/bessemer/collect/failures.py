"""`crawl.jsonl`: one line for each URL, file or row that was tried and gave no page, or a faulty one."""

import json
import os
from collections import Counter
from collections.abc import Collection
from pathlib import Path

FAILURES_NAME = "crawl.jsonl"


class FailureLog:
    """Appends `{"url": …, "reason": …}` lines; reopened at an offset, it drops what lies beyond.

    Lines with `"kept": true` are faults of pages that are in the archive all the same.

    The file exists only if something failed. Use it as a context manager.
    """

    def __init__(self, folder: Path, offset: int = 0) -> None:
        self._path = folder / FAILURES_NAME
        self._offset = offset
        if self._path.exists():
            os.truncate(self._path, offset)
            if offset == 0:
                self._path.unlink()
        self._file = None

    def __enter__(self) -> "FailureLog":
        return self

    def __exit__(self, *error: object) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def add(self, url: str, reason: str, is_kept: bool = False) -> None:
        """Report one failure, or (`is_kept`) a fault of a page that is in the archive all the same."""
        if self._file is None:
            self._file = self._path.open("ab")
        # ASCII, because a URL or a reason may quote text that UTF-8 cannot hold.
        told = {"url": url, "reason": reason, **({"kept": True} if is_kept else {})}
        line = json.dumps(told).encode() + b"\n"
        self._file.write(line)
        self._offset += len(line)

    def sync(self) -> int:
        """Make the lines durable. Returns the offset to continue from."""
        if self._file is not None:
            self._file.flush()
            os.fsync(self._file.fileno())
        return self._offset


def first_failure(folder: Path) -> str | None:
    """The first line in words, None when nothing failed."""
    path = folder / FAILURES_NAME
    if not path.exists():
        return None
    with path.open("rb") as file:
        line = json.loads(file.readline())
    return f"{line['url']}: {line['reason']}"


def failure_of(folder: Path, urls: Collection[str]) -> str | None:
    """Why a URL, in one of its spellings, gave no page; None when nothing is told of it."""
    path = folder / FAILURES_NAME
    if not path.exists():
        return None
    with path.open("rb") as file:
        told = map(json.loads, file)
        reasons = (line["reason"] for line in told if line["url"] in urls and not line.get("kept", False))
        return next(reasons, None)


def count_failures(folder: Path, is_kept: bool = False) -> Counter[str]:
    """Failures by kind: the reason up to its first colon. With `is_kept`, faults of pages that were kept."""
    path = folder / FAILURES_NAME
    if not path.exists():
        return Counter()
    with path.open("rb") as file:
        told = map(json.loads, file)
        return Counter(
            line["reason"].partition(":")[0] for line in told if line.get("kept", False) == is_kept
        )
