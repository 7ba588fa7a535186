"""How the processes of a training stage end, and which of several ends was the cause of the others."""

import signal
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from bessemer.errors import BessemerError, RaisedElsewhere

_SAYS_NO_MORE = 300
"""Characters of what Ray says of a death that it rarely has to report; a node's log may follow them."""
_RAY_DEATHS = {
    "its node has died": "was lost with its node",
    "running low on memory": "was ended by Ray since its node ran low on memory",
    "worker process has died": "died (killed, out of memory, or crashed: Ray's log on its node may tell)",
}
"""By what Ray's message contains."""

AGAIN = "give the same command again: it goes on from the newest checkpoint"
GRACE_S = 3.0
"""After one process has failed: until those that fail of the same cause have, too."""


@dataclass(frozen=True)
class Failure:
    """Why a process gave up."""

    kind: Literal["mendable", "timeout", "lost", "unexpected"]
    """mendable: a BessemerError; timeout: others did not come in time; lost: the connection to another broke;
    unexpected: anything else."""
    text: str


@dataclass(frozen=True)
class Ending:
    """One process, when it has ended or another has failed."""

    is_over: bool = False
    """It works no more, for good or ill."""
    failure: Failure | None = None
    """What it said of its failure."""
    death: str | None = None
    """How it ended without a word, such as `was killed by SIGKILL`."""
    place: str = ""
    """Where it ran, where that is not this machine."""

    @property
    def has_failed(self) -> bool:
        return self.failure is not None or self.death is not None

    @property
    def is_missing(self) -> bool:
        """Others failed, and it neither ended nor said a word."""
        return not self.is_over and not self.has_failed


class ProcessesFailed(BessemerError):
    """What ran the processes failed, not what they did: another attempt may do better."""

    def __init__(self, what: str, mend: str) -> None:
        super().__init__(f"{what}{mend}")
        self.what = what


def failure_of(error: BaseException) -> Failure:
    """What an error says about its cause; gloo and NCCL tell by words alone."""
    if isinstance(error, BessemerError):
        return Failure("mendable", str(error))
    words = str(error).lower()
    if isinstance(error, (RuntimeError, OSError)):
        if any(sign in words for sign in ("timed out", "timeout")):
            return Failure("timeout", str(error))
        if any(sign in words for sign in ("connection closed", "connection reset", "broken pipe")):
            return Failure("lost", str(error))
    return Failure("unexpected", "".join(traceback.format_exception(error)))


def cause(endings: Sequence[Ending], timeout_s: float) -> Exception:
    """The error that names the cause among all that failed, by rank: the others failed since they lost it.

    `timeout_s`: how long they waited for one another. At least one has failed.
    """
    size = len(endings)
    for rank, each in enumerate(endings):
        if each.death is not None:
            what = f"training process {rank} of {size}{_at(each)} {each.death}; the others were ended"
            return ProcessesFailed(what, f". If memory was short, lower micro_batch_tokens; then {AGAIN}")
    failures = {rank: each.failure for rank, each in enumerate(endings) if each.failure is not None}
    mendable = {rank: failure.text for rank, failure in failures.items() if failure.kind == "mendable"}
    if mendable:
        return BessemerError(_said_by(mendable, endings))
    for rank, failure in failures.items():
        if failure.kind == "unexpected":
            where = _at(endings[rank])
            return RaisedElsewhere(f"training process {rank} of {size}{where} raised\n{failure.text}")
    missing = [f"{rank}{_at(each)}" for rank, each in enumerate(endings) if each.is_missing]
    timeout = f"parallel.timeout_s = {timeout_s:g} s"
    if missing and any(failure.kind == "timeout" for failure in failures.values()):
        what = (
            f"training process {', '.join(missing)} of {size} hangs: the others waited for it for {timeout}, "
            "and all were ended"
        )
        return ProcessesFailed(what, f"; {AGAIN}, or raise the timeout if it was only slow")
    rank, failure = next(iter(failures.items()))
    what = f"the training processes lost one another ({timeout}); process {rank} says:\n{failure.text}"
    return ProcessesFailed(what, f"\n{AGAIN}")


def _said_by(texts: Mapping[int, str], endings: Sequence[Ending]) -> str:
    """What processes said, and which of them, unless all said the same."""
    text = next(iter(texts.values()))
    same = [other for other, said in texts.items() if said == text]
    if len(same) == len(endings):
        return text
    names = ", ".join(f"{each}{_at(endings[each])}" for each in same)
    return f"training process {names} of {len(endings)}: {text}"


def exit_in_words(exit_code: int) -> str:
    """How a process ended, from what multiprocessing says."""
    if exit_code >= 0:
        return f"ended with exit code {exit_code}"
    try:
        return f"was killed by {signal.Signals(-exit_code).name}"
    except ValueError:
        return f"was killed by signal {-exit_code}"


def ray_death_in_words(message: str) -> str:
    """How an actor died, from what Ray says at length."""
    for sign, words in _RAY_DEATHS.items():
        if sign in message:
            return words
    said = " ".join(message.split())
    return f"was lost ({said[:_SAYS_NO_MORE]}{'…' * (len(said) > _SAYS_NO_MORE)})"


def _at(ending: Ending) -> str:
    return f" ({ending.place})" if ending.place else ""
