"""The main text by trafilatura (Barbaresi 2021, doi:10.18653/v1/2021.acl-demo.15), in a child process.

trafilatura is known to loop, to ask for gigabytes and to leak on some pages, so it runs where it can be
stopped: the child is allowed so much processor time for a page (not wall time: a busy machine must not
change the text) and so much memory. When it dies of either, the page is told to the caller and the
next page gets a new child. A new one comes every few hundred pages anyway.
"""

import atexit
import json
import os
import subprocess
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress
from functools import lru_cache
from pathlib import Path

from bessemer.curate.extraction.config import PRECISE_EXTRA
from bessemer.errors import BessemerError

PAGES_PER_CHILD = 300
"""trafilatura has been reported to leak about 1 MB a page."""
MAX_CHILD_BYTES = 2 << 30
"""Address space of the child; its libraries take some 300 MB of it."""
_WALL_FACTOR = 20
MIN_WALL_S = 10.0
"""A child that waits instead of computing is ended as well: after so many times its processor time, but not
sooner than this."""
_CHILD = (sys.executable, "-P", str(Path(__file__).with_name("precise_child.py")))
"""As a script, which imports trafilatura and nothing of this package: a child starts in half the time. -P
keeps its folder off the import path."""


class PreciseFault(Exception):
    """A page that trafilatura gave no answer for, and why in words."""


class PreciseExtractor:
    """Asks trafilatura through a child process, started when it is first needed. `close` ends the child."""

    def __init__(self, cpu_s: float, command: Sequence[str] = _CHILD) -> None:
        self._cpu_s = cpu_s
        self._wall_s = max(cpu_s * _WALL_FACTOR, MIN_WALL_S)
        self._command = [*command, repr(cpu_s), str(MAX_CHILD_BYTES)]
        self._child: subprocess.Popen[bytes] | None = None
        self._num_pages = 0

    def extract(self, html: str) -> str:
        """The main text; empty where it finds none.

        Raises PreciseFault for a page that takes too long, asks for too much or breaks the parser, and
        BessemerError when no child can be started.
        """
        child = self._child or self._start()
        answer, content = self._ask(child, html.encode("utf-8", "replace"))
        if answer is None:
            reason = self._cause_of_death(child)
            self.close()
            raise PreciseFault(reason)
        self._num_pages += 1
        if self._num_pages >= PAGES_PER_CHILD:
            self.close()
        if answer["fault"] is not None:
            raise PreciseFault(answer["fault"])
        return content.decode()

    def close(self) -> None:
        """End the child, if there is one."""
        child, self._child = self._child, None
        if child is not None:
            child.kill()
            with suppress(BrokenPipeError):
                child.communicate()

    def _ask(self, child: subprocess.Popen[bytes], page: bytes) -> tuple[dict[str, object] | None, bytes]:
        """Head and text of the answer; None where the child died of the page."""
        assert child.stdin is not None
        assert child.stdout is not None
        deadline = threading.Timer(self._wall_s, child.kill)
        deadline.daemon = True
        deadline.start()
        try:
            with suppress(BrokenPipeError):  # a child that is gone gives no answer either
                child.stdin.write(b"%d\n" % len(page) + page)
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
        self._num_pages = 0
        assert self._child.stdout is not None
        if not self._child.stdout.readline():
            self.close()
            raise BessemerError(
                "the process that runs trafilatura did not start. Is it installed whole? "
                f"{PRECISE_EXTRA}. To see why, run: {' '.join(self._command)} < /dev/null"
            )
        return self._child

    def _cause_of_death(self, child: subprocess.Popen[bytes]) -> str:
        code = child.wait()
        if sys.platform != "win32":
            import signal

            if code == -signal.SIGPROF:
                return f"deadline: more than {self._cpu_s:g} s of processor time"
            if code == -signal.SIGKILL:
                return f"deadline: no answer in {self._wall_s:g} s, or killed"
        return f"crash: exit code {code}"


@lru_cache(maxsize=1)
def precise_extractor(cpu_s: float) -> PreciseExtractor:
    """This process's extractor: children are dear to start, so shards share one."""
    extractor = PreciseExtractor(cpu_s)
    atexit.register(extractor.close)
    return extractor


def _environment() -> dict[str, str]:
    """Nothing of the user's but the paths that imports need; a fixed hash seed."""
    kept = {name: os.environ[name] for name in ("SYSTEMROOT",) if name in os.environ}
    return kept | {
        "LANG": "C.UTF-8",
        "PATH": os.defpath,
        "PYTHONHASHSEED": "0",
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
        "PYTHONUTF8": "1",
        "TZ": "UTC",
    }
