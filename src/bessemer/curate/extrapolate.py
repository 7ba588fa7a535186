"""From a sample of shards to the whole: totals with 95 % intervals, and how duplicates grow with it."""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from bessemer.runner.forecast import Expected

_STUDENT = (12.71, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228)
"""97.5 % quantiles of Student's t with 1, 2, … degrees of freedom."""
_NORMAL = 1.96
"""The same of the normal distribution, for more degrees of freedom: at most 12 % too small."""


def spread(num_items: int, num_wanted: int) -> list[int]:
    """Positions of `num_wanted` of the items, evenly over all of them; all when there are no more."""
    num_taken = min(num_items, num_wanted)
    return [(2 * i + 1) * num_items // (2 * num_taken) for i in range(num_taken)]


def total_of(values: Sequence[float], sizes: Sequence[float], whole: float, num_items: int) -> Expected:
    """The sum of a quantity over `num_items` shards of `whole` size, from those with `values` and `sizes`.

    The ratio estimator and its variance (Cochran, "Sampling Techniques", on ratio estimators), the interval
    by Student's t.
    """
    num_sampled = len(values)
    ratio = sum(values) / sum(sizes)
    estimate = ratio * whole
    if num_sampled == num_items:
        return Expected(estimate, estimate, estimate)
    residuals = [value - ratio * size for value, size in zip(values, sizes, strict=True)]
    freedom = max(1, num_sampled - 1)
    variance = sum(residual**2 for residual in residuals) / freedom
    unseen = 1 - num_sampled / num_items
    error = num_items * math.sqrt(unseen * variance / num_sampled)
    half = student(freedom) * error
    return Expected(estimate, max(0.0, sum(values), estimate - half), estimate + half)


def count_of(values: Sequence[int], sizes: Sequence[float], whole: float, num_items: int) -> Expected:
    """As `total_of` for a count: the interval is at least that of a Poisson count of the sample's sum."""
    by_shards = total_of(values, sizes, whole, num_items)
    seen = sum(values)
    beyond = whole / sum(sizes) - 1
    low, high = poisson_interval(seen)
    return Expected(
        by_shards.value, min(by_shards.low, seen + low * beyond), max(by_shards.high, seen + high * beyond)
    )


def along_line(small: tuple[float, float], large: tuple[float, float], at: Expected) -> Expected:
    """What a straight line through two measured points (size, quantity) gives at another size.

    It does not fall; through points of one size it rises from nothing.
    """
    (small_size, small_value), (large_size, large_value) = small, large
    if large_size > small_size:
        slope = max(0.0, large_value - small_value) / (large_size - small_size)
    else:
        slope = large_value / large_size if large_size else 0.0
    return Expected(*(max(0.0, large_value + slope * (x - large_size)) for x in (at.value, at.low, at.high)))


def student(freedom: int) -> float:
    """97.5 % quantile of Student's t."""
    return _STUDENT[freedom - 1] if freedom <= len(_STUDENT) else _NORMAL


def poisson_interval(count: int) -> tuple[float, float]:
    """95 % interval of a Poisson mean of which `count` events were seen (Byar's approximation).

    Breslow and Day, "Statistical Methods in Cancer Research" II, on the standardised mortality ratio.
    """
    low = 0.0
    if count:
        low = count * (1 - 1 / (9 * count) - _NORMAL / (3 * math.sqrt(count))) ** 3
    above = count + 1
    return max(0.0, low), above * (1 - 1 / (9 * above) + _NORMAL / (3 * math.sqrt(above))) ** 3


def repeats_within_and_across(
    survivor: NDArray[np.int64], first_rows: NDArray[np.int64]
) -> tuple[NDArray[np.int64], int]:
    """Of rows with the row that stays for each: how many go in each shard for one of the same shard, and how
    many more over all shards together.

    `first_rows` [shards + 1] as in `dedup.corpus.Corpus`. A cluster of m rows in s shards loses m - s within
    them and s - 1 across.
    """
    num_shards = len(first_rows) - 1
    shard = np.repeat(np.arange(num_shards), np.diff(first_rows))
    num_rows = np.diff(first_rows)
    if not len(survivor):
        return num_rows, 0
    clusters_by_shard = np.unique(np.stack([shard, survivor]), axis=1)
    num_clusters = np.bincount(clusters_by_shard[0], minlength=num_shards)
    return num_rows - num_clusters, int(num_clusters.sum() - len(np.unique(survivor)))


def repeats_across(num_unique: float, num_shards: int, chance: float) -> float:
    """How many of `num_unique` documents a shard, over `num_shards`, repeat one of an earlier shard.

    When each has the given `chance` to be found in any one other shard, independently, a document of the j-th
    shard is new with (1 - chance)^(j - 1).
    """
    if chance <= 0 or chance >= 1:
        return num_unique * (num_shards - 1) if chance > 0 else 0.0
    num_new = -math.expm1(num_shards * math.log1p(-chance)) / chance
    return max(0.0, num_unique * (num_shards - num_new))


def chance_across(num_unique: float, num_shards: int, num_repeats: float) -> float:
    """The chance at which `repeats_across` gives `num_repeats`, by bisection; 0 to 1."""
    if num_repeats <= 0:
        return 0.0
    low, high = 0.0, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (
            (middle, high) if repeats_across(num_unique, num_shards, middle) < num_repeats else (low, middle)
        )
    return (low + high) / 2


def difference(whole: Expected, part: Expected) -> Expected:
    """whole - part, not below 0; their errors taken for independent."""
    value = whole.value - part.value
    low = value - math.hypot(whole.value - whole.low, part.high - part.value)
    high = value + math.hypot(whole.high - whole.value, part.value - part.low)
    return Expected(value, max(0.0, low), high)


def share_left(whole: float, taken: Expected) -> Expected:
    """The share of a whole that is left when some of it is taken."""
    if not whole:
        return Expected(1.0, 1.0, 1.0)
    return Expected(1 - taken.value / whole, max(0.0, 1 - taken.high / whole), 1 - taken.low / whole)


def product(left: Expected, right: Expected) -> Expected:
    """left × right; their relative errors taken for independent."""
    value = left.value * right.value
    if not value:
        return Expected(0.0, 0.0, max(left.high * right.value, left.value * right.high))
    below = math.hypot(1 - left.low / left.value, 1 - right.low / right.value)
    above = math.hypot(left.high / left.value - 1, right.high / right.value - 1)
    return Expected(value, max(0.0, value * (1 - below)), value * (1 + above))


def total_repeats(
    num_rows: Sequence[int],
    within: Sequence[int],
    num_across: int,
    sizes: Sequence[float],
    whole: float,
    num_items: int,
) -> Expected:
    """Documents that repeat another, over `num_items` shards of `whole` size.

    Of the sampled shards: `num_rows` counts by shard the documents, `within` those of them that repeat one of
    the same shard, `num_across` is how many repeat one of another sampled shard.
    """
    num_sampled = len(within)
    inside = count_of(within, sizes, whole, num_items)
    if num_sampled == num_items:
        return inside + Expected(num_across, num_across, num_across)
    unique = [rows - repeats for rows, repeats in zip(num_rows, within, strict=True)]
    of_a_shard = sum(unique) / num_sampled
    counts = (num_across, *poisson_interval(num_across))
    chances = [chance_across(of_a_shard, num_sampled, count) for count in counts]
    share = Expected(*(repeats_across(1 / num_items, num_items, chance) for chance in chances))
    return inside + product(total_of(unique, sizes, whole, num_items), share)
