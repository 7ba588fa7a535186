"""The child process of `precise`: pages on standard input, their main text on standard output.

A page is its length in bytes on a line, then UTF-8. An answer is a line of JSON (`fault`, `num_bytes`) and
the text as UTF-8. A first empty line says that everything needed has been imported.
"""

import json
import logging
import os
import sys
from collections.abc import Callable
from typing import BinaryIO


def main() -> None:
    """Answer until standard input ends. Arguments: seconds of processor time a page, bytes of memory."""
    with _answer_stream() as answers:
        extract = _trafilatura()
        _limit_memory(int(sys.argv[2]))
        answers.write(b"\n")
        answers.flush()
        while line := sys.stdin.buffer.readline():
            page = sys.stdin.buffer.read(int(line)).decode()
            _allow_cpu_seconds(float(sys.argv[1]))
            fault, text = _answer(extract, page)
            _allow_cpu_seconds(0)
            head = {"fault": fault, "num_bytes": len(text)}
            answers.write(json.dumps(head).encode() + b"\n" + text)
            answers.flush()


def _trafilatura() -> Callable[[str], str | None]:
    """Its standard mode, the best by its own evaluation: a page's text depends on that page alone.

    Without `deduplicate`, which would compare with pages read before; without metadata, whose search for
    dates takes as long as the text.
    """
    from trafilatura import extract

    logging.disable(logging.CRITICAL)
    return lambda page: extract(page, include_comments=False, include_tables=True, deduplicate=False)


def _answer(extract: Callable[[str], str | None], page: str) -> tuple[str | None, bytes]:
    """(what went wrong, the text)."""
    try:
        return None, (extract(page) or "").encode("utf-8", "replace")
    except MemoryError:
        return "memory: the parser asked for more than it is allowed", b""
    except RecursionError:
        return "error: elements nest too deeply", b""
    except Exception as error:  # foreign parsers raise anything on broken pages; it is reported
        return "error: " + " ".join(f"{type(error).__name__}: {error}".split())[:300], b""


def _limit_memory(max_bytes: int) -> None:
    if sys.platform == "linux":  # elsewhere libraries reserve address space that they never use
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (max_bytes, max_bytes))


def _allow_cpu_seconds(seconds: float) -> None:
    """From now on; a process that exceeds it gets SIGPROF, which ends it. 0: without limit."""
    if sys.platform != "win32":
        import signal

        signal.setitimer(signal.ITIMER_PROF, seconds)


def _answer_stream() -> BinaryIO:
    """Standard output for the answers alone: what parsers print goes to standard error."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    return answers


if __name__ == "__main__":
    main()
