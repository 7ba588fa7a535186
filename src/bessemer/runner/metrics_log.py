"""metrics.jsonl over several attempts: no torn lines, no step twice."""

import json
from pathlib import Path

from bessemer.runner.files import write_atomically


def drop_torn_line(path: Path) -> None:
    """Cut off a last line that kill -9 left without its end, so that the next one starts afresh."""
    if not path.exists():
        return
    content = path.read_bytes()
    whole = content[: content.rfind(b"\n") + 1]
    if len(whole) < len(content):
        write_atomically(path, whole)


def drop_repeats(path: Path) -> None:
    """Of rows that a continued attempt logged again, keep the last.

    Rows are the same when step, names and texts agree; numbers such as tokens per second may differ.
    """
    if not path.exists():
        return
    last: dict[str, str] = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        marks = {
            name: value if name == "step" or isinstance(value, str) else None for name, value in row.items()
        }
        identity = json.dumps(marks, sort_keys=True)
        last.pop(identity, None)  # so that the row moves to where it was logged last
        last[identity] = line
    write_atomically(path, "".join(f"{line}\n" for line in last.values()).encode())
