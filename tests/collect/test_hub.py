"""Data sets of the hub over loopback: pinned, verified, chosen by the card, resumed after a kill."""

import io
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from collect_helpers import files_of, records_of, stage_context
from hub_server import HubServer

from bessemer.collect import CollectConfig, collect
from bessemer.errors import BessemerError
from bessemer.runner.context import Metrics
from stage_helpers import kill_at_operation, killed

DATASET = "org/corpus"
CARD = {
    "license": "cc-by-4.0",
    "configs": [
        {
            "config_name": "default",
            "data_files": [
                {"split": "train", "path": "data/train-*"},
                {"split": "test", "path": "data/test-*"},
            ],
        },
        {"config_name": "old", "data_files": "old/*.jsonl"},
    ],
}


def parquet(*texts: str) -> bytes:
    buffer = io.BytesIO()
    rows = {"text": list(texts), "id": [f"row {text[:5]}" for text in texts]}
    pq.write_table(pa.table(rows), buffer, row_group_size=2)
    return buffer.getvalue()


FILES = {
    "README.md": b"---\nlicense: cc-by-4.0\n---\nwords about the data\n",
    "data/train-00000.parquet": parquet("first of all", "second", "third"),
    "data/train-00001.jsonl": b'{"text": "fourth", "license": "MIT"}\n{"no": "text"}\n',
    "data/test-00000.parquet": parquet("tenth"),
    "old/a.jsonl": b'{"text": "of old"}\n',
    "corpus.py": b"import os\n",
}


@pytest.fixture
def hub() -> Iterator[HubServer]:
    with HubServer(DATASET, FILES, CARD) as server:
        yield server


def take(folder: Path, hub: HubServer, settings: dict | None = None, **what: object) -> Metrics:
    source = {"dataset": DATASET, "endpoint": hub.url, "retry_delay_s": 0.01, **what}
    config = {"hub": source, "crawl": {"allow_private_hosts": True}, **(settings or {})}
    return collect(CollectConfig.model_validate(config), stage_context(folder))


def rows_of(folder: Path) -> list[str]:
    pages = [page for page in records_of(folder / "output") if page.type == "resource"]
    return [json.loads(page.block)["text"] for page in pages]


def faults_of(folder: Path) -> dict[str, str]:
    log = folder / "output" / "crawl.jsonl"
    lines = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
    return {line["url"].rpartition("/")[2]: line["reason"] for line in lines}


def test_rows_come_from_the_pinned_commit_with_licence_date_and_address(tmp_path, hub):
    metrics = take(tmp_path, hub)
    warcinfo, *pages = records_of(tmp_path / "output")
    assert rows_of(tmp_path) == ["first of all", "second", "third", "fourth"]
    assert pages[0].uri == (
        f"{hub.url}/datasets/{DATASET}/resolve/{hub.main}/data/train-00000.parquet#row%20first"
    )
    assert {page.date for page in pages} == {"2024-03-05T06:07:08Z"}
    assert pages[0].description == {"source": DATASET, "licence": "cc-by-4.0"}
    assert json.loads(pages[3].block)["licence"] == "MIT"
    assert f"/datasets/{DATASET}/tree/{hub.main}".encode() in warcinfo.block
    assert faults_of(tmp_path)["train-00001.jsonl:2"].startswith("no text")
    told = {name: metrics[name] for name in ("dataset", "revision", "commit", "licence", "pages")}
    assert told == {
        "dataset": DATASET,
        "revision": "main",
        "commit": hub.main,
        "licence": "cc-by-4.0",
        "pages": 4,
    }
    assert not list((tmp_path / "scratch" / "download").rglob("*.parquet")), "files are let go when read"


_OFFICIAL = """
import sys
from huggingface_hub import HfApi, hf_hub_download
info = HfApi().dataset_info(sys.argv[1], revision="main", files_metadata=True)
print(info.sha, info.card_data["license"], sorted(each.rfilename for each in info.siblings))
listed = HfApi().list_repo_tree(sys.argv[1], repo_type="dataset", revision=info.sha, recursive=True)
print(sorted((each.path, each.size) for each in listed if hasattr(each, "size")))
for name in ("README.md", "data/train-00000.parquet"):
    hf_hub_download(sys.argv[1], name, repo_type="dataset", revision=info.sha, local_dir=sys.argv[2])
"""


def test_the_server_of_these_tests_satisfies_the_hubs_own_client(tmp_path, hub):
    """What these tests rest on: a server that is unlike the hub would prove nothing."""
    pytest.importorskip("huggingface_hub")
    told = subprocess.run(
        [sys.executable, "-c", _OFFICIAL, DATASET, str(tmp_path)],
        env={
            "PATH": os.defpath,
            "HOME": str(tmp_path),
            "HF_ENDPOINT": hub.url,
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
        },
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert told.returncode == 0, told.stderr
    info, listed = told.stdout.splitlines()
    assert info == f"{hub.main} cc-by-4.0 {sorted(FILES)}"
    assert listed == str([(name, len(content)) for name, content in sorted(FILES.items())])
    for name in ("README.md", "data/train-00000.parquet"):
        assert (tmp_path / name).read_bytes() == FILES[name]


@pytest.mark.parametrize(
    ("choice", "texts"),
    [
        ({"split": "test"}, ["tenth"]),
        ({"split": "all"}, ["tenth", "first of all", "second", "third", "fourth"]),
        ({"subset": "old"}, ["of old"]),
        ({"files": ["**/*.jsonl"]}, ["fourth", "of old"]),
        ({"max_files": 1}, ["first of all", "second", "third"]),
    ],
)
def test_rows_are_chosen_by_subset_split_or_name(tmp_path, hub, choice, texts):
    take(tmp_path, hub, **choice)
    assert rows_of(tmp_path) == texts


def test_a_bound_on_rows_leaves_further_files_on_the_hub(tmp_path, hub):
    take(tmp_path, hub, {"max_pages": 2})
    assert rows_of(tmp_path) == ["first of all", "second"]
    assert not any("train-00001" in asked for asked in hub.asked if "/resolve/" in asked)


def test_a_cut_download_goes_on_where_it_stopped_also_in_another_process(tmp_path, hub):
    hub.storage.faults = ["cut"]
    with pytest.raises(BessemerError, match="run the same command again"):
        take(tmp_path, hub, max_retries=0)
    take(tmp_path, hub)
    size = len(FILES["data/train-00000.parquet"])
    assert [ranges for _, ranges in hub.storage.asked] == [None, f"bytes={size // 2}-"]
    assert rows_of(tmp_path) == ["first of all", "second", "third", "fourth"]


def test_bytes_that_are_not_the_listed_ones_cost_their_file_alone(tmp_path, hub):
    hub.storage.faults = ["wrong", "wrong"]
    take(tmp_path, hub)
    assert rows_of(tmp_path) == ["fourth"]
    assert faults_of(tmp_path)["train-00000.parquet"].startswith("not fetched: wrong checksum: sha256")


def test_small_files_are_held_against_the_name_that_git_gives_them(tmp_path):
    with HubServer(DATASET, FILES, CARD) as hub:
        listed = hub.commits[hub.main]
        real = dict(listed)

        class Changed(dict):
            """Lists the true sizes and digests, and serves other bytes."""

            def get(self, name: str, default: object = None) -> object:
                content = super().get(name, default)
                return b"x" * len(content) if name.endswith("1.jsonl") and content else content

        hub.commits[hub.main] = Changed(real)
        take(tmp_path, hub)
    assert faults_of(tmp_path)["train-00001.jsonl"].startswith("not fetched: wrong checksum: git-blob")
    assert rows_of(tmp_path) == ["first of all", "second", "third"]


def test_a_run_killed_anywhere_ends_with_the_bytes_of_the_commit_it_began_with(tmp_path, hub):
    take(tmp_path / "whole", hub)
    commit = hub.main
    folder = tmp_path / "killed"
    num_kills = 0
    for number in range(3, 200, 4):

        def work(number: int = number) -> None:
            kill_at_operation(folder, number)
            take(folder, hub)

        if not killed(work):
            break
        num_kills += 1
        if (folder / "scratch" / "hub.json").exists():
            hub.push({**FILES, "data/train-00002.jsonl": b'{"text": "later"}\n'})
    assert num_kills >= 4
    assert hub.main != commit
    take(folder, hub)
    assert files_of(folder / "output") == files_of(tmp_path / "whole" / "output")


def test_a_token_goes_to_the_hub_and_not_to_its_storage(tmp_path, hub, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "made-up")
    take(tmp_path, hub)
    assert hub.authorizations == {"Bearer made-up"}
    assert hub.storage.authorizations == {None}


def test_the_endpoint_of_the_environment_is_used(tmp_path, hub, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", hub.url + "/")
    take(tmp_path, hub, endpoint=None)
    assert len(rows_of(tmp_path)) == 4


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ({"dataset": "org/other"}, "does not give data set 'org/other'.*HF_TOKEN"),
        ({"revision": "v9"}, "at 'v9': HTTP 404"),
        ({"max_bytes": 100}, "GB, more than max_bytes"),
        ({"split": "dev"}, "no split 'dev'; its card names train, test"),
        ({"subset": "new"}, "no subset 'new'; its card names default, old"),
        ({"files": ["*.csv"]}, r"no files that match \*\.csv"),
    ],
)
def test_what_cannot_be_had_is_named_with_what_there_is(tmp_path, hub, what, message):
    with pytest.raises(BessemerError, match=message):
        take(tmp_path, hub, **what)


def test_a_server_that_is_no_hub_is_named(tmp_path):
    with HubServer(DATASET, FILES, CARD) as hub:
        hub.main = "main"
        hub.commits["main"] = FILES
        with pytest.raises(BessemerError, match="did not answer as a hub does"):
            take(tmp_path, hub)


def test_private_addresses_are_refused_unless_allowed(tmp_path, hub):
    with pytest.raises(BessemerError, match="private address"):
        take(tmp_path, hub, {"crawl": {}})
