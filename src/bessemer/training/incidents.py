"""What went wrong in a run and what was decided: incidents.jsonl, and the rewinds that data order follows.

`incidents.jsonl` is part of the model's folder, one line a bad batch: step, batch, documents, values,
decision. `rewinds.json` lies beside the checkpoints and is written before a rewind is done, so that a
run which is killed at any point goes on as an undisturbed one would.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bessemer.errors import BessemerError
from bessemer.runner.files import write_atomically
from bessemer.training.guard import Verdict

INCIDENTS_NAME = "incidents.jsonl"
REWINDS_NAME = "rewinds.json"
_MOST_DOCUMENTS = 200
"""Document ids that one incident lists; a batch of many short ones holds more, and says how many."""


class Incidents:
    """The log of bad batches. A batch that is met again after a resume or a rewind is not logged twice."""

    def __init__(self, path: Path | None) -> None:
        """Without a path nothing is kept."""
        self._path = path
        self._known: set[int] = set()
        self._lines: list[str] = []
        if path is not None and path.exists():
            self._lines = [line for line in path.read_text(encoding="utf-8").splitlines() if line]
            self._known = {json.loads(line)["batch"] for line in self._lines}

    def add(
        self,
        step: int,
        number: int,
        verdict: Verdict,
        values: dict[str, Any],
        documents: Sequence[str],
        decision: str,
    ) -> None:
        """Log the bad batch `number` of a step (from 1)."""
        if self._path is None or number in self._known:
            return
        row = {
            "step": step,
            "batch": number,
            "what": str(verdict),
            **{name: _plain(value) for name, value in values.items()},
            "decision": decision,
            "num_documents": len(documents),
            "documents": list(documents[:_MOST_DOCUMENTS]),
        }
        self._known.add(number)
        self._lines.append(json.dumps(row, ensure_ascii=False))
        write_atomically(self._path, ("\n".join(self._lines) + "\n").encode())


def _plain(value: Any) -> Any:
    """Numbers that JSON has no word for become texts."""
    is_odd = isinstance(value, float) and value - value != 0  # NaN or infinite
    return str(value) if is_odd else value


@dataclass(frozen=True)
class Rewind:
    """One rewind: from which step training went on, and which batches it went past."""

    step: int
    """Steps finished in the checkpoint that was taken."""
    first_number: int
    last_number: int
    """Batches first … last are left out for good."""


class DataOrder:
    """Which batch each step trains on: the step's own number, moved past the batches left out."""

    def __init__(self, folder: Path) -> None:
        """Reads `rewinds.json` in `folder` where there is one."""
        self._path = folder / REWINDS_NAME
        self.rewinds: list[Rewind] = []
        if self._path.exists():
            self.rewinds = [Rewind(**row) for row in json.loads(self._path.read_bytes())]

    def number(self, step: int) -> int:
        """Number of the batch of `step`, both from 0: the step-th number that is not left out."""
        number, left_out_to = step, -1
        for rewind in sorted(self.rewinds, key=lambda rewind: rewind.first_number):
            # They overlap when a later one went back further, past a damaged checkpoint.
            first = max(rewind.first_number, left_out_to + 1)
            if number < first:
                break
            number += max(0, rewind.last_number - first + 1)
            left_out_to = max(left_out_to, rewind.last_number)
        return number

    def skip_to(self, step: int, last_number: int, *, is_writer: bool = True) -> Rewind:
        """Leave out every batch from that of `step` to `last_number`; tells which. One of the processes that
        train together is the writer, and keeps it durably."""
        rewind = Rewind(step, self.number(step), last_number)
        assert rewind.first_number <= last_number, "a rewind goes back"
        self.rewinds.append(rewind)
        if not is_writer:
            return rewind
        self._path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(self._path, json.dumps([vars(each) for each in self.rewinds]).encode())
        return rewind


def refuse_more_rewinds(order: DataOrder, max_rewinds: int, step: int) -> None:
    """Raises BessemerError after `max_rewinds`: then it is not the data."""
    if len(order.rewinds) >= max_rewinds:
        raise BessemerError(
            f"step {step}: training went bad again after {max_rewinds} rewinds past the data, so the data is "
            "not to blame: lower optimizer.learning_rate and optimizer.muon_learning_rate, or lengthen "
            f"schedule.warmup; the batches are listed in {INCIDENTS_NAME}"
        )
