"""What a training process says and shows, on its way to the process that runs the recipe."""

from collections.abc import Callable
from contextlib import ExitStack
from itertools import count
from typing import Any

from bessemer.runner.context import Progress, Reporter

Message = tuple[Any, ...]
"""Its kind, then its values."""


class Silent:
    """The reporter of all processes but the first."""

    def say(self, text: str) -> None: ...

    def progress(self, description: str, total: float | None, unit: str) -> Progress:
        return SilentProgress()


class SilentProgress:
    """Shows nothing."""

    def advance(self, amount: float = 1) -> None: ...
    def set(self, completed: float, **shown: object) -> None: ...
    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *error: object) -> None: ...


class SentReporter:
    """Hands words and progress on, as messages that `Shown` takes."""

    def __init__(self, send: Callable[[Message], None]) -> None:
        self._send = send
        self._numbers = count()

    def say(self, text: str) -> None:
        self._send(("say", text))

    def progress(self, description: str, total: float | None, unit: str) -> Progress:
        number = next(self._numbers)
        self._send(("progress", number, description, total, unit))
        return _SentProgress(self._send, number)


class _SentProgress:
    def __init__(self, send: Callable[[Message], None], number: int) -> None:
        self._send, self._number = send, number

    def advance(self, amount: float = 1) -> None:
        self._send(("advance", self._number, amount))

    def set(self, completed: float, **shown: object) -> None:
        self._send(("set", self._number, completed, shown))

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *error: object) -> None: ...


class Shown:
    """Shows here what a `SentReporter` sends; its bars end when it is left."""

    def __init__(self, reporter: Reporter) -> None:
        self._reporter = reporter
        self._bars: dict[int, Progress] = {}
        self._stack = ExitStack()

    def take(self, message: Message) -> None:
        kind, *values = message
        if kind == "say":
            self._reporter.say(*values)
        elif kind == "progress":
            number, *about = values
            self._bars[number] = self._stack.enter_context(self._reporter.progress(*about))
        elif kind == "advance":
            self._bars[values[0]].advance(values[1])
        elif kind == "set":
            self._bars[values[0]].set(values[1], **values[2])

    def __enter__(self) -> "Shown":
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()
