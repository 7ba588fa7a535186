"""Crawling again: only what changed is fetched and stored, and every page can still be read."""

import gzip
import json

import pytest
from collect_helpers import (
    HOST,
    Answer,
    Site,
    crawl_config,
    files_of,
    html_page,
    records_of,
    stage_context,
)
from fastwarc.warc import ArchiveIterator

from bessemer.collect import collect
from bessemer.errors import ConfigError

PREFIX = f"http://{HOST}"
IDENTICAL = "http://netpreserve.org/warc/1.1/revisit/identical-payload-digest"
NOT_MODIFIED = "http://netpreserve.org/warc/1.1/revisit/server-not-modified"


def tagged(*links: str, text: str, **headers: str) -> Answer:
    page = html_page(*links, text=text)
    page.headers = headers
    return page


def answers() -> dict[str, Answer]:
    return {
        "/": tagged("/dated", "/plain", "/changes", text="start", ETag='"start-1"'),
        "/dated": tagged("/deep", text="dated", **{"Last-Modified": "Mon, 06 May 2024 07:08:09 GMT"}),
        "/plain": html_page(text="plain"),
        "/changes": tagged(text="before", ETag='W/"1"'),
        "/deep": tagged(text="deep", ETag='"deep"'),
    }


def crawl(folder, site, monkeypatch, epoch_s: int, **settings):
    monkeypatch.setenv("SOURCE_DATE_EPOCH", str(epoch_s))
    context = stage_context(folder)
    metrics = collect(crawl_config(site.address, "/", **settings), context)
    return metrics, records_of(context.output)


@pytest.fixture
def first(tmp_path, monkeypatch):
    with Site(answers()) as site:
        crawl(tmp_path / "first", site, monkeypatch, 1_700_000_000)
    return tmp_path / "first" / "output"


def test_unchanged_pages_become_revisits_and_links_are_still_followed(tmp_path, monkeypatch, first):
    with Site(answers()) as site:
        site.answers["/changes"] = tagged(text="after", ETag='W/"2"')
        _, records = crawl(tmp_path / "again", site, monkeypatch, 1_800_000_000, previous=str(first))
        assert site.conditional == {"/": 1, "/dated": 1, "/changes": 1, "/deep": 1}
    told = [(record.type, record.uri.removeprefix(PREFIX), record.date[:4]) for record in records]
    assert [each for each in told if each[0] in ("response", "revisit")] == [
        ("response", "/", "2023"),
        ("revisit", "/", "2027"),
        ("response", "/dated", "2023"),
        ("revisit", "/dated", "2027"),
        ("response", "/plain", "2023"),
        ("revisit", "/plain", "2027"),
        ("response", "/changes", "2027"),
        ("response", "/deep", "2023"),
        ("revisit", "/deep", "2027"),
    ]


def test_revisits_say_what_they_refer_to(tmp_path, monkeypatch, first):
    earlier = {record.uri: record for record in records_of(first) if record.type == "response"}
    with Site(answers()) as site:
        _, records = crawl(tmp_path / "again", site, monkeypatch, 1_800_000_000, previous=str(first))
    revisits = {record.uri.removeprefix(PREFIX): record for record in records if record.type == "revisit"}
    for path, profile in (("/", NOT_MODIFIED), ("/dated", NOT_MODIFIED), ("/plain", IDENTICAL)):
        revisit, original = revisits[path], earlier[PREFIX + path]
        assert revisit.header("WARC-Profile") == profile
        assert revisit.header("WARC-Refers-To") == f"<{original.record_id}>"
        assert revisit.header("WARC-Refers-To-Target-URI") == original.uri
        assert revisit.header("WARC-Refers-To-Date") == original.date == "2023-11-14T22:13:20Z"
    same = revisits["/plain"]
    assert same.header("WARC-Truncated") == "length"
    assert same.header("WARC-Payload-Digest") == earlier[f"{PREFIX}/plain"].header("WARC-Payload-Digest")
    assert (same.status, same.payload().content) == (200, b"")
    assert revisits["/"].status == 304
    assert revisits["/"].header("WARC-Payload-Digest") == ""
    copies = {record.uri: record for record in records if record.type == "response"}
    assert copies[f"{PREFIX}/"].block == earlier[f"{PREFIX}/"].block
    assert copies[f"{PREFIX}/"].headers == earlier[f"{PREFIX}/"].headers


def test_earlier_captures_can_be_left_where_they_are(tmp_path, monkeypatch, first):
    with Site(answers()) as site:
        metrics, records = crawl(
            tmp_path / "again", site, monkeypatch, 1_800_000_000, previous=str(first), unchanged="refer"
        )
    assert metrics["pages"] == 5
    assert {record.type for record in records} == {"warcinfo", "revisit", "request"}


def test_a_third_crawl_goes_by_the_second(tmp_path, monkeypatch, first):
    with Site(answers()) as site:
        crawl(tmp_path / "second", site, monkeypatch, 1_800_000_000, previous=str(first))
        site.conditional.clear()
        second = str(tmp_path / "second" / "output")
        _, records = crawl(tmp_path / "third", site, monkeypatch, 1_900_000_000, previous=second)
        assert site.conditional.total() == 4
        # Copies of copies: each page's body is still there, once.
        assert sum(record.type == "response" for record in records) == 5
        crawl(tmp_path / "x", site, monkeypatch, 1_850_000_000, previous=str(first), unchanged="refer")
        site.conditional.clear()
        folders = [str(first), str(tmp_path / "x" / "output")]
        crawl(tmp_path / "both", site, monkeypatch, 1_900_000_000, previous=folders)
        assert site.conditional.total() == 4
        site.conditional.clear()
        crawl(tmp_path / "alone", site, monkeypatch, 1_900_000_000, previous=folders[1])
        assert site.conditional.total() == 0, "bodies that are out of reach are fetched anew"


def test_pages_of_the_same_bytes_are_stored_once(tmp_path, monkeypatch):
    pages = {"/": html_page("/a", "/b"), "/a": html_page(text="same"), "/b": html_page(text="same")}
    with Site(pages) as site:
        metrics, records = crawl(tmp_path, site, monkeypatch, 1_700_000_000)
    assert metrics["pages"] == 3
    (revisit,) = [record for record in records if record.type == "revisit"]
    assert revisit.uri == f"{PREFIX}/b"
    assert revisit.header("WARC-Refers-To-Target-URI") == f"{PREFIX}/a"
    assert revisit.header("WARC-Profile") == IDENTICAL
    assert revisit.header("WARC-IP-Address") == "127.0.0.1"


def test_a_reservation_made_since_is_respected(tmp_path, monkeypatch, first):
    with Site(answers()) as site:
        site.answers["/"].headers = {"ETag": '"start-1"', "X-Robots-Tag": "noai"}
        site.answers["/dated"] = html_page()
        with pytest.raises(ValueError, match="reserved: x-robots-tag: noai"):
            crawl(tmp_path / "again", site, monkeypatch, 1_800_000_000, previous=str(first))


def test_an_archive_with_odd_validators_is_no_way_into_a_request(tmp_path, monkeypatch, first):
    path = next(first.glob("*.warc.gz"))
    plain = gzip.decompress(path.read_bytes())
    bad = plain.replace(b'ETag: "start-1"', b'ETag: "st\xc3\xa9t1"')
    path.write_bytes(b"".join(gzip.compress(b"WARC/1." + part) for part in bad.split(b"WARC/1.")[1:]))
    with Site(answers()) as site:
        crawl(tmp_path / "again", site, monkeypatch, 1_800_000_000, previous=str(first))
        assert site.conditional["/"] == 0
        assert site.conditional["/deep"] == 1


def test_a_previous_folder_without_archives_is_a_config_error(tmp_path, monkeypatch):
    with Site(answers()) as site, pytest.raises(ConfigError, match="holds no WARC files"):
        crawl(tmp_path / "a", site, monkeypatch, 1, previous=str(tmp_path / "nothing"))


def test_a_304_that_was_not_asked_for_is_no_page(tmp_path, monkeypatch):
    with Site({"/": html_page("/x"), "/x": Answer(status=304, content_type=None)}) as site:
        crawl(tmp_path, site, monkeypatch, 1_700_000_000)
    assert json.loads((tmp_path / "output" / "crawl.jsonl").read_text())["reason"] == "HTTP 304"


def test_other_readers_read_the_archive_and_its_digests_hold(tmp_path, monkeypatch, first):
    with Site(answers()) as site:
        crawl(tmp_path / "again", site, monkeypatch, 1_800_000_000, previous=str(first))
    (path,) = (tmp_path / "again" / "output").glob("*.warc.gz")
    with path.open("rb") as file:
        records = list(ArchiveIterator(file, parse_http=True, verify_digests=False))
    assert len(records) == len(records_of(path.parent))
    archiveiterator = pytest.importorskip("warcio.archiveiterator")
    with path.open("rb") as file:
        for record in archiveiterator.ArchiveIterator(file, check_digests="raise"):
            record.content_stream().read()
            assert record.digest_checker.passed is not False


def test_crawling_again_is_deterministic_for_any_concurrency(tmp_path, monkeypatch, first):
    outputs = []
    for concurrency in (1, 6):
        with Site(answers()) as site:
            folder = tmp_path / str(concurrency)
            crawl(
                folder,
                site,
                monkeypatch,
                1_800_000_000,
                previous=str(first),
                max_concurrency=concurrency,
                max_concurrency_per_host=concurrency,
            )
            outputs.append(files_of(folder / "output"))
    assert outputs[0] == outputs[1]
