"""Deduplication of Parquet files on its own: what stays, the evidence, equal bytes, wrong files."""

import random
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from dedup_world import altered, random_text

from bessemer.curate.dedup import standalone
from bessemer.curate.dedup.config import DuplicateConfig
from bessemer.curate.dedup.file_shards import FileShard
from bessemer.curate.dedup.standalone import deduplicate
from bessemer.errors import BessemerError

NOTICE = "this site keeps small files on your machine so that it may know you again"


def rows() -> list[dict[str, object]]:
    random_ = random.Random(2)
    words = random_text(random_, 100)
    texts = {
        "first": " ".join(words),
        "near": " ".join(altered(words, 1, random_)),
        "equal": " ".join(words).upper(),
        "own": " ".join(random_text(random_, 90)) + "\n" + NOTICE,
        "again": " ".join(random_text(random_, 80)) + "\n" + NOTICE + "\nThe end",
        "only the notice": NOTICE,
        "captured": " ".join(random_text(random_, 50)),
        "captured later": " ".join(random_text(random_, 50)),
        "empty": "",
    }
    urls = {"captured": "https://a.org/", "captured later": "https://a.org/"}
    return [
        {"id": name, "text": text, "url": urls.get(name), "number": i}
        for i, (name, text) in enumerate(texts.items())
    ]


def write(folder: Path, some: list[dict[str, object]], rows_a_file: int) -> list[Path]:
    folder.mkdir(parents=True)
    paths = []
    for start in range(0, len(some), rows_a_file):
        paths.append(folder / f"{start:05}.parquet")
        schema = pa.schema(
            [("id", pa.string()), ("text", pa.string()), ("url", pa.string()), ("number", pa.int64())]
        )
        pq.write_table(pa.Table.from_pylist(some[start : start + rows_a_file], schema), paths[-1])
    return paths


def run(folder: Path, files: list[Path], workers: int = 1, **settings: object) -> dict:
    config = DuplicateConfig.model_validate(
        {"max_duplicate_share": 1.0, "paragraph_duplicates": True} | settings
    )
    return deduplicate(files, folder / "output", folder / "scratch", config, workers, lambda line: None)


def output_bytes(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (folder / "output").iterdir()}


def test_one_of_each_cluster_stays_with_all_its_columns_and_the_rest_is_explained(tmp_path: Path):
    metrics = run(tmp_path, write(tmp_path / "in", rows(), 4))
    documents = pl.read_parquet(tmp_path / "output" / "documents-*.parquet")
    assert documents["id"].to_list() == ["first", "own", "again", "captured", "empty"]
    assert documents["number"].to_list() == [0, 3, 4, 6, 8]
    texts = dict(documents.select("id", "text").rows())
    assert texts["own"].endswith(NOTICE)
    assert NOTICE not in texts["again"]
    assert texts["again"].endswith("\nThe end")
    dropped = {
        row["id"]: row for row in pl.read_parquet(tmp_path / "output" / "dropped-*.parquet").to_dicts()
    }
    assert {name: row["dropped_rule"] for name, row in dropped.items()} == {
        "near": "duplicates.near",
        "equal": "duplicates.exact",
        "only the notice": "duplicates.paragraph",
        "captured later": "duplicates.url",
    }
    assert dropped["near"]["duplicate_survivor"] == dropped["near"]["duplicate_partner"] == "first"
    assert dropped["near"]["duplicate_similarity"] == pytest.approx(91 / 101)
    pairs = pl.read_parquet(tmp_path / "output" / "duplicate_pairs-*.parquet")
    assert pairs.select("id_a", "id_b").rows() == [("first", "near")]
    assert (metrics["records"], metrics["documents"]) == (9, 5)


def test_workers_and_what_an_earlier_attempt_finished_change_no_byte(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    files = write(tmp_path / "in", rows(), 2)
    run(tmp_path / "one", files)
    run(tmp_path / "two", files, workers=2)
    assert output_bytes(tmp_path / "one") == output_bytes(tmp_path / "two")
    fingerprinted = []
    by_file = standalone.fingerprint_file

    def stops(shard: FileShard, config: DuplicateConfig, identity: str) -> None:
        if len(fingerprinted) == 3:
            raise KeyboardInterrupt
        fingerprinted.append(shard)
        by_file(shard, config, identity)

    with monkeypatch.context() as patch:
        patch.setattr(standalone, "fingerprint_file", stops)
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path / "stopped", files)
        patch.setattr(
            standalone,
            "fingerprint_file",
            lambda shard, config, identity: (
                fingerprinted.append(shard),
                by_file(shard, config, identity),
            ),
        )
        run(tmp_path / "stopped", files)
    assert len(fingerprinted) == len(files), "a file was fingerprinted twice"
    assert output_bytes(tmp_path / "stopped") == output_bytes(tmp_path / "one")


def test_wrong_files_are_named_all_at_once(tmp_path: Path):
    with pytest.raises(BessemerError, match="no files"):
        run(tmp_path, [])
    right = write(tmp_path / "in", rows(), 9)[0]
    numbers, textless = tmp_path / "numbers.parquet", tmp_path / "textless.parquet"
    pq.write_table(pa.table({"id": [1, 2], "text": ["a", "b"]}), numbers)
    pq.write_table(pa.table({"id": ["a"], "source": [1.5]}), textless)
    with pytest.raises(BessemerError) as wrong:
        run(tmp_path, [right, numbers, textless])
    message = str(wrong.value)
    assert "numbers.parquet has no column 'id' of strings" in message
    assert "textless.parquet has no column 'text' of strings" in message
    assert "textless.parquet: column 'source' holds no strings" in message
    assert "numbers.parquet has other columns than" in message
    with pytest.raises(BessemerError, match=r"no column 'fetched_at', by which survivor: newest chooses"):
        run(tmp_path, [right], survivor="newest")


def test_files_without_rows_and_null_texts_are_no_problem(tmp_path: Path):
    schema = pa.schema([("id", pa.large_string()), ("text", pa.large_string())])
    empty, nulls = tmp_path / "empty.parquet", tmp_path / "nulls.parquet"
    pq.write_table(schema.empty_table(), empty)
    pq.write_table(pa.table({"id": ["a", "b"], "text": [None, "some text"]}, schema=schema), nulls)
    assert run(tmp_path / "none", [empty])["documents"] == 0
    assert run(tmp_path / "some", [empty, nulls])["documents"] == 2
