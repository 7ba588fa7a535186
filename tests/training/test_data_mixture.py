import numpy as np
import pytest
from corpus_helpers import split_of
from hypothesis import given
from hypothesis import strategies as st

from bessemer.training.batches import DocumentRows
from bessemer.training.mixture import PERIOD, MixStage, Mixture, shares

WEIGHTS = st.lists(st.floats(0, 10), min_size=1, max_size=5).filter(lambda weights: sum(weights) > 0.1)


class Numbers:
    """A source whose rows are their own numbers."""

    def row(self, number):
        return number

    def documents(self, number):
        return [str(number)]


def mixture(*stages, num_sources=2, seed=3):
    return Mixture([Numbers() for _ in range(num_sources)], [MixStage(*stage) for stage in stages], seed)


@given(WEIGHTS)
def test_a_block_holds_the_weights_to_within_one_row(weights):
    counts = shares(weights)
    assert counts.sum() == PERIOD
    exact = np.array(weights) / sum(weights) * PERIOD
    assert (np.abs(counts - exact) < 1).all()


@given(st.integers(1, 3 * PERIOD), st.lists(st.floats(0.1, 5), min_size=2, max_size=4))
def test_every_source_is_read_in_order_without_gap_or_repeat(start_of_second, weights):
    num_sources = len(weights)
    mixed = mixture((0, tuple(weights)), (start_of_second, tuple(reversed(weights))), num_sources=num_sources)
    seen = [[] for _ in range(num_sources)]
    for number in range(start_of_second + 300):
        source, row = mixed.place(number)
        seen[source].append(row)
    for rows in seen:
        assert rows == list(range(len(rows)))
    assert mixed.rows_by_source(start_of_second + 300) == [len(rows) for rows in seen]


def test_shares_follow_the_curriculum():
    mixed = mixture((0, (3.0, 1.0)), (2 * PERIOD, (0.0, 1.0)))
    first = [mixed.place(number)[0] for number in range(2 * PERIOD)]
    assert first.count(1) == PERIOD / 2
    assert {mixed.place(number)[0] for number in range(2 * PERIOD, 4 * PERIOD)} == {1}
    # In any stretch of a few hundred rows the share is near, too: no long runs of one source.
    for start in range(0, 2 * PERIOD, 256):
        assert 0.15 < first[start : start + 256].count(1) / 256 < 0.35


def test_the_order_is_a_pure_function_of_the_row_and_the_seed():
    stages = ((0, (1.0, 2.0)), (700, (2.0, 1.0)))
    one, two = mixture(*stages), mixture(*stages)
    numbers = [5000, 3, 699, 700, 2500]
    assert [one.place(n) for n in numbers] == [two.place(n) for n in reversed(numbers)][::-1]
    other = mixture(*stages, seed=4)
    assert [one.place(n) for n in range(50)] != [other.place(n) for n in range(50)]


def test_rows_and_documents_come_from_the_sources():
    sources = [
        DocumentRows(split_of([40, 30, 50], 0, "a"), 16, 1),
        DocumentRows(split_of([60, 20], 1000, "b"), 16, 2),
    ]
    mixed = Mixture(sources, [MixStage(0, (1.0, 1.0))], 3)
    for number in range(40):
        source, row = mixed.place(number)
        assert (mixed.row(number).token_ids == sources[source].row(row).token_ids).all()
        assert (mixed.row(number).token_ids >= 1000).all() == (source == 1)
        assert all(id.startswith("ab"[source]) for id in mixed.documents(number))


def test_one_source_alone_is_read_as_it_is():
    mixed = mixture((0, (2.0,)), num_sources=1)
    assert [mixed.place(number) for number in (0, 5, 3000)] == [(0, 0), (0, 5), (0, 3000)]


@pytest.mark.parametrize("bad", [(0.0, 1.0), (1.0, 0.0)])
def test_a_source_of_weight_zero_is_never_read(bad):
    mixed = mixture((0, bad))
    assert {mixed.place(number)[0] for number in range(PERIOD)} == {bad.index(1.0)}
