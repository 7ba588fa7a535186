import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bessemer.training.schedules import ScheduleConfig, learning_rate_factor

SHARES = st.floats(0, 1)


def factors(num_steps, **config):
    return [learning_rate_factor(ScheduleConfig(**config), step, num_steps) for step in range(num_steps)]


def test_warmup_stable_decay_is_the_published_trapezoid():
    given_factors = factors(10, shape="wsd", warmup=0.2, decay=0.4)
    assert given_factors == pytest.approx([0.5, 1, 1, 1, 1, 1, 4 / 5, 3 / 5, 2 / 5, 1 / 5])


def test_cosine_is_half_way_in_the_middle():
    given_factors = factors(100, shape="cosine", warmup=0)
    assert given_factors[0] == 1
    assert given_factors[50] == pytest.approx(0.5)
    assert given_factors[25] == pytest.approx((1 + math.sqrt(0.5)) / 2)
    assert given_factors[99] == pytest.approx((1 + math.cos(0.99 * math.pi)) / 2)


def test_linear_falls_evenly_after_warmup():
    assert factors(10, shape="linear", warmup=0.2) == pytest.approx(
        [0.5, 1, 1, 7 / 8, 6 / 8, 5 / 8, 4 / 8, 3 / 8, 2 / 8, 1 / 8]
    )


def test_a_final_factor_lifts_the_end():
    lifted = factors(10, shape="linear", warmup=0.2, final=0.1)
    bare = factors(10, shape="linear", warmup=0.2)
    assert lifted[2:] == pytest.approx([0.1 + 0.9 * factor for factor in bare[2:]])


def test_without_decay_the_rate_stays_at_its_peak():
    for num_steps in (1, 7, 100):
        assert factors(num_steps, shape="wsd", warmup=0, decay=0) == [1.0] * num_steps


@given(st.sampled_from(["wsd", "cosine", "linear"]), SHARES, SHARES, SHARES, st.integers(1, 120))
def test_no_step_is_ever_without_effect_or_above_the_peak(shape, warmup, decay, final, num_steps):
    for factor in factors(num_steps, shape=shape, warmup=warmup, decay=decay, final=final):
        assert 0 < factor <= 1 + 1e-12


@given(st.sampled_from(["wsd", "cosine", "linear"]), st.floats(0, 0.5), st.integers(4, 120))
def test_the_rate_rises_through_warmup_and_never_after(shape, warmup, num_steps):
    found = factors(num_steps, shape=shape, warmup=warmup, decay=0.4)
    peak = round(warmup * num_steps)
    assert all(later > earlier for earlier, later in pairwise(found[:peak]))
    assert all(later <= earlier + 1e-12 for earlier, later in pairwise(found[peak:]))
