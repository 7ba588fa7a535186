"""A child process that answers requests one by one, can be stopped, and is made anew now and then.

For foreign parsers that loop, allocate without end, crash or leak on some input: what harms them harms the
child. A request is bytes that the child knows the end of; an answer is a line of JSON with at least
`num_bytes`, and so many bytes after it. A first empty line says that the child is ready.
"""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from bessemer.errors import BessemerError


class ChildDied(Exception):
    """The child ended, or was ended, over a request; the next one gets a new child."""

    def __init__(self, code: int) -> None:
        super().__init__(f"exit code {code}")
        self.code = code
        """As `subprocess.Popen.returncode`: negative for a signal."""

    def is_by(self, signal_name: str) -> bool:
        """Whether that signal ended it; false where there is no such signal."""
        import signal

        number = getattr(signal, signal_name, None)
        return number is not None and self.code == -number


class RecycledChild:
    """Started when it is first needed. `close` ends it."""

    def __init__(
        self, command: Sequence[str], description: str, *, wall_s: float, requests_per_child: int
    ) -> None:
        """`description` names the child in the error that says why it did not start. After `wall_s` seconds
        without an answer it is killed: limits of processor time are its own affair."""
        self._command, self._description = list(command), description
        self._wall_s, self._requests_per_child = wall_s, requests_per_child
        self._child: subprocess.Popen[bytes] | None = None
        self._num_requests = 0

    def ask(self, request: bytes) -> tuple[dict[str, Any], bytes]:
        """Head and content of the answer.

        Raises ChildDied when there is none, and BessemerError when no child can be started.
        """
        child = self._child or self._start()
        answer, content = self._exchange(child, request)
        if answer is None:
            code = child.wait()
            self.close()
            raise ChildDied(code)
        self._num_requests += 1
        if self._num_requests >= self._requests_per_child:
            self.close()
        return answer, content

    def close(self) -> None:
        """End the child, if there is one."""
        child, self._child = self._child, None
        if child is not None:
            child.kill()
            with suppress(BrokenPipeError):
                child.communicate()

    def _exchange(
        self, child: subprocess.Popen[bytes], request: bytes
    ) -> tuple[dict[str, Any] | None, bytes]:
        """None where the child died of the request."""
        assert child.stdin is not None
        assert child.stdout is not None
        deadline = threading.Timer(self._wall_s, child.kill)
        deadline.daemon = True
        deadline.start()
        try:
            with suppress(BrokenPipeError):  # a child that is gone gives no answer either
                child.stdin.write(request)
                child.stdin.flush()
            line = child.stdout.readline()
            answer = json.loads(line) if line.endswith(b"\n") else None
            content = child.stdout.read(answer["num_bytes"]) if answer else b""
        finally:
            deadline.cancel()
        is_whole = answer is not None and len(content) == answer["num_bytes"]
        return (answer, content) if is_whole else (None, b"")

    def _start(self) -> subprocess.Popen[bytes]:
        self._child = subprocess.Popen(
            self._command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=_environment(),
        )
        self._num_requests = 0
        assert self._child.stdout is not None
        if not self._child.stdout.readline():
            self.close()
            raise BessemerError(f"{self._description} To see why, run: {' '.join(self._command)} < /dev/null")
        return self._child


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
