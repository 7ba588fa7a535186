"""Functions for the tests of executors: importable by worker processes."""

import os
import signal
import time
from pathlib import Path


class Fault(ValueError):
    """Raised by a task."""


def square(number: int) -> int:
    return number * number


def process_of(number: int) -> tuple[int, int]:
    return number, os.getpid()


def first_waits(task: tuple[int, str, int]) -> tuple[int, int]:
    """The first task ends when it sees in the folder what each of the others leaves there."""
    number, folder, num_tasks = task
    deadline_s = time.monotonic() + 300
    while number == 0 and len(os.listdir(folder)) < num_tasks - 1 and time.monotonic() < deadline_s:
        time.sleep(0.01)
    if number:
        Path(folder, str(number)).touch()
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
