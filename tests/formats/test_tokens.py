import json

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bessemer.errors import BessemerError
from bessemer.formats.tokens import dtype_for, read_split, write_header, write_shard


def write_folder(folder, shards, vocab_size=300, split="train"):
    for number, documents in enumerate(shards):
        write_shard(folder, split, number, documents, dtype_for(vocab_size))
    write_header(folder, vocab_size=vocab_size, tokenizer_digest="d", counts={})


@pytest.mark.parametrize(
    ("vocab_size", "dtype"), [(260, "<u2"), (65535, "<u2"), (65536, "<u2"), (65537, "<u4"), (150_000, "<u4")]
)
def test_ids_take_two_bytes_while_the_vocabulary_fits(vocab_size, dtype):
    assert dtype_for(vocab_size).str == dtype
    assert np.iinfo(dtype_for(vocab_size)).max >= vocab_size - 1


def test_a_shard_opens_with_plain_numpy_and_the_header_says_how(tmp_path):
    write_folder(tmp_path, [[("a", [1, 2, 299], 5), ("b", [7], 1)]])
    header = json.loads((tmp_path / "tokens.json").read_text())
    tokens = np.memmap(tmp_path / "train-00000.bin", dtype=header["dtype"], mode="r")
    assert tokens.tolist() == [1, 2, 299, 7]
    assert (tmp_path / "train-00000.bin").read_bytes() == b"\x01\x00\x02\x00\x2b\x01\x07\x00"
    index = pq.read_table(tmp_path / "train-00000.index.parquet").to_pylist()
    assert index == [
        {"document_id": "a", "offset": 0, "num_tokens": 3, "num_bytes": 5},
        {"document_id": "b", "offset": 3, "num_tokens": 1, "num_bytes": 1},
    ]


DOCUMENTS = st.tuples(st.text(max_size=3), st.lists(st.integers(0, 69_999), max_size=6), st.integers(0, 99))


@given(st.lists(st.lists(DOCUMENTS, max_size=4), min_size=1, max_size=4))
@settings(max_examples=30, deadline=None)  # every example syncs its files
def test_documents_of_all_shards_come_back_in_order(tmp_path_factory, shards):
    folder = tmp_path_factory.mktemp("tokens")
    write_folder(folder, shards, vocab_size=70_000)
    split = read_split(folder, "train")
    expected = [document for shard in shards for document in shard]
    assert split.document_ids == [id for id, _, _ in expected]
    assert [split.document(n).tolist() for n in range(len(expected))] == [ids for _, ids, _ in expected]
    assert split.num_bytes.tolist() == [num_bytes for _, _, num_bytes in expected]
    assert split.num_tokens == sum(len(ids) for _, ids, _ in expected)
    assert split.vocab_size == 70_000


def test_equal_documents_give_equal_bytes(tmp_path):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        write_folder(tmp_path / name, [[("a", [1, 2], 2)], []])
    files = sorted(path.name for path in (tmp_path / "one").iterdir())
    assert len(files) == 5
    for name in files:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_an_id_beyond_the_type_is_refused_not_wrapped(tmp_path):
    with pytest.raises(OverflowError):
        write_shard(tmp_path, "train", 0, [("a", [65536], 1)], dtype_for(300))


def test_what_is_missing_is_named(tmp_path):
    with pytest.raises(BessemerError, match=r"tokens\.json is missing"):
        read_split(tmp_path, "train")
    write_folder(tmp_path, [[("a", [1], 1)]])
    with pytest.raises(BessemerError, match="no shards of the split 'validation'"):
        read_split(tmp_path, "validation")
