"""Which of several ends was the cause, and when another attempt is made."""

import pytest

from bessemer.errors import BessemerError, RaisedElsewhere
from bessemer.training.parallel.endings import (
    Ending,
    Failure,
    ProcessesFailed,
    cause,
    exit_in_words,
    ray_death_in_words,
)
from bessemer.training.parallel.restarts import MAX_RESTARTS, with_restarts

DONE = Ending(is_over=True)
WAITS = Ending()
KILLED = Ending(is_over=True, death="was killed by SIGKILL", place="node-2, pid 7")
REFUSED = Ending(is_over=True, failure=Failure("mendable", "lower the flame"))
RAISED = Ending(is_over=True, failure=Failure("unexpected", "KeyError"))
TIMED_OUT = Ending(is_over=True, failure=Failure("timeout", "timed out after 4 s"))
CUT_OFF = Ending(is_over=True, failure=Failure("lost", "connection closed"))


@pytest.mark.parametrize(
    ("endings", "error", "message"),
    [
        (
            [CUT_OFF, KILLED],
            ProcessesFailed,
            r"^training process 1 of 2 \(node-2, pid 7\) was killed by SIGKILL; the others were ended\. If",
        ),
        ([RAISED, REFUSED, CUT_OFF], BessemerError, "^training process 1 of 3: lower the flame$"),
        ([REFUSED, REFUSED], BessemerError, "^lower the flame$"),
        ([CUT_OFF, RAISED], RaisedElsewhere, "^training process 1 of 2 raised\nKeyError$"),
        (
            [TIMED_OUT, WAITS, CUT_OFF, WAITS],
            ProcessesFailed,
            r"^training process 1, 3 of 4 hangs: the others waited for it for parallel\.timeout_s = 4 s,",
        ),
        (
            [DONE, TIMED_OUT],
            ProcessesFailed,
            "lost one another .*; process 1 says:\ntimed out after 4 s\ngive the same command again",
        ),
        ([WAITS, CUT_OFF], ProcessesFailed, "process 1 says:\nconnection closed"),
    ],
    ids=["killed", "mendable first", "mendable, by all", "unexpected", "hangs", "all timed out", "cut off"],
)
def test_the_cause_is_named_among_all_that_failed(endings, error, message):
    found = cause(endings, timeout_s=4.0)
    assert type(found) is error
    with pytest.raises(error, match=message):
        raise found


@pytest.mark.parametrize(
    ("exit_code", "words"),
    [(1, "ended with exit code 1"), (-9, "was killed by SIGKILL"), (-99, "was killed by signal 99")],
)
def test_exits_are_told_in_words(exit_code, words):
    assert exit_in_words(exit_code) == words


NODE_DIED = """The actor died unexpectedly before finishing this task.
\tclass_name: RayRank
The actor died because its node has died. Node Id: d33ca2
\tthe actor's node was terminated unexpectedly: health check failed
    [2026-11-30 19:06:57,276 W 18269 18278] (raylet) store.cc:366: Disconnecting"""
PROCESS_DIED = """The actor died unexpectedly before finishing this task.
\tpid: 7
The actor is dead because its worker process has died. Worker exit type: SYSTEM_ERROR
Worker exit detail: Worker unexpectedly exits with a connection error code 2. Some common causes include:
(1) the process was killed by the OOM killer due to high memory usage"""


@pytest.mark.parametrize(
    ("message", "words"),
    [
        (NODE_DIED, "was lost with its node"),
        (PROCESS_DIED, "died (killed, out of memory, or crashed: Ray's log on its node may tell)"),
        (
            "Task was killed due to the node running low on memory.",
            "was ended by Ray since its node ran low ",
        ),
        ("The actor 7 is\nunavailable", "was lost (The actor 7 is unavailable)"),
        ("x" * 1000, "was lost (" + "x" * 300 + "…)"),
    ],
    ids=["node", "process", "memory", "other", "long"],
)
def test_what_ray_says_at_length_is_told_in_few_words(message, words):
    assert ray_death_in_words(message).startswith(words)


class Attempts:
    """All fail but the last."""

    def __init__(self, *newest: str | None) -> None:
        """The newest checkpoint at first, and after each attempt that fails."""
        self.newest = list(newest)
        self.said: list[str] = []
        self.num_made = 0

    def __call__(self) -> str:
        self.num_made += 1
        if self.num_made < len(self.newest):
            raise ProcessesFailed("process 1 of 2 died", "; again")
        return "metrics"

    def newest_checkpoint(self) -> str | None:
        return self.newest[self.num_made]

    def run(self) -> str:
        return with_restarts(self, self.newest_checkpoint, self.said.append)


def test_another_attempt_goes_on_from_the_newest_checkpoint():
    attempts = Attempts(None, None, "step-2")
    assert attempts.run() == "metrics"
    assert attempts.said == [
        "process 1 of 2 died; all start again from the beginning, for there is no checkpoint yet "
        "(1 of 3 restarts)",
        "process 1 of 2 died; all start again from step-2 (1 of 3 restarts)",
    ]


def test_restarts_with_a_new_checkpoint_between_them_are_not_counted():
    attempts = Attempts(*[f"step-{number}" for number in range(10)])
    assert attempts.run() == "metrics"
    assert [text.partition("again ")[2] for text in attempts.said] == [
        f"from step-{number} (1 of 3 restarts)" for number in range(1, 10)
    ]


def test_attempts_that_make_none_end_with_the_error():
    attempts = Attempts(*["step-1"] * 10)
    with pytest.raises(ProcessesFailed, match="process 1 of 2 died; again"):
        attempts.run()
    assert attempts.num_made == 1 + MAX_RESTARTS
    assert len(attempts.said) == MAX_RESTARTS


def test_what_the_work_raises_is_raised_at_once():
    num_made = 0

    def refuse() -> None:
        nonlocal num_made
        num_made += 1
        raise BessemerError("lower the flame")

    with pytest.raises(BessemerError, match="lower the flame"):
        with_restarts(refuse, lambda: None, lambda text: None)
    assert num_made == 1
