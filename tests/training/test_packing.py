from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bessemer.errors import BessemerError
from bessemer.training.packing import PackedEpochs, pack

LENGTHS = st.lists(st.integers(1, 30), max_size=40)


def fewest_rows(lengths, capacity):
    """By trying every assignment of items to rows."""
    for num_rows in range(len(lengths) + 1):
        for places in product(range(num_rows), repeat=len(lengths)):
            loads = [0] * num_rows
            for place, length in zip(places, lengths, strict=True):
                loads[place] += length
            if all(load <= capacity for load in loads):
                return num_rows
    raise AssertionError("an item is longer than a row")


def best_fit_decreasing(lengths, capacity):
    """The textbook loop: each item, longest first, to the fullest row that still has room."""
    rows = []
    for item in sorted(range(len(lengths)), key=lambda item: -lengths[item]):
        fitting = [row for row in rows if sum(lengths[i] for i in row) + lengths[item] <= capacity]
        if fitting:
            max(fitting, key=lambda row: sum(lengths[i] for i in row)).append(item)
        else:
            rows.append([item])
    return rows


@given(LENGTHS)
def test_every_item_is_in_one_row_and_no_row_is_overfull(lengths):
    rows = pack(lengths, 30)
    assert sorted(item for row in rows for item in row) == list(range(len(lengths)))
    assert all(0 < sum(lengths[item] for item in row) <= 30 for row in rows)


@given(LENGTHS)
def test_rows_are_those_of_best_fit_decreasing(lengths):
    def loads(rows):
        return sorted(sum(lengths[item] for item in row) for row in rows)

    assert loads(pack(lengths, 30)) == loads(best_fit_decreasing(lengths, 30))


@given(st.lists(st.integers(1, 10), max_size=6))
def test_rows_are_within_the_known_bound_of_the_fewest_possible(lengths):
    """Best-fit decreasing needs at most 11/9 of the optimum and 4 rows (Johnson 1974)."""
    assert fewest_rows(lengths, 10) <= len(pack(lengths, 10)) <= 11 / 9 * fewest_rows(lengths, 10) + 4


def test_an_item_longer_than_a_row_is_named_with_its_mend():
    message = r"number 601 \(from 1\) has 31 tokens, a row holds 30: raise sequence_length"
    with pytest.raises(BessemerError, match=message):
        PackedEpochs([30] * 600 + [31, 5], 30, seed=0)


def test_nothing_to_pack_is_an_error():
    with pytest.raises(BessemerError, match="the data set is empty"):
        PackedEpochs([], 30, seed=0)


def some_lengths(count=1500):
    return [3 + (i * i * 31) % 60 for i in range(count)]


def epoch_rows(epochs, number):
    rows = []
    for epoch in range(number + 1):
        start = sum(len(r) for r in rows[:epoch])
        found, seen = [], 0
        while seen < 1500:
            found.append(epochs.row(start + len(found)))
            seen += len(found[-1])
        rows.append(found)
    return rows[number]


def test_every_item_is_in_every_epoch_once_and_epochs_differ():
    epochs = PackedEpochs(some_lengths(), 128, seed=4)
    first, second = epoch_rows(epochs, 0), epoch_rows(epochs, 1)
    for rows in (first, second):
        assert sorted(item for row in rows for item in row) == list(range(1500))
        assert all(sum(some_lengths()[item] for item in row) <= 128 for row in rows)
    assert {frozenset(row) for row in first} != {frozenset(row) for row in second}
    assert epochs.rows_per_epoch() == len(first)


def test_little_room_is_wasted():
    epochs = PackedEpochs(some_lengths(), 128, seed=4)
    assert sum(some_lengths()) / (128 * epochs.rows_per_epoch()) > 0.97


def test_rows_depend_on_seed_and_number_alone():
    forward, jumping = (PackedEpochs(some_lengths(), 128, seed=4) for _ in range(2))
    last = 3 * forward.rows_per_epoch()
    rows = [forward.row(number) for number in range(last + 1)]
    assert jumping.row(last) == rows[last]
    assert [jumping.row(number) for number in (5, 0, 700)] == [rows[5], rows[0], rows[700]]
    assert PackedEpochs(some_lengths(), 128, seed=5).row(0) != rows[0]
