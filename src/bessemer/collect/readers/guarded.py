"""Readers whose parsers are easily led astray, in a child process with limits.

A PDF or an EPUB can be made so that a parser loops, recurses or allocates without end. The child is
allowed so much processor time for each file (not wall time: a busy machine must not change what is
collected) and so much memory; when it dies of either, the file is reported and a new child takes the
next one.
"""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from bessemer.collect.config import CollectConfig
from bessemer.collect.readers.pages import TEXT_TYPE, Fault, Page
from bessemer.errors import BessemerError

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
        self._child: subprocess.Popen[bytes] | None = None
        self._num_files = 0

    def __enter__(self) -> "GuardedReader":
        return self

    def __exit__(self, *error: object) -> None:
        self._stop()

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
        child = self._child or self._start()
        assert child.stdin is not None
        assert child.stdout is not None
        deadline = threading.Timer(self._config.document_cpu_s * _WALL_FACTOR, child.kill)
        deadline.start()
        line, content = b"", b""
        try:
            with suppress(BrokenPipeError):  # a child that is gone gives no answer either
                child.stdin.write(json.dumps(request).encode() + b"\n")
                child.stdin.flush()
            line = child.stdout.readline()
            answer = json.loads(line) if line.endswith(b"\n") else None
            content = child.stdout.read(answer["num_bytes"]) if answer else b""
        finally:
            deadline.cancel()
        if answer is None or len(content) < answer["num_bytes"]:
            reason = self._cause_of_death(child)
            self._stop()
            return {"faults": [{"place": "", "reason": reason}], "has_text": False}, b""
        self._num_files += 1
        if self._num_files >= _FILES_PER_CHILD:
            self._stop()
        return answer, content

    def _start(self) -> subprocess.Popen[bytes]:
        # -P keeps the working directory off the import path.
        self._child = subprocess.Popen(
            [sys.executable, "-P", "-m", _MODULE, str(self._config.document_memory_bytes)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=_environment(),
        )
        self._num_files = 0
        assert self._child.stdout is not None
        if not self._child.stdout.readline():
            self._stop()
            raise BessemerError(
                "the process that reads PDF and EPUB files did not start; to see why, run: "
                f"{sys.executable} -P -m {_MODULE} {self._config.document_memory_bytes} < /dev/null"
            )
        return self._child

    def _stop(self) -> None:
        child, self._child = self._child, None
        if child is not None:
            child.kill()
            with suppress(BrokenPipeError):
                child.communicate()

    def _cause_of_death(self, child: subprocess.Popen[bytes]) -> str:
        code = child.wait()
        limit_s = self._config.document_cpu_s
        if sys.platform != "win32":
            import signal

            if code == -signal.SIGXCPU:
                return f"too slow: its parser ran for more than {limit_s:g} s of processor time"
            if code == -signal.SIGKILL:
                return f"too slow: its parser gave no answer in {limit_s * _WALL_FACTOR:g} s, or was killed"
        return f"crashed the process that reads it: exit code {code}"


def _environment() -> dict[str, str]:
    """Nothing of the user's but the paths that imports need; a fixed hash seed."""
    kept = {name: os.environ[name] for name in ("SYSTEMROOT",) if name in os.environ}
    return kept | {
        "LANG": "C.UTF-8",
        "OMP_NUM_THREADS": "1",
        "PATH": os.defpath,
        "PYTHONHASHSEED": "0",
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
        "PYTHONUTF8": "1",
        "TZ": "UTC",
    }
