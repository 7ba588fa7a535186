"""Extrapolation against closed forms, published tables, and simulated corpora whose whole is known."""

import random
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from bessemer.curate.extrapolate import (
    along_line,
    chance_across,
    count_of,
    difference,
    poisson_interval,
    product,
    repeats_across,
    repeats_within_and_across,
    share_left,
    spread,
    student,
    total_of,
    total_repeats,
)
from bessemer.runner.forecast import Expected


@pytest.mark.parametrize(
    ("num_items", "num_wanted", "chosen"),
    [(1, 4, [0]), (3, 4, [0, 1, 2]), (4, 4, [0, 1, 2, 3]), (8, 4, [1, 3, 5, 7]), (100, 2, [25, 75])],
)
def test_a_sample_is_spread_evenly_and_holds_all_of_what_is_small(
    num_items: int, num_wanted: int, chosen: list[int]
):
    assert spread(num_items, num_wanted) == chosen


def test_a_total_is_exact_when_every_shard_was_sampled_or_all_hold_the_same():
    assert total_of([3, 5, 4], [10, 20, 10], 40, 3) == Expected(12, 12, 12)
    same = total_of([2, 4, 6], [10, 20, 30], 600, 40)
    assert (same.value, same.low, same.high) == pytest.approx((120, 120, 120))


def test_the_interval_of_a_total_is_that_of_the_textbook():
    """Four of ten equal shards hold 8, 10, 12, 10: s² = 8/3, error 10 √(0.6 · s²/4) = 2 √10, t(3) 3.182."""
    total = total_of([8, 10, 12, 10], [1, 1, 1, 1], 10, 10)
    half = 3.182 * 2 * 10**0.5
    assert (total.value, total.low, total.high) == pytest.approx((100, 100 - half, 100 + half))


def test_a_line_goes_through_both_points_and_never_falls():
    assert along_line((10, 100), (30, 140), Expected(80, 30, 130)) == Expected(240, 140, 340)
    assert along_line((10, 100), (30, 90), Expected(80, 30, 130)) == Expected(90, 90, 90)
    assert along_line((10, 100), (10, 100), Expected(20, 10, 30)) == Expected(200, 100, 300)


def test_quantiles_and_intervals_are_those_of_published_tables():
    assert [student(freedom) for freedom in (1, 3, 10, 1000)] == [12.71, 3.182, 2.228, 1.96]
    exact = {0: (0, 3.689), 1: (0.0253, 5.572), 5: (1.623, 11.668), 10: (4.795, 18.390), 100: (81.36, 121.63)}
    for count, bounds in exact.items():
        assert poisson_interval(count) == pytest.approx(bounds, rel=0.01, abs=0.07)


def test_a_count_of_nothing_is_not_taken_for_certain():
    none = count_of([0, 0, 0, 0], [1, 1, 1, 1], 100, 100)
    assert none.value == none.low == 0
    assert none.high == pytest.approx(3.69 * 24, rel=0.01)


def test_repeats_are_told_apart_within_shards_and_across_them():
    """Shard 0: a a b; shard 1: c a; shard 2: b d d. Within: an a and a d; across: an a and a b."""
    survivor = np.array([0, 0, 2, 3, 0, 2, 6, 6])
    within, across = repeats_within_and_across(survivor, np.array([0, 3, 5, 8]))
    assert (within.tolist(), across) == ([1, 0, 1], 2)
    none = repeats_within_and_across(np.array([], np.int64), np.array([0, 0]))
    assert (none[0].tolist(), none[1]) == ([0], 0)


def test_repeats_across_shards_are_the_sum_over_shards():
    for chance in (1e-9, 0.01, 0.5, 1.0):
        by_sum = sum(50 * (1 - (1 - chance) ** (shard - 1)) for shard in range(1, 31))
        assert repeats_across(50, 30, chance) == pytest.approx(by_sum, abs=1e-4)
    assert repeats_across(50, 30, 0.0) == 0.0
    assert chance_across(50, 4, repeats_across(50, 4, 0.07)) == pytest.approx(0.07)


def test_errors_of_parts_are_taken_together():
    whole, part = Expected(100, 97, 104), Expected(10, 7, 14)
    assert difference(whole, part) == Expected(90, 85, 95)
    left = share_left(100, part)
    assert (left.value, left.low, left.high) == pytest.approx((0.9, 0.86, 0.93))
    both = product(Expected(10, 7, 13), Expected(2, 1.2, 2.8))
    assert (both.value, both.low, both.high) == pytest.approx((20, 10, 30))


def corpus(chance: random.Random, num_shards: int, num_kinds: int) -> list[list[int]]:
    """Documents of each shard, as numbers that are equal where they are duplicates."""
    return [
        [chance.randrange(num_kinds) for _ in range(chance.randrange(60, 120))] for _ in range(num_shards)
    ]


def survivors(shards: Sequence[Sequence[int]]) -> np.ndarray[Any, Any]:
    first: dict[int, int] = {}
    documents = [document for shard in shards for document in shard]
    return np.array([first.setdefault(document, row) for row, document in enumerate(documents)])


@pytest.mark.parametrize("num_kinds", [1_000, 20_000, 10**9])
def test_intervals_of_records_and_duplicates_hold_for_corpora_whose_whole_is_known(num_kinds: int):
    """Duplicates drawn at random over 40 shards, of which 4 are seen; records differ by shard."""
    chance = random.Random(num_kinds)
    held = {"records": 0, "duplicates": 0}
    for _ in range(100):
        shards = corpus(chance, 40, num_kinds)
        sample = [shards[i] for i in spread(40, 4)]
        sizes = [1.0] * 4
        records = count_of([len(shard) for shard in sample], sizes, 40, 40)
        held["records"] += records.holds(sum(map(len, shards)))
        first_rows = np.concatenate(([0], np.cumsum([len(shard) for shard in sample])))
        within, across = repeats_within_and_across(survivors(sample), first_rows)
        repeats = total_repeats([len(shard) for shard in sample], within.tolist(), across, sizes, 40, 40)
        whole = survivors(shards)
        held["duplicates"] += repeats.holds(int((whole != np.arange(len(whole))).sum()))
    assert held["records"] >= 90
    assert held["duplicates"] >= 90
