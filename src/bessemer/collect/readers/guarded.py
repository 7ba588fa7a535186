"""Readers whose parsers are easily led astray, in a child process with limits.

A PDF or an EPUB can be made so that a parser loops, recurses or allocates without end. The child is
allowed so much processor time for each file (not wall time: a busy machine must not change what is
collected) and so much memory; when it dies of either, the file is reported and a new child takes the
next one.
"""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bessemer.collect.config import CollectConfig
from bessemer.collect.readers.pages import TEXT_TYPE, Fault, Page
from bessemer.runner.recycled_child import ChildDied, RecycledChild

_FILES_PER_CHILD = 200
"""A fresh child now and then, so that what a parser leaks does not add up."""
_WALL_FACTOR = 20
"""A child that waits instead of computing is ended as well, after so many times its processor time."""
_MODULE = "bessemer.collect.readers.child"


class GuardedReader:
    """Reads PDF and EPUB files through a child process, started when it is first needed.

    A context manager: leaving it ends the child.
    """

    def __init__(self, config: CollectConfig) -> None:
        self._config = config
        self._wall_s = config.document_cpu_s * _WALL_FACTOR
        self._child = RecycledChild(
            # -P keeps the working directory off the import path.
            [sys.executable, "-P", "-m", _MODULE, str(config.document_memory_bytes)],
            "the process that reads PDF and EPUB files did not start.",
            wall_s=self._wall_s,
            requests_per_child=_FILES_PER_CHILD,
        )

    def __enter__(self) -> "GuardedReader":
        return self

    def __exit__(self, *error: object) -> None:
        self._child.close()

    def read(self, path: Path, file_format: str) -> Iterator[Page | Fault]:
        """The text of a file as one page, or why there is none; parts that gave nothing are reported too."""
        request = {
            "path": str(path),
            "format": file_format,
            "max_bytes": self._config.max_document_bytes,
            "cpu_s": self._config.document_cpu_s,
        }
        answer, content = self._ask(request)
        for fault in answer["faults"]:
            yield Fault(fault["place"], fault["reason"], is_kept=answer["has_text"])
        if answer["has_text"]:
            yield Page(TEXT_TYPE, content, is_converted=True, about=answer["about"])

    def _ask(self, request: dict[str, Any]) -> tuple[dict[str, Any], bytes]:
        try:
            return self._child.ask(json.dumps(request).encode() + b"\n")
        except ChildDied as death:
            return {"faults": [{"place": "", "reason": self._reason(death)}], "has_text": False}, b""

    def _reason(self, death: ChildDied) -> str:
        if death.is_by("SIGXCPU"):
            return (
                f"too slow: its parser ran for more than {self._config.document_cpu_s:g} s of processor time"
            )
        if death.is_by("SIGKILL"):
            return f"too slow: its parser gave no answer in {self._wall_s:g} s, or was killed"
        return f"crashed the process that reads it: exit code {death.code}"
