"""The child process of `guarded`: a request a line on standard input, an answer on standard output.

An answer is one line of JSON (`has_text`, `num_bytes`, `about`, `faults`) and the text as UTF-8.
"""

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from bessemer.collect.readers.converted import Converted, Unreadable
from bessemer.collect.readers.epub import convert_epub
from bessemer.collect.readers.pages import bounded_facts
from bessemer.collect.readers.pdf import convert_pdf

_CONVERTERS: dict[str, Callable[[Path, int], Converted]] = {"pdf": convert_pdf, "epub": convert_epub}
_MAX_FAULTS = 100


def answer(path: Path, file_format: str, max_bytes: int) -> tuple[dict[str, object], bytes]:
    """What a file gave: the head of the answer and the text. Any failure of a parser becomes a fault."""
    try:
        converted = _CONVERTERS[file_format](path, max_bytes)
    except Unreadable as fault:
        return _head(faults=[("", str(fault))]), b""
    except MemoryError:
        return _head(faults=[("", "too large: its parser asked for more memory than it is allowed")]), b""
    except RecursionError:
        return _head(faults=[("", "damaged: its parts nest without end")]), b""
    except Exception as error:  # foreign parsers raise anything on broken files; it is reported
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:300]
        return _head(faults=[("", f"damaged: unreadable ({reason})")]), b""
    text = converted.text.encode("utf-8", "replace")
    faults = list(converted.faults)
    if len(text) > max_bytes:
        faults, text = [("", f"too long: more than {max_bytes} bytes of text")], b""
    elif not text.strip():
        faults, text = faults or [("", f"no text: {converted.without_text}")], b""
    return _head(bool(text), len(text), bounded_facts(converted.about), faults[:_MAX_FAULTS]), text


def _head(
    has_text: bool = False,
    num_bytes: int = 0,
    about: dict[str, str] | None = None,
    faults: list[tuple[str, str]] | None = None,
) -> dict[str, object]:
    told = [{"place": place, "reason": reason} for place, reason in faults or []]
    return {"has_text": has_text, "num_bytes": num_bytes, "about": about or {}, "faults": told}


def _limit_memory(max_bytes: int) -> None:
    if sys.platform != "win32":
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (max_bytes, max_bytes))


def _allow_cpu_seconds(seconds: float) -> None:
    """From now on; a process that exceeds it gets SIGXCPU, which ends it."""
    if sys.platform != "win32":
        import resource

        usage = resource.getrusage(resource.RUSAGE_SELF)
        limit_s = int(usage.ru_utime + usage.ru_stime + seconds) + 1
        resource.setrlimit(resource.RLIMIT_CPU, (limit_s, resource.getrlimit(resource.RLIMIT_CPU)[1]))


def main() -> None:
    """Answer requests until standard input ends."""
    with _answer_stream() as answers:
        _limit_memory(int(sys.argv[1]))
        answers.write(b"\n")
        answers.flush()
        for line in sys.stdin.buffer:
            request = json.loads(line)
            _allow_cpu_seconds(request["cpu_s"])
            head, text = answer(Path(request["path"]), request["format"], request["max_bytes"])
            answers.write(json.dumps(head).encode() + b"\n" + text)
            answers.flush()


def _answer_stream() -> BinaryIO:
    """Standard output for the answers alone: what parsers print goes to standard error."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    return answers


if __name__ == "__main__":
    main()
