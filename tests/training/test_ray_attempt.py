"""What is made of the ways in which a run of Ray Train ends: without a Ray."""

import re
import sys
from typing import Any

import pytest

from bessemer.errors import BessemerError
from bessemer.training.parallel.endings import Ending, Failure, cause
from bessemer.training.parallel.on_ray import check_ray_train
from bessemer.training.parallel.ray_attempt import Outcome, outcome_of


def rays(name: str, text: str, **attributes: Any) -> Exception:
    """An error of a type of Ray's."""
    error = type(name, (Exception,), {"__module__": "ray.somewhere.internal"})(text)
    vars(error).update(attributes)
    return error


def ended_by(**raised: Exception) -> Exception:
    """What Ray Train raises for processes that failed, given as `rank_1=error`."""
    failures = {int(name.removeprefix("rank_")): error for name, error in raised.items()}
    return rays("WorkerGroupError", "Training failed", worker_failures=failures)


def lost(name: str, text: str) -> Exception:
    return rays("WorkerHealthCheckFailedError", "A check failed", health_check_failure=rays(name, text))


TOLD = RuntimeError("this process failed, as it has told the command")
NODE_DIED = lost("ActorDiedError", "The actor died because its node has died. Node Id: d33ca2")


def test_a_process_that_died_is_told_from_one_that_was_cut_off_by_it():
    cut_off = Failure("lost", "connection closed")
    outcome = outcome_of(ended_by(rank_1=NODE_DIED), {0: cut_off}, {0})
    assert outcome == Outcome(
        None, {0: Ending(True, cut_off), 1: Ending(True, death="was lost with its node")}, (), None
    )
    assert "process 1 of 2 was lost with its node" in str(cause(list(outcome.endings.values()), 4.0))


def test_what_a_process_told_of_its_failure_counts_and_not_what_it_raised_after():
    refused = Failure("mendable", "lower the flame")
    outcome = outcome_of(ended_by(rank_0=TOLD), {0: refused}, {0})
    assert outcome.endings == {0: Ending(True, refused)}


def test_what_a_process_raised_before_it_could_tell_is_unexpected():
    (ending,) = outcome_of(ended_by(rank_3=ImportError("no torch there")), {}, ()).endings.values()
    assert ending.failure is not None
    assert ending.failure.kind == "unexpected"
    assert "no torch there" in ending.failure.text


def test_a_process_that_hangs_is_missing_and_one_that_ended_well_is_not():
    timed_out = Failure("timeout", "timed out after 4 s")
    outcome = outcome_of(ended_by(rank_0=TOLD), {0: timed_out}, {0, 2})
    assert outcome.endings == {0: Ending(True, timed_out), 2: Ending(True)}
    endings = [outcome.endings.get(rank, Ending()) for rank in range(3)]
    assert re.search("process 1 of 3 hangs", str(cause(endings, 4.0)))


def test_of_a_broken_connection_ray_may_know_more_later():
    outcome = outcome_of(ended_by(rank_1=lost("ActorUnavailableError", "The actor is unavailable")), {}, ())
    assert outcome.is_unsure == (1,)
    assert outcome.endings[1].death == "was lost (The actor is unavailable)"


@pytest.mark.parametrize(
    ("error", "trouble"),
    [
        (
            rays("ControllerError", "Training failed", controller_failure=rays("StartupTimeout", "300 s")),
            "StartupTimeout: 300 s",
        ),
        (rays("PreemptionError", "a node is taken away"), "PreemptionError: a node is taken away"),
        (ValueError("storage"), "ValueError: storage"),
    ],
    ids=["controller", "preemption", "else"],
)
def test_trouble_of_ray_train_itself_is_told_as_such(error, trouble):
    assert outcome_of(error, {}, ()) == Outcome(trouble=trouble)


def test_a_ray_without_ray_train_is_told_with_the_mend(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(BessemerError, match=r"Ray Train, .*: pip install 'bessemer\[ray\]' on every node"):
        check_ray_train()
