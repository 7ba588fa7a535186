"""Another attempt when the machines, not the work, have failed."""

from collections.abc import Callable
from typing import TypeVar

from bessemer.training.parallel.endings import ProcessesFailed

MAX_RESTARTS = 3
"""In a row without a new checkpoint: what fails at the same step each time must end the run."""

ResultT = TypeVar("ResultT")


def with_restarts(
    attempt: Callable[[], ResultT], newest_checkpoint: Callable[[], str | None], say: Callable[[str], None]
) -> ResultT:
    """What `attempt` gives; after ProcessesFailed it is made again, and goes on from the newest checkpoint.

    Raises ProcessesFailed when MAX_RESTARTS attempts more have made no new checkpoint, and at once whatever
    else the attempt raises.
    """
    num_restarts, newest = 0, newest_checkpoint()
    while True:
        try:
            return attempt()
        except ProcessesFailed as error:
            before, newest = newest, newest_checkpoint()
            num_restarts = num_restarts + 1 if newest == before else 1
            if num_restarts > MAX_RESTARTS:
                raise
            start = f"from {newest}" if newest else "from the beginning, for there is no checkpoint yet"
            say(f"{error.what}; all start again {start} ({num_restarts} of {MAX_RESTARTS} restarts)")
