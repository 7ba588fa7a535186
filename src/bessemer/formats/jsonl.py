"""JSON lines: one object a line, UTF-8. Conversations, preferences, questions and answers use it."""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from bessemer.errors import BessemerError
from bessemer.runner.files import write_atomically


def write_jsonl(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    """Write rows, atomically; equal rows give equal bytes."""
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    write_atomically(path, lines.encode("utf-8"))


def read_jsonl(path: Path, required: Iterable[str] = ()) -> Iterator[dict[str, Any]]:
    """Yield every line's object. Raises BessemerError with file and line for anything else, and for
    an object that lacks one of the `required` keys."""
    required = tuple(required)
    if not path.is_file():
        raise BessemerError(f"{path} is missing")
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            try:
                row = json.loads(line)
            except ValueError as error:
                raise BessemerError(f"{path}:{number}: not JSON ({error})") from None
            if not isinstance(row, dict):
                raise BessemerError(f"{path}:{number}: expected an object, got {type(row).__name__}")
            missing = [key for key in required if key not in row]
            if missing:
                raise BessemerError(f"{path}:{number}: lacks {', '.join(missing)}")
            yield row
