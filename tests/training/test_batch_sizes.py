from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from bessemer.training.batch_sizes import BatchSizes, floor_sum

SIZES = st.builds(BatchSizes, st.integers(8, 40), st.integers(1, 8), st.integers(0, 30))


@given(st.integers(0, 60), st.integers(1, 60), st.integers(0, 300))
def test_the_closed_form_is_the_sum(count, divisor, factor):
    assert floor_sum(count, divisor, factor) == sum(factor * i // divisor for i in range(count))


@given(SIZES, st.integers(0, 80))
def test_the_position_in_the_data_is_the_sum_of_the_steps_before(sizes, step):
    assert sizes.rows_before(step) == sum(sizes.rows(earlier) for earlier in range(step))


@given(SIZES)
def test_the_batch_grows_evenly_from_start_to_full(sizes):
    rows = [sizes.rows(step) for step in range(sizes.warmup_steps + 3)]
    assert rows == sorted(rows)
    assert rows[0] == (sizes.start if sizes.warmup_steps else sizes.full)
    assert rows[-1] == sizes.full
    growth = [later - earlier for earlier, later in pairwise(rows[: sizes.warmup_steps])]
    assert not growth or max(growth) - min(growth) <= 1


@given(SIZES, st.integers(0, 2000))
def test_a_budget_gives_the_most_steps_within_it_and_the_fewest_that_cover_it(sizes, budget):
    within, covering = sizes.steps_within(budget), sizes.steps_covering(budget)
    assert sizes.rows_before(within) <= budget < sizes.rows_before(within + 1)
    assert sizes.rows_before(covering) >= budget
    assert covering == 0 or sizes.rows_before(covering - 1) < budget


def test_a_full_batch_from_the_start_is_plain_multiplication():
    sizes = BatchSizes(8, 8)
    assert [sizes.rows_before(step) for step in (0, 1, 7)] == [0, 8, 56]
    assert sizes.steps_within(57) == 7
    assert sizes.steps_covering(57) == 8
