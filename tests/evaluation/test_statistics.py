import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bessemer.evaluation.statistics import mean, proportion, ratio_of_sums


@pytest.mark.parametrize(
    ("successes", "n", "low", "high"),
    [
        # Newcombe 1998, Statistics in Medicine 17, table I, method 3 (Wilson without correction)
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0000, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilsons_interval_has_its_published_values(successes, n, low, high):
    estimate = proportion(successes, n)
    assert (estimate.value, estimate.n) == (successes / n, n)
    assert (estimate.low, estimate.high) == pytest.approx((low, high), abs=5e-5)


@given(st.integers(1, 400).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilsons_ends_solve_its_equation_and_stay_within_bounds(drawn):
    successes, n = drawn
    estimate = proportion(successes, n)
    assert 0 <= estimate.low <= estimate.value <= estimate.high <= 1
    for end in (estimate.low, estimate.high):
        z = 1.959963984540054
        assert abs(estimate.value - end) == pytest.approx(z * math.sqrt(end * (1 - end) / n), abs=1e-7)


@given(st.integers(1, 400).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_failures_mirror_successes(drawn):
    successes, n = drawn
    one, other = proportion(successes, n), proportion(n - successes, n)
    assert (one.low, one.high) == pytest.approx((1 - other.high, 1 - other.low), abs=1e-12)


def test_nothing_seen_is_nothing_known():
    estimate = proportion(0, 0)
    assert math.isnan(estimate.value)
    assert (estimate.low, estimate.high, estimate.n) == (0, 1, 0)


def test_what_is_not_known_is_null_in_json():
    for estimate in (proportion(0, 0), mean([]), mean([2.0]), ratio_of_sums([], []), ratio_of_sums([1], [2])):
        text = json.dumps(estimate.to_json(), allow_nan=False)
        assert json.loads(text)["n"] == estimate.n
    assert mean([2.0]).to_json() == {"value": 2.0, "low": None, "high": None, "n": 1}


def test_a_mean_has_the_textbook_interval():
    estimate = mean([1.0, 2.0, 3.0, 4.0])
    half = 1.959963984540054 * math.sqrt(5 / 3) / 2
    assert estimate.value == 2.5
    assert (estimate.low, estimate.high) == pytest.approx((2.5 - half, 2.5 + half))
    assert mean([7.0] * 5).low == mean([7.0] * 5).high == 7.0


def test_a_ratio_of_equal_denominators_is_their_mean():
    values = [1.0, 5.0, 2.0, 2.0]
    ratio, average = ratio_of_sums(values, [2.0] * 4), mean(np.array(values) / 2)
    assert (ratio.value, ratio.low, ratio.high) == pytest.approx((average.value, average.low, average.high))


def test_a_ratio_known_exactly_has_no_spread():
    estimate = ratio_of_sums([2.0, 6.0, 10.0], [1.0, 3.0, 5.0])
    assert (estimate.value, estimate.low, estimate.high) == pytest.approx((2, 2, 2))


def test_the_interval_of_a_ratio_covers_the_truth_as_often_as_it_says():
    """Documents of very different sizes, longer ones easier: the ratio is far from a mean of ratios."""
    draw = np.random.Generator(np.random.Philox(7))
    num_bytes = draw.lognormal(6, 0.8, (1500, 300))
    bits = num_bytes * (1.5 + 40 / np.sqrt(num_bytes) + draw.normal(0, 0.3, num_bytes.shape))
    large = draw.lognormal(6, 0.8, 2_000_000)
    truth = float((large * (1.5 + 40 / np.sqrt(large))).sum() / large.sum())
    estimates = [ratio_of_sums(a.tolist(), b.tolist()) for a, b in zip(bits, num_bytes, strict=True)]
    covered = np.mean([estimate.low <= truth <= estimate.high for estimate in estimates])
    assert 0.93 < covered < 0.965
    spread = np.std([estimate.value for estimate in estimates])
    half_width = np.mean([(estimate.high - estimate.low) / 2 for estimate in estimates])
    assert half_width / spread == pytest.approx(1.96, rel=0.08)
