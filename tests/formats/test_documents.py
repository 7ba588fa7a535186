"""Documents and ledger files: bounded shards, atomic, deterministic, readable in order."""

from pathlib import Path

import pyarrow as pa
import pytest

from bessemer.errors import BessemerError
from bessemer.formats.documents import (
    DOCUMENT_SCHEMA,
    DocumentWriter,
    count_documents,
    read_documents,
    scan_documents,
)
from bessemer.formats.ledger import LedgerWriter, ledger_schema, read_rules, scan_ledger
from bessemer.formats.parquet_shards import finish_together


def table(start: int, stop: int) -> pa.Table:
    rows = [{"id": f"{i:032x}", "text": f"text {i} " * 50, "metadata": "{}"} for i in range(start, stop)]
    return pa.Table.from_pylist(rows, schema=DOCUMENT_SCHEMA)


def test_documents_come_back_in_order_over_all_shards(tmp_path: Path):
    with DocumentWriter(tmp_path, max_shard_bytes=4000) as writer:
        for start in range(0, 100, 10):
            writer.write(table(start, start + 10))
    assert len(list(tmp_path.glob("documents-*.parquet"))) > 1
    batches = list(read_documents(tmp_path, columns=["id"], batch_rows=7))
    ids = [id for batch in batches for id in batch.column("id").to_pylist()]
    assert ids == [f"{i:032x}" for i in range(100)]
    assert max(batch.num_rows for batch in batches) <= 7
    assert scan_documents(tmp_path).collect()["id"].to_list() == ids
    assert count_documents(tmp_path) == 100


def test_columns_may_come_in_any_order_and_more_of_them(tmp_path: Path):
    mixed = (
        table(0, 3).select(list(reversed(DOCUMENT_SCHEMA.names))).append_column("extra", pa.array([1, 2, 3]))
    )
    with DocumentWriter(tmp_path) as writer:
        writer.write(mixed)
    assert scan_documents(tmp_path).collect().columns == DOCUMENT_SCHEMA.names


def test_a_corpus_without_documents_still_has_a_schema(tmp_path: Path):
    with DocumentWriter(tmp_path):
        pass
    assert count_documents(tmp_path) == 0
    assert scan_documents(tmp_path).collect().columns == DOCUMENT_SCHEMA.names


def test_writers_finish_together_once_and_as_one_by_one(tmp_path: Path):
    names = ("apart", "together")
    for name in names:
        folders = [tmp_path / name / number for number in "12"]
        with DocumentWriter(folders[0]) as one, DocumentWriter(folders[1]) as two:
            one.write(table(0, 50))
            two.write(table(50, 60))
            if name == "together":
                finish_together([one, two])
    for number in "12":
        files = [
            [path.read_bytes() for path in sorted((tmp_path / name / number).iterdir())] for name in names
        ]
        assert len(files[0]) == 1
        assert files[0] == files[1]


def test_an_error_leaves_no_shard_and_leftovers_of_an_earlier_attempt_go(tmp_path: Path):
    for name in ("documents-00007.parquet", ".documents-00000.parquet.partial"):
        (tmp_path / name).write_bytes(b"leftover")

    def fail_half_way() -> None:
        with DocumentWriter(tmp_path) as writer:
            writer.write(table(0, 3))
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        fail_half_way()
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(BessemerError, match=r"holds no documents-\*\.parquet"):
        count_documents(tmp_path)


def test_the_ledger_has_a_column_for_each_rule_and_carries_the_rules(tmp_path: Path):
    rules = {"b.rule": {"max": 1}, "a.rule": {"min": 0.5}}
    schema = ledger_schema(rules, rules)
    row = {"id": "1", "file": "f", "offset": 0, "verdict": "kept", "a.rule": 0.75}
    row |= {"edits": [{"rule": "b.rule", "start": 1, "end": 4}]}
    with LedgerWriter(tmp_path, schema) as writer:
        writer.write(pa.Table.from_pylist([row], schema=schema))
    back = scan_ledger(tmp_path).collect().to_dicts()[0]
    assert {name: back[name] for name in row} == row
    assert back["b.rule"] is None
    assert list(read_rules(tmp_path).items()) == list(rules.items())
