"""Items taken ahead: the same, in order, errors in their place, no more than one too early."""

from collections.abc import Iterator

import pytest

from bessemer.runner.ahead import taken_ahead


def test_items_come_in_order_also_nothing():
    assert list(taken_ahead(iter([3, None, 1]))) == [3, None, 1]
    assert list(taken_ahead(iter(()))) == []


def test_an_error_comes_after_the_items_before_it():
    def items() -> Iterator[int]:
        yield 1
        raise OSError("the disk is gone")

    found: list[int] = []
    with pytest.raises(OSError, match="gone"):
        found.extend(taken_ahead(items()))
    assert found == [1]


def test_one_item_is_held_at_most():
    taken: list[int] = []

    def items() -> Iterator[int]:
        for number in range(10):
            taken.append(number)
            yield number

    for number in taken_ahead(items()):
        assert len(taken) <= number + 2
    assert taken == list(range(10))
