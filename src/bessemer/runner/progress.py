"""Reporters: where words and progress go. A bar on a terminal, plain lines elsewhere and in the log."""

import re
import time
from collections.abc import Callable
from contextlib import ExitStack
from datetime import UTC, datetime
from typing import TextIO

from rich.console import Console
from rich.progress import BarColumn, TaskID, TextColumn
from rich.progress import Progress as Bars

from bessemer.runner.context import Progress, Reporter

LINE_INTERVAL_S = 7.0
"""Seconds between the plain lines of one progress: seldom enough to read, often enough to trust."""


def reporter_for(stream: TextIO) -> Reporter:
    """Bars when a person watches `stream`, plain lines when a file or a pipe does."""
    return TerminalReporter(Console(file=stream)) if stream.isatty() else PlainReporter(stream)


# What a terminal would obey rather than show: control characters, and marks that turn text around.
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


def printable(text: str) -> str:
    """Text from a page or a model, safe to show: control characters become U+FFFD."""
    return _CONTROL.sub("\ufffd", text)


class Rate:
    """Speed and time left, from positions. A position that was there at the start does not count as speed."""

    def __init__(self, total: float | None, clock: Callable[[], float] = time.monotonic) -> None:
        self.total = total
        self.completed = 0.0
        self._clock = clock
        self._start_s = clock()
        self._start = 0.0
        self._is_first = True

    @property
    def elapsed_s(self) -> float:
        return self._clock() - self._start_s

    def move_to(self, completed: float) -> None:
        """Take a position. The first one beyond a twentieth is taken for work of an earlier attempt."""
        if self._is_first and self.total and completed > self.total / 20:
            self._start, self._start_s = completed, self._clock()
        self._is_first = False
        self.completed = completed

    def add(self, amount: float) -> None:
        self._is_first = False
        self.completed += amount

    @property
    def per_second(self) -> float | None:
        done = self.completed - self._start
        return done / self.elapsed_s if done > 0 and self.elapsed_s > 0 else None

    @property
    def left_s(self) -> float | None:
        speed = self.per_second
        return None if speed is None or self.total is None else max(0.0, self.total - self.completed) / speed

    def describe(self, unit: str) -> str:
        """`1.2M/2M tokens (60 %), 35k tokens/s, 23 s left`."""
        position = compact(self.completed)
        if self.total:
            position += f"/{compact(self.total)}"
        text = f"{position} {unit}"
        if self.total:
            text += f" ({100 * self.completed / self.total:.0f} %)"
        if self.per_second is not None:
            text += f", {compact(self.per_second)} {unit}/s"
        if self.left_s:
            text += f", {duration(self.left_s)} left"
        return text


class PlainReporter:
    """Lines of text, flushed at once; `is_stamped` puts the UTC time in front (for log files)."""

    def __init__(
        self, stream: TextIO, interval_s: float = LINE_INTERVAL_S, *, is_stamped: bool = False
    ) -> None:
        self._stream = stream
        self._interval_s = interval_s
        self._is_stamped = is_stamped

    def say(self, text: str) -> None:
        stamp = f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ} " if self._is_stamped else ""
        self._stream.write(f"{stamp}{printable(text)}\n")
        self._stream.flush()

    def progress(self, description: str, total: float | None, unit: str) -> Progress:
        return _Lines(self.say, description, Rate(total), unit, self._interval_s)


class _Lines:
    """Progress as a line at the start, one now and then, and one at the end."""

    def __init__(
        self, say: Callable[[str], None], description: str, rate: Rate, unit: str, interval_s: float
    ) -> None:
        self._say, self._description, self._rate = say, description, rate
        self._unit, self._interval_s = unit, interval_s
        self._last_line_s = time.monotonic()
        self._shown: dict[str, object] = {}

    def advance(self, amount: float = 1) -> None:
        self._rate.add(amount)
        self._perhaps_line()

    def set(self, completed: float, **shown: object) -> None:
        self._rate.move_to(completed)
        self._shown = shown
        self._perhaps_line()

    def _perhaps_line(self) -> None:
        now_s = time.monotonic()
        if now_s - self._last_line_s >= self._interval_s:
            self._last_line_s = now_s
            self._say(f"{self._description}: {self._rate.describe(self._unit)}{_shown(self._shown)}")

    def __enter__(self) -> "_Lines":
        of = f": {compact(self._rate.total)} {self._unit}" if self._rate.total else ""
        self._say(f"{self._description}{of}")
        return self

    def __exit__(self, *error: object) -> None:
        if not error or error[0] is None:
            rate = self._rate
            self._say(
                f"{self._description}: {compact(rate.completed)} {self._unit} "
                f"in {duration(rate.elapsed_s)}{_shown(self._shown)}"
            )


class TerminalReporter:
    """Bars at the foot of a terminal; words scroll above them. One display carries every open bar."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._bars: Bars | None = None

    def say(self, text: str) -> None:
        self._console.print(printable(text), markup=False, highlight=False, soft_wrap=True)

    def progress(self, description: str, total: float | None, unit: str) -> Progress:
        return _Bar(self, description, Rate(total), unit)

    def open_bar(self, description: str, total: float | None) -> tuple[Bars, TaskID]:
        bars = self._bars
        if bars is None:
            bars = self._bars = Bars(
                TextColumn("{task.description}", markup=False),
                BarColumn(),
                TextColumn("{task.fields[detail]}", markup=False),
                console=self._console,
                transient=True,
            )
            bars.start()
        return bars, bars.add_task(description, total=total, detail="")

    def close_bar(self, task: TaskID) -> None:
        if self._bars is None:
            return
        self._bars.remove_task(task)
        if not self._bars.task_ids:
            self._bars.stop()
            self._bars = None


class _Bar:
    """One bar of a TerminalReporter."""

    def __init__(self, owner: TerminalReporter, description: str, rate: Rate, unit: str) -> None:
        self._owner, self._description, self._rate, self._unit = owner, description, rate, unit
        self._shown: dict[str, object] = {}
        self._open: tuple[Bars, TaskID] | None = None

    def advance(self, amount: float = 1) -> None:
        self._rate.add(amount)
        self._draw()

    def set(self, completed: float, **shown: object) -> None:
        self._rate.move_to(completed)
        self._shown = shown
        self._draw()

    def _draw(self) -> None:
        if self._open is not None:
            bars, task = self._open
            detail = self._rate.describe(self._unit) + _shown(self._shown)
            bars.update(task, completed=self._rate.completed, detail=detail)

    def __enter__(self) -> "_Bar":
        self._open = self._owner.open_bar(self._description, self._rate.total)
        return self

    def __exit__(self, *error: object) -> None:
        if self._open is not None:
            self._owner.close_bar(self._open[1])
            self._open = None
        if not error or error[0] is None:
            took = f"{compact(self._rate.completed)} {self._unit} in {duration(self._rate.elapsed_s)}"
            self._owner.say(f"{self._description}: {took}{_shown(self._shown)}")


class TeeReporter:
    """Says everything to several reporters."""

    def __init__(self, *reporters: Reporter) -> None:
        self._reporters = reporters

    def say(self, text: str) -> None:
        for reporter in self._reporters:
            reporter.say(text)

    def progress(self, description: str, total: float | None, unit: str) -> Progress:
        return _Several([reporter.progress(description, total, unit) for reporter in self._reporters])


class _Several:
    def __init__(self, parts: list[Progress]) -> None:
        self._parts = parts
        self._stack = ExitStack()

    def advance(self, amount: float = 1) -> None:
        for part in self._parts:
            part.advance(amount)

    def set(self, completed: float, **shown: object) -> None:
        for part in self._parts:
            part.set(completed, **shown)

    def __enter__(self) -> "_Several":
        for part in self._parts:
            self._stack.enter_context(part)
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.__exit__(*error)  # type: ignore[arg-type]


def compact(number: float) -> str:
    """`950`, `12.3k`, `4.5M`, `0.27`: three significant digits and a suffix."""
    for factor, suffix in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k")):
        if abs(number) >= factor * 0.9995:
            return f"{number / factor:.3g}{suffix}"
    return f"{number:.3g}"


def data_size(num_bytes: float) -> str:
    """`512 B`, `1.2 MB`, `24.4 GB`: decimal units."""
    for factor, suffix in ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if num_bytes >= factor * 0.9995:
            return f"{num_bytes / factor:.3g} {suffix}"
    return f"{num_bytes:.0f} B"


def duration(seconds: float) -> str:
    """`0.4 s`, `35 s`, `4 min 05 s`, `2 h 03 min`."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02} min"


def _shown(values: dict[str, object]) -> str:
    parts = [
        f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}"
        for name, value in values.items()
    ]
    return ", " + ", ".join(parts) if parts else ""
