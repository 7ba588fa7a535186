import threading
from types import SimpleNamespace

import pytest

from bessemer.training.prefetch import Prefetch


def test_items_are_those_asked_for_whatever_was_guessed():
    with Prefetch(lambda number: number * 10) as data:
        guesses = [1, 7, 3, None, 9, 5]
        assert [
            data.take(n, following) for n, following in zip([0, 1, 2, 3, 4, 5], guesses, strict=True)
        ] == [
            0,
            10,
            20,
            30,
            40,
            50,
        ]


def test_everything_runs_on_one_thread_beside_the_callers():
    threads = set()

    def make(number):
        threads.add(threading.get_ident())
        return number

    with Prefetch(make) as data:
        for number in range(5):
            data.take(number, number + 1)
        data.call(make, 3)
    assert len(threads) == 1
    assert threading.get_ident() not in threads


def test_a_step_that_takes_longer_than_its_data_never_waits_for_it(monkeypatch):
    """By a clock that only making an item moves: the real one also counts what other programs take."""
    clock_s = 0.0
    made = [threading.Event() for _ in range(5)]

    def make(number):
        nonlocal clock_s
        clock_s += 1.0
        made[number].set()

    monkeypatch.setattr("bessemer.training.prefetch.time", SimpleNamespace(perf_counter=lambda: clock_s))
    with Prefetch(make) as data:
        data.take(0, 1)
        assert data.stall_s == 1.0
        for number in range(1, 4):
            assert made[number].wait(60), "the step goes on until its data is there"
            data.take(number, number + 1)
    assert data.stall_s == 1.0


def test_an_error_reaches_the_caller_at_its_item():
    def make(number):
        if number == 2:
            raise ValueError("item 2")
        return number

    with Prefetch(make) as data:
        assert data.take(0, 1) == 0
        assert data.take(1, 2) == 1
        with pytest.raises(ValueError, match="item 2"):
            data.take(2, 3)
