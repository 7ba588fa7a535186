"""Common Crawl over loopback, with real records: files, ranges, refusals, resume, wrong bytes."""

import gzip
import json
from pathlib import Path

import pytest
from collect_helpers import records_of, stage_context
from range_server import RangeServer

from bessemer.collect import CollectConfig
from bessemer.collect.common_crawl.collect import collect_common_crawl
from bessemer.errors import BessemerError
from bessemer.formats.warc import WarcRecord, read_warc
from bessemer.formats.warc_writer import WarcHead

SAMPLES = Path(__file__).parents[3] / "shared" / "data" / "web"
SAMPLE = SAMPLES / "resiliparse-commoncrawl-2020-34.warc.gz"
CRAWL = "CC-MAIN-2020-34"
FILE = f"crawl-data/{CRAWL}/segments/1/warc/a.warc.gz"
pytestmark = pytest.mark.skipif(not SAMPLE.is_file(), reason="the sample files are not here")


def files() -> dict[str, bytes]:
    paths = gzip.compress(f"{FILE}\ncrawl-data/{CRAWL}/other.warc.gz\n".encode())
    return {f"crawl-data/{CRAWL}/warc.paths.gz": paths, FILE: SAMPLE.read_bytes()}


def captures() -> list[dict]:
    """The index of the sample, from its records."""
    records = [item for item in read_warc(SAMPLE) if isinstance(item, WarcRecord)]
    ends = [*(record.offset for record in records[1:]), SAMPLE.stat().st_size]
    return [
        {
            "url": record.uri,
            "filename": FILE,
            "offset": str(record.offset),
            "length": str(end - record.offset),
            "digest": record.header("WARC-Payload-Digest").removeprefix("sha1:"),
        }
        for record, end in zip(records, ends, strict=True)
        if record.type == "response"
    ]


def take(folder: Path, server: RangeServer, **what: object) -> tuple[int, Path, list[float], dict[str, str]]:
    """Pages, output, waits, and reasons by URL."""
    waits: list[float] = []

    async def pause(seconds: float) -> None:
        waits.append(seconds)

    source = {"crawl": CRAWL, "base_url": server.url, "index_url": server.url, "request_delay_s": 0, **what}
    config = CollectConfig.model_validate(
        {"source": {"common_crawl": source}, "crawl": {"allow_private_hosts": True}}
    )
    context = stage_context(folder)
    context.output.mkdir(parents=True, exist_ok=True)
    context.scratch.mkdir(parents=True, exist_ok=True)
    head = WarcHead("1970-01-01T00:00:00Z", {})
    num_pages = collect_common_crawl(config, context, head, pause)
    log = context.output / "crawl.jsonl"
    lines = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
    return num_pages, context.output, waits, {line["url"]: line["reason"] for line in lines}


def test_the_first_file_of_the_list_is_fetched_byte_for_byte(tmp_path):
    with RangeServer(files()) as server:
        num_pages, output, _, faults = take(tmp_path, server, files=1)
    assert num_pages == 16
    assert (output / "00000-a.warc.gz").read_bytes() == SAMPLE.read_bytes()
    assert faults == {}


def test_a_broken_download_continues_where_it_stopped(tmp_path):
    with RangeServer(files()) as server:
        server.faults = ["cut", "busy"]
        _, output, waits, _ = take(tmp_path, server, paths=[FILE])
    size = SAMPLE.stat().st_size
    assert [asked[1] for asked in server.asked] == [None, f"bytes={size // 2}-", f"bytes={size // 2}-"]
    assert (output / "00000-a.warc.gz").read_bytes() == SAMPLE.read_bytes()
    assert waits[-1] >= 7, "Retry-After is obeyed"


def test_a_missing_file_is_reported_and_the_others_read(tmp_path):
    with RangeServer(files()) as server:
        num_pages, _, _, faults = take(tmp_path, server, files=2)
        assert num_pages == 16
        assert faults == {f"{server.url}/crawl-data/{CRAWL}/other.warc.gz": "not fetched: HTTP 404"}


def test_records_found_through_the_index_are_copied_and_verified(tmp_path):
    with RangeServer(files(), captures()) as server:
        num_pages, output, _, faults = take(tmp_path, server, urls=["*"], limit=5)
    copied = [record for record in records_of(output) if record.type == "response"]
    assert num_pages == 5
    assert [record.uri for record in copied] == [capture["url"] for capture in captures()[:5]]
    assert faults == {}


def test_wrong_bytes_wrong_digests_and_unknown_urls_cost_only_themselves(tmp_path):
    index = captures()[:3]
    index[1]["digest"] = "A" * 32
    with RangeServer(files(), index) as server:
        num_pages, _, _, faults = take(tmp_path, server, urls=["*", "nowhere.test"])
    assert num_pages == 2
    assert faults[index[1]["url"]].startswith("wrong digest")
    assert faults["nowhere.test"].startswith("not in the index")


def test_a_server_that_stays_away_stops_the_stage_and_says_how_to_go_on(tmp_path):
    with RangeServer(files()) as server:
        server.faults = ["busy"] * 3
        with pytest.raises(BessemerError, match="run the same command again"):
            take(tmp_path, server, paths=[FILE], max_retries=2)
        num_pages, _, _, _ = take(tmp_path, server, paths=[FILE])
    assert num_pages == 16


def test_private_addresses_are_refused_unless_allowed(tmp_path):
    with RangeServer(files()) as server:
        source = {"crawl": CRAWL, "base_url": server.url, "paths": [FILE]}
        context = stage_context(tmp_path)
        context.output.mkdir()
        context.scratch.mkdir()
        config = CollectConfig.model_validate({"common_crawl": source})
        collect_common_crawl(config, context, WarcHead("1970-01-01T00:00:00Z", {}))
    assert "private address" in (context.output / "crawl.jsonl").read_text()
    assert server.asked == []
