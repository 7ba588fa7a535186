from itertools import pairwise

import numpy as np
import pytest
from corpus_helpers import split_of, web_like_lengths
from hypothesis import given
from hypothesis import strategies as st

from bessemer.errors import BessemerError
from bessemer.training.batches import IGNORE
from bessemer.training.packed_documents import PackedDocuments

PAD = 999_999
LENGTHS = st.lists(st.integers(1, 70), min_size=1, max_size=60)


def packed(lengths, capacity=32, seed=1):
    return PackedDocuments(split_of(lengths), capacity, seed, PAD)


def pairs(rows, numbers):
    """Every (token, next token) that rows teach."""
    found = []
    for number in numbers:
        row = rows.row(number)
        learnt = row.targets != IGNORE
        found += zip(row.token_ids[learnt].tolist(), row.targets[learnt].tolist(), strict=True)
    return sorted(found)


def all_pairs(lengths):
    split = split_of(lengths)
    documents = [split.document(number).tolist() for number in range(len(lengths))]
    return sorted(pair for tokens in documents for pair in pairwise(tokens))


@given(LENGTHS)
def test_an_epoch_teaches_every_pair_of_neighbours_exactly_once(lengths):
    if max(lengths) < 2:
        with pytest.raises(BessemerError, match="no document has two tokens"):
            packed(lengths)
        return
    rows = packed(lengths)
    for epoch in range(2):
        numbers = range(epoch * rows.rows_per_epoch, (epoch + 1) * rows.rows_per_epoch)
        assert pairs(rows, numbers) == all_pairs(lengths)


@given(LENGTHS.filter(lambda lengths: max(lengths) >= 2))
def test_rows_are_documents_apart_with_positions_from_zero(lengths):
    rows = packed(lengths)
    for number in range(rows.rows_per_epoch):
        row = rows.row(number)
        for document in np.unique(row.documents):
            inside = row.documents == document
            assert row.positions[inside].tolist() == list(range(int(inside.sum())))
            tokens = row.token_ids[inside]
            assert (tokens == PAD).all() or (np.diff(tokens) == 1).all(), "one run of one document"
        padding = row.token_ids == PAD
        assert (row.targets[padding] == IGNORE).all()
        assert (row.targets[~padding] != IGNORE).all()


@pytest.mark.parametrize("capacity", [256, 1024, 2048])
def test_real_lengths_waste_less_than_two_percent_and_are_rarely_cut(capacity):
    lengths = web_like_lengths()
    rows = packed(lengths, capacity)
    assert rows.padding_share < 0.02
    assert rows.num_cut < 0.05 * len(lengths)


@pytest.mark.parametrize("lengths", [[20] * 100, [18, 19, 20, 21] * 30, [33] * 50])
def test_lengths_that_do_not_fit_together_are_cut_rather_than_padded(lengths):
    """Documents of 20 tokens in rows of 32: one a row would waste 40 %."""
    assert packed(lengths).padding_share < 0.02


def test_rows_are_a_pure_function_of_seed_and_number():
    lengths = web_like_lengths(200)
    one, two = packed(lengths, 128), packed(lengths, 128)
    numbers = [5, 0, 3 * one.rows_per_epoch + 2, 5]
    for number in numbers:
        assert (one.row(number).token_ids == two.row(number).token_ids).all()
    last = [two.row(number).token_ids for number in reversed(numbers)]
    assert (last[0] == one.row(5).token_ids).all()
    other = packed(lengths, 128, seed=2)
    assert any((one.row(n).token_ids != other.row(n).token_ids).any() for n in range(5))


def test_every_epoch_has_an_order_of_its_own():
    rows = packed(web_like_lengths(300), 128)
    epochs = [
        [rows.documents(epoch * rows.rows_per_epoch + n) for n in range(rows.rows_per_epoch)]
        for epoch in range(2)
    ]
    assert epochs[0] != epochs[1]
    assert sorted(epochs[0]) == sorted(epochs[1])


def test_a_document_shorter_than_a_row_stays_whole_when_it_fits():
    rows = packed([20, 14, 20, 14, 20, 14], 32)  # pairs: 19 + 13 = 32 fill a row
    assert rows.num_cut == 0
    assert rows.padding_share == 0
    assert all(len(rows.documents(number)) == 2 for number in range(rows.rows_per_epoch))
