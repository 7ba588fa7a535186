"""Progress: rates, time left, and lines that come at the start, now and then, and at the end."""

import io

import pytest
from rich.console import Console

from bessemer.runner.progress import (
    PlainReporter,
    Rate,
    TeeReporter,
    TerminalReporter,
    compact,
    data_size,
    duration,
    reporter_for,
)


class Clock:
    """Time that stands still until it is moved."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def test_rate_and_time_left_follow_from_positions() -> None:
    clock = Clock()
    rate = Rate(200, clock)
    clock.now_s += 10
    rate.add(50)
    assert rate.per_second == 5
    assert rate.left_s == 30
    assert rate.describe("pages") == "50/200 pages (25 %), 5 pages/s, 30 s left"


def test_what_an_earlier_attempt_did_does_not_count_as_speed() -> None:
    clock = Clock()
    rate = Rate(200, clock)
    rate.move_to(150)
    clock.now_s += 10
    rate.move_to(160)
    assert rate.per_second == 1
    assert rate.left_s == 40


def test_before_anything_is_done_no_rate_is_claimed() -> None:
    rate = Rate(None, Clock())
    assert (rate.per_second, rate.left_s) == (None, None)
    assert rate.describe("pages") == "0 pages"


def test_plain_progress_has_a_first_line_one_an_interval_and_a_last() -> None:
    stream = io.StringIO()
    with PlainReporter(stream, interval_s=0.0).progress("train", 2, "steps") as progress:
        progress.set(1, loss=2.34567)
        progress.advance()
    first, second, third, last = stream.getvalue().splitlines()
    assert first == "train: 2 steps"
    assert second.startswith("train: 1/2 steps (50 %)")
    assert second.endswith("loss 2.346")
    assert third.startswith("train: 2/2 steps (100 %)")
    assert last.startswith("train: 2 steps in ")


def test_plain_progress_is_silent_between_intervals_and_after_a_failure() -> None:
    stream = io.StringIO()
    progress = PlainReporter(stream, interval_s=1e9).progress("t", 2, "steps")
    progress.__enter__()
    progress.advance()
    progress.__exit__(RuntimeError, RuntimeError(), None)
    assert stream.getvalue() == "t: 2 steps\n"


def test_log_lines_carry_the_time_in_utc() -> None:
    stream = io.StringIO()
    PlainReporter(stream, is_stamped=True).say("hello")
    stamp, _, text = stream.getvalue().partition(" ")
    assert stamp.endswith("Z")
    assert text == "hello\n"


def test_a_terminal_gets_bars_that_may_overlap_and_a_line_at_the_end_of_each() -> None:
    stream = io.StringIO()
    reporter = TerminalReporter(Console(file=stream, force_terminal=True, width=120))
    with reporter.progress("outer", 10, "files") as outer:
        with reporter.progress("inner [x]", None, "rows") as inner:
            inner.advance(3)
            reporter.say("a word [between]")
        outer.set(10, loss=1.5)
    shown = stream.getvalue()
    assert "a word [between]" in shown
    assert "inner [x]: 3 rows in" in shown
    assert "outer: 10 files in" in shown


def test_a_pipe_gets_plain_lines() -> None:
    assert isinstance(reporter_for(io.StringIO()), PlainReporter)


def test_a_tee_says_everything_to_each() -> None:
    streams = [io.StringIO(), io.StringIO()]
    tee = TeeReporter(*(PlainReporter(stream, interval_s=0.0) for stream in streams))
    tee.say("hello")
    with tee.progress("p", 1, "x") as progress:
        progress.advance()
        progress.set(1)
    assert [len(stream.getvalue().splitlines()) for stream in streams] == [5, 5]


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0, "0"),
        (0.271, "0.271"),
        (999, "999"),
        (999.9, "1k"),
        (12_345, "12.3k"),
        (1.5e9, "1.5B"),
        (3e12, "3T"),
    ],
)
def test_numbers_are_shown_with_three_digits(number: float, text: str) -> None:
    assert compact(number) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.44, "0.4 s"), (9.97, "10 s"), (59.6, "1 min 00 s"), (245, "4 min 05 s"), (7380, "2 h 03 min")],
)
def test_durations_are_shown_in_the_largest_fitting_units(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_sizes_are_shown_in_decimal_units() -> None:
    assert [data_size(size) for size in (512, 1200, 24.4e9)] == ["512 B", "1.2 kB", "24.4 GB"]
