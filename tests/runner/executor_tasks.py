"""Functions for the tests of executors: importable by worker processes."""

import os
import signal
import time
from pathlib import Path


class Fault(ValueError):
    """Raised by a task."""


def square(number: int) -> int:
    return number * number


def slow_first(number: int) -> tuple[int, int]:
    """The first task takes longest."""
    time.sleep(0.5 if number == 0 else 0.0)
    return number, os.getpid()


def fail_at_three(number: int) -> int:
    if number == 3:
        raise Fault("three is not allowed")
    return number


def die_at_three(number: int) -> int:
    if number == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def die_once(task: tuple[int, str]) -> int:
    """Task 3 kills its worker the first time that it runs."""
    number, marker = task
    if number == 3 and not Path(marker).exists():
        Path(marker).touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return number
