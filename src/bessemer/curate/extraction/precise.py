"""The main text by trafilatura (Barbaresi 2021, doi:10.18653/v1/2021.acl-demo.15), in a child process.

trafilatura is known to loop, to ask for gigabytes and to leak on some pages, so it runs where it can be
stopped: the child is allowed so much processor time for a page (not wall time: a busy machine must not
change the text) and so much memory. When it dies of either, the page is told to the caller and the
next page gets a new child. A new one comes every few hundred pages anyway.
"""

import atexit
import sys
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

from bessemer.curate.extraction.config import PRECISE_EXTRA
from bessemer.runner.recycled_child import ChildDied, RecycledChild

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
        self._child = RecycledChild(
            [*command, repr(cpu_s), str(MAX_CHILD_BYTES)],
            f"the process that runs trafilatura did not start. Is it installed whole? {PRECISE_EXTRA}.",
            wall_s=self._wall_s,
            requests_per_child=PAGES_PER_CHILD,
        )

    def extract(self, html: str) -> str:
        """The main text; empty where it finds none.

        Raises PreciseFault for a page that takes too long, asks for too much or breaks the parser, and
        BessemerError when no child can be started.
        """
        page = html.encode("utf-8", "replace")
        try:
            answer, content = self._child.ask(b"%d\n" % len(page) + page)
        except ChildDied as death:
            raise PreciseFault(self._reason(death)) from None
        if answer["fault"] is not None:
            raise PreciseFault(answer["fault"])
        return content.decode()

    def close(self) -> None:
        """End the child, if there is one."""
        self._child.close()

    def _reason(self, death: ChildDied) -> str:
        if death.is_by("SIGPROF"):
            return f"deadline: more than {self._cpu_s:g} s of processor time"
        if death.is_by("SIGKILL"):
            return f"deadline: no answer in {self._wall_s:g} s, or killed"
        return f"crash: exit code {death.code}"


@lru_cache(maxsize=1)
def precise_extractor(cpu_s: float) -> PreciseExtractor:
    """This process's extractor: children are dear to start, so shards share one."""
    extractor = PreciseExtractor(cpu_s)
    atexit.register(extractor.close)
    return extractor
