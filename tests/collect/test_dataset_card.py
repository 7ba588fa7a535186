"""Dataset cards: licence, subsets and splits, and the choice of files that follows."""

import pytest
from collect_helpers import records_of, stage_context

from bessemer.collect import CollectConfig, collect
from bessemer.collect.hub.card import DatasetCard, card_of, parse_card
from bessemer.collect.hub.config import HubConfig
from bessemer.collect.hub.selection import chosen_files
from bessemer.errors import ConfigError

CARD = b"""---
license: [cc-by-4.0, other]
license_name: house-rules
configs:
- config_name: main
  data_dir: m
  data_files:
  - {split: train, path: ["a*.parquet", "b.parquet"]}
  - split: test
    path: t.parquet
- config_name: whole
  data_files: "w/**"
---
# Words
"""
NAMES = ["README.md", "m/a1.parquet", "m/b.parquet", "m/t.parquet", "w/x/y.jsonl", "script.py", "z.bin"]


def card(content: bytes) -> DatasetCard:
    parsed = parse_card(content)
    assert parsed is not None
    return parsed


def chosen(parsed: DatasetCard, names: list[str] = NAMES, **what: object) -> list[str]:
    return chosen_files(HubConfig.model_validate({"dataset": "a/b", **what}), parsed, names)


def test_a_card_gives_licence_subsets_and_splits():
    assert card(CARD).licence == "cc-by-4.0 AND house-rules"
    assert card(CARD).subsets == ["main", "whole"]
    assert chosen(card(CARD), subset="main") == ["m/a1.parquet", "m/b.parquet"]
    assert chosen(card(CARD), subset="main", split="test") == ["m/t.parquet"]
    assert chosen(card(CARD), subset="whole") == ["w/x/y.jsonl"]


def test_several_subsets_without_a_default_ask_for_a_choice():
    with pytest.raises(ConfigError, match="several subsets: main, whole; choose one with subset:"):
        chosen(card(CARD))
    marked = card(CARD.replace(b"data_dir: m", b"data_dir: m\n  default: true"))
    assert chosen(marked) == ["m/a1.parquet", "m/b.parquet"]


def test_without_a_card_splits_are_told_by_names():
    names = ["data/train-00000-of-00001.parquet", "data/test-00000-of-00001.parquet", "training.parquet"]
    assert chosen(DatasetCard(), names) == names[:1]
    assert chosen(DatasetCard(), names, split="test") == names[1:2]
    assert chosen(DatasetCard(), ["a.parquet", "b/c.jsonl", "README.md"]) == ["a.parquet", "b/c.jsonl"]
    assert chosen(DatasetCard(), ["a.txt", "b.md", "README.md", "load.py"]) == ["a.txt", "b.md"]


@pytest.mark.parametrize(
    ("pattern", "matching"),
    [
        ("m/*", ["m/a1.parquet", "m/b.parquet", "m/t.parquet"]),
        ("m/a?.parquet", ["m/a1.parquet"]),
        ("*.jsonl", []),
        ("**/*.jsonl", ["w/x/y.jsonl"]),
        ("w/**", ["w/x/y.jsonl"]),
        ("**.parquet", ["m/a1.parquet", "m/b.parquet", "m/t.parquet"]),
        ("m/(a1|b).parquet", []),
    ],
)
def test_patterns_keep_to_a_folder_unless_doubled(pattern, matching):
    if matching:
        assert chosen(DatasetCard(), files=[pattern]) == matching
    else:
        with pytest.raises(ConfigError, match="holds no files that match"):
            chosen(DatasetCard(), files=[pattern])


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"# Only words",
        b"---\nlicense: mit\n",
        b"---\n- a list\n---\n",
        b"---\nlicense: [mit\n---\n",
        b"---\nlayout: post\n---\nA page of a blog\n",
        b"---\nlicense: &a [*a]\n? [x]\n: y\n---\n",
        b"words\n---\nlicense: mit\n---\n",
        b"---\n" + b"[" * 100_000 + b"\n---\n",
        b"---\nlicense: 2024-99-99\n---\n",
    ],
)
def test_other_heads_and_broken_ones_are_no_cards(content):
    assert parse_card(content) in (None, DatasetCard())


@pytest.mark.parametrize(
    "head",
    [
        {"configs": 3, "license": 5},
        {"configs": [{"config_name": 3}, 4, {"data_files": [{"path": {}}, [], 5]}]},
        {"configs": [{"data_files": {"train": 3}}], "license": [None, ""]},
        [],
        None,
    ],
)
def test_heads_of_another_layout_say_nothing(head):
    assert card_of(head) == DatasetCard()


def test_a_downloaded_data_set_takes_its_licence_from_its_card_which_is_no_document(tmp_path):
    folder = tmp_path / "corpus"
    (folder / "data").mkdir(parents=True)
    (folder / "README.md").write_bytes(b"---\nlicense: odc-by\n---\nwords\n")
    (folder / "data" / "a.jsonl").write_text('{"text": "one"}\n')
    (folder / "data" / "README.md").write_text("Read these words.\n")
    context = stage_context(tmp_path / "run")
    collect(CollectConfig.model_validate({"path": str(folder)}), context)
    pages = [page for page in records_of(context.output) if page.type == "resource"]
    assert [page.uri for page in pages] == ["file:corpus/data/README.md", "file:corpus/data/a.jsonl#1"]
    assert {page.description["licence"] for page in pages} == {"odc-by"}
