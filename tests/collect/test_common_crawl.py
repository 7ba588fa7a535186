"""Common Crawl over loopback, with real records: files, ranges, refusals, resume, wrong bytes."""

import gzip
import json
from pathlib import Path

import pytest
from collect_helpers import files_of, records_of, stage_context
from range_server import RangeServer

from bessemer.collect import CollectConfig
from bessemer.collect.common_crawl.collect import collect_common_crawl
from bessemer.curate.extraction.config import ExtractionConfig
from bessemer.curate.records import read_candidate
from bessemer.errors import BessemerError
from bessemer.formats.warc import WarcRecord, read_warc
from bessemer.formats.warc_writer import WarcHead
from stage_helpers import kill_at_operation, killed

SAMPLES = Path(__file__).parents[3] / "shared" / "data" / "web"
SAMPLE = SAMPLES / "resiliparse-commoncrawl-2020-34.warc.gz"
CRAWL = "CC-MAIN-2020-34"
FILE = f"crawl-data/{CRAWL}/segments/1/warc/a.warc.gz"
WET = SAMPLES / "whirlwind.warc.wet.gz"
WET_FILE = f"crawl-data/{CRAWL}/segments/1/wet/a.warc.wet.gz"
pytestmark = pytest.mark.skipif(not SAMPLE.is_file(), reason="the sample files are not here")


def files() -> dict[str, bytes]:
    paths = gzip.compress(f"{FILE}\ncrawl-data/{CRAWL}/other.warc.gz\n".encode())
    wet_paths = gzip.compress(f"{WET_FILE}\n".encode())
    return {
        f"crawl-data/{CRAWL}/warc.paths.gz": paths,
        FILE: SAMPLE.read_bytes(),
        f"crawl-data/{CRAWL}/wet.paths.gz": wet_paths,
        WET_FILE: WET.read_bytes(),
    }


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


def test_wet_files_give_the_text_that_common_crawl_extracted(tmp_path):
    with RangeServer(files()) as server:
        num_pages, output, _, faults = take(tmp_path, server, files=1, kind="wet")
    (page,) = [record for record in records_of(output) if record.type == "conversion"]
    assert (num_pages, faults) == (1, {})
    assert page.date == "2024-05-18T01:58:10Z"
    text = read_candidate(page, ExtractionConfig(max_page_bytes=1 << 20))
    assert text.drop is None
    assert text.source == "an.wikipedia.org"
    assert "Escopete" in text.text


def test_slow_down_without_a_time_is_answered_with_longer_and_longer_waits(tmp_path):
    with RangeServer(files(), captures()) as server:
        server.faults = ["slow"] * 4
        _, _, waits, faults = take(tmp_path, server, urls=["*"], limit=1)
    assert faults == {}
    backoff = [wait for wait in waits if wait][:4]
    assert all(2**n / 2 <= wait <= 2**n for n, wait in enumerate(backoff))


def test_files_are_held_against_the_md5_of_the_object_store(tmp_path):
    with RangeServer(files()) as server:
        server.is_s3 = True
        server.faults = ["wrong"]
        num_pages, _, _, faults = take(tmp_path / "once", server, paths=[FILE])
        assert (num_pages, faults) == (16, {})
        server.faults = ["wrong", "wrong"]
        num_pages, _, _, faults = take(tmp_path / "twice", server, paths=[FILE, WET_FILE])
    assert num_pages == 1
    assert faults[f"{server.url}/{FILE}"].startswith("not fetched: wrong checksum: md5 is")


@pytest.mark.parametrize("what", [{"paths": [FILE, WET_FILE]}, {"urls": ["*"], "limit": 6}])
def test_a_run_killed_anywhere_ends_with_the_same_bytes(tmp_path, what):
    with RangeServer(files(), captures()) as server:
        take(tmp_path / "whole", server, **what)
        folder, num_kills = tmp_path / "killed", 0
        for number in range(4, 200, 3):

            def work(number: int = number) -> None:
                kill_at_operation(folder, number)
                take(folder, server, **what)

            if not killed(work):
                break
            num_kills += 1
        take(folder, server, **what)
    assert num_kills >= 3
    assert files_of(folder / "output") == files_of(tmp_path / "whole" / "output")
