from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bessemer.formats.tokens import TokenSplit, dtype_for, read_split, write_header, write_shard
from bessemer.training.batches import IGNORE, DocumentRows, row_of_conversations, row_of_pieces, stack_rows


def split_of(lengths, shards=1):
    """Documents whose tokens are all different: document d holds 1000·d, 1000·d + 1, …"""
    ids = [np.arange(length) + 1000 * number for number, length in enumerate(lengths)]
    parts = np.array_split(np.arange(len(lengths)), shards)
    return TokenSplit(
        shards=[np.concatenate([ids[d] for d in part] or [np.zeros(0, int)]) for part in parts],
        shard_of=np.repeat(np.arange(shards, dtype=np.int32), [len(part) for part in parts]),
        offsets=np.concatenate(
            [np.cumsum([0, *(lengths[d] for d in part[:-1])])[: len(part)] for part in parts]
        ),
        lengths=np.array(lengths, dtype=np.int64),
        num_bytes=np.array(lengths, dtype=np.int64),
        document_ids=[str(d) for d in range(len(lengths))],
        vocab_size=1000 * len(lengths),
    )


CORPUS = st.lists(st.integers(1, 23), min_size=1, max_size=12)


@given(CORPUS, st.integers(1, 17), st.integers(0, 3))
@settings(max_examples=60)
def test_every_token_is_an_input_exactly_once_an_epoch(lengths, sequence_length, seed):
    rows, total = DocumentRows(split_of(lengths, shards=2), sequence_length, seed), sum(lengths)
    num_epochs = sequence_length  # so that a row ends where the last epoch does
    stream = torch.cat([rows.batch(step, 1).token_ids_BT[0] for step in range(total)])
    assert len(stream) == num_epochs * total
    expected = Counter({1000 * d + i: 1 for d, length in enumerate(lengths) for i in range(length)})
    for epoch in range(num_epochs):
        assert Counter(stream[epoch * total : (epoch + 1) * total].tolist()) == expected


@given(CORPUS, st.integers(1, 17), st.integers(0, 3))
@settings(max_examples=60)
def test_a_target_is_the_next_token_of_the_same_document_or_none(lengths, sequence_length, seed):
    rows = DocumentRows(split_of(lengths), sequence_length, seed)
    for step in range(4):
        batch = rows.batch(step, 2)
        for ids, targets in zip(batch.token_ids_BT.tolist(), batch.targets_BT.tolist(), strict=True):
            for id, target in zip(ids, targets, strict=True):
                is_last_of_document = id % 1000 + 1 == lengths[id // 1000]
                assert target == (IGNORE if is_last_of_document else id + 1)


@given(CORPUS, st.integers(2, 17), st.integers(0, 3))
@settings(max_examples=60)
def test_positions_count_up_inside_each_document_and_restart_with_the_next(lengths, sequence_length, seed):
    rows = DocumentRows(split_of(lengths), sequence_length, seed)
    batch = rows.batch(1, 3)
    for ids, documents, positions in zip(
        batch.token_ids_BT.tolist(), batch.documents_BT.tolist(), batch.positions_BT.tolist(), strict=True
    ):
        assert (documents[0], positions[0]) == (0, 0)
        for place in range(1, sequence_length):
            goes_on = ids[place] == ids[place - 1] + 1 and ids[place] // 1000 == ids[place - 1] // 1000
            assert documents[place] == documents[place - 1] + (not goes_on)
            assert positions[place] == (positions[place - 1] + 1 if goes_on else 0)


def test_rows_are_a_pure_function_of_seed_and_step():
    split = split_of([7, 3, 19, 5, 11])
    rows = DocumentRows(split, 8, seed=1)
    later = rows.batch(40, 4).token_ids_BT
    rows.batch(0, 4)
    assert torch.equal(rows.batch(40, 4).token_ids_BT, later)
    assert torch.equal(DocumentRows(split, 8, seed=1).batch(40, 4).token_ids_BT, later)
    assert not torch.equal(DocumentRows(split, 8, seed=2).batch(40, 4).token_ids_BT, later)


def test_the_order_of_the_data_does_not_depend_on_the_batch_size():
    rows = DocumentRows(split_of([7, 3, 19, 5, 11]), 8, seed=1)
    for step in range(6):
        whole = rows.batch(step, 8)
        halves = [rows.batch(2 * step + half, 4) for half in range(2)]
        for name in ("token_ids_BT", "targets_BT", "documents_BT", "positions_BT"):
            assert torch.equal(getattr(whole, name), torch.cat([getattr(half, name) for half in halves]))


def test_epochs_are_shuffled_differently():
    rows = DocumentRows(split_of([4] * 30), 120, seed=1)
    first, second = (rows.batch(step, 1).token_ids_BT[0, ::4].tolist() for step in range(2))
    assert sorted(first) == sorted(second) == [1000 * d for d in range(30)]
    assert first != second
    assert first != sorted(first)


def test_rows_read_the_shards_on_disk(tmp_path):
    for number in range(2):
        documents = [(f"{number}-{d}", [10 * number + d] * (d + 2), 1) for d in range(3)]
        write_shard(tmp_path, "train", number, documents, dtype_for(300))
    write_header(tmp_path, vocab_size=300, tokenizer_digest="", counts={})
    batch = DocumentRows(read_split(tmp_path, "train"), 6, seed=0).batch(0, 3)
    assert batch.token_ids_BT.dtype == torch.int64
    counts = Counter(batch.token_ids_BT.flatten().tolist())
    assert counts == {0: 2, 1: 3, 2: 4, 10: 2, 11: 3, 12: 4}


def test_an_empty_split_is_refused():
    with pytest.raises(ValueError, match="empty token split"):
        DocumentRows(split_of([0]), 8, seed=0)


def test_pieces_become_documents_of_one_row():
    row = row_of_pieces([np.array([5, 6, 7]), np.array([8]), np.array([9, 10])])
    assert row.token_ids.tolist() == [5, 6, 7, 8, 9]
    assert row.targets.tolist() == [6, 7, IGNORE, IGNORE, 10]
    assert row.documents.tolist() == [0, 0, 0, 1, 2]
    assert row.positions.tolist() == [0, 1, 2, 0, 0]


def test_conversations_become_documents_of_one_row_and_padding_one_more():
    items = [([5, 6, 7], [False, True, True]), ([8, 9], [True, False])]
    row = row_of_conversations(items, 7, padding_id=99)
    assert row.token_ids.tolist() == [5, 6, 7, 8, 9, 99, 99]
    assert row.targets.tolist() == [6, 7, IGNORE, IGNORE, IGNORE, IGNORE, IGNORE]
    assert row.documents.tolist() == [0, 0, 0, 1, 1, 2, 2]
    assert row.positions.tolist() == [0, 1, 2, 0, 1, 0, 1]


@pytest.mark.parametrize("num_parts", [1, 2, 3, 4, 9])
def test_a_split_batch_holds_the_same_rows_and_no_empty_part(num_parts):
    row = row_of_pieces([np.arange(5)])
    batch = stack_rows([row] * 4)
    parts = batch.split(num_parts)
    assert len(parts) == min(num_parts, 4)
    assert all(part.num_tokens > 0 for part in parts)
    assert torch.equal(torch.cat([part.token_ids_BT for part in parts]), batch.token_ids_BT)
