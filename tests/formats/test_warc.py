"""WARC reading and writing: round trips, damage at any byte, real files, fastwarc as the oracle."""

import gzip
import io
from pathlib import Path

import pytest
from fastwarc.warc import ArchiveIterator
from hypothesis import given, settings
from hypothesis import strategies as st

from bessemer.formats.warc import WarcDamage, WarcRecord, read_warc
from bessemer.formats.warc_writer import WarcHead, WarcPosition, WarcWriter, sha1_digest

DATE = "2024-05-06T07:08:09Z"
HEAD = WarcHead(DATE, {"software": "test/1"})
SAMPLES = Path(__file__).parents[3] / "shared" / "data" / "web"
needs_samples = pytest.mark.skipif(not SAMPLES.is_dir(), reason="the sample files are not here")


def split(path: Path, **options) -> tuple[list[WarcRecord], list[WarcDamage]]:
    items = list(read_warc(path, **options))
    return (
        [item for item in items if isinstance(item, WarcRecord)],
        [item for item in items if isinstance(item, WarcDamage)],
    )


def write_resources(folder: Path, bodies: list[bytes], max_file_bytes: int = 1 << 20) -> None:
    with WarcWriter(folder, HEAD, max_file_bytes) as writer:
        for number, body in enumerate(bodies):
            writer.write_resource(f"file:{number}", DATE, "text/plain", body)


def raw_record(number: int, body: bytes) -> bytes:
    head = (
        f"WARC/1.1\r\nWARC-Type: resource\r\nWARC-Target-URI: http://x/{number}\r\n"
        f"WARC-Date: {DATE}\r\nContent-Type: text/plain\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body + b"\r\n\r\n"


@settings(max_examples=40, deadline=None)
@given(bodies=st.lists(st.binary(max_size=300), min_size=1, max_size=5))
def test_what_is_written_is_read_back_and_fastwarc_agrees(tmp_path_factory, bodies):
    folder = tmp_path_factory.mktemp("warc")
    write_resources(folder, bodies)
    path = folder / "pages-00000.warc.gz"
    records, damage = split(path)
    assert damage == []
    assert [record.type for record in records] == ["warcinfo"] + ["resource"] * len(bodies)
    assert [record.block for record in records[1:]] == bodies
    assert [record.uri for record in records[1:]] == [f"file:{number}" for number in range(len(bodies))]
    seen = []
    with path.open("rb") as file:
        for record in ArchiveIterator(file, parse_http=False):
            assert record.verify_block_digest()
            seen.append((record.stream_pos, record.record_id.strip("<>"), record.reader.read()))
    assert seen == [(record.offset, record.record_id, record.block) for record in records]


@settings(max_examples=60, deadline=None)
@given(
    status=st.integers(100, 599),
    value=st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=40),
    body=st.binary(max_size=200),
)
def test_an_exchange_is_read_back_as_status_headers_and_body(tmp_path_factory, status, value, body):
    folder = tmp_path_factory.mktemp("warc")
    response = f"HTTP/1.1 {status} Fine\r\nX-Value: {value}\r\n\r\n".encode() + body
    with WarcWriter(folder, HEAD, 1 << 20) as writer:
        writer.write_exchange("http://a/", DATE, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", response, body)
    _, page, request = split(folder / "pages-00000.warc.gz")[0]
    assert (page.type, page.status, page.date) == ("response", status, DATE)
    assert page.http is not None
    assert page.http.header("x-value") == value
    assert page.payload().content == body
    assert page.header("WARC-Payload-Digest") == sha1_digest(body)
    assert (request.type, request.header("WARC-Concurrent-To")) == ("request", f"<{page.record_id}>")


def test_digest_is_sha1_in_base_32():
    # FIPS 180's SHA-1 of the empty message, in base 32 (RFC 4648) computed by hand from its hex digits.
    assert sha1_digest(b"") == "sha1:3I42H3S6NNFQ2MSVX7XZKYAYSCX5QBYJ"


def test_a_record_cut_at_any_byte_is_reported_and_the_ones_before_it_are_kept(tmp_path):
    plain = [raw_record(number, b"words " * (number + 3)) for number in range(3)]
    for pieces in (plain, [gzip.compress(record, mtime=0) for record in plain]):
        kept_bytes = len(pieces[0] + pieces[1])
        for cut in range(1, len(pieces[2])):
            path = tmp_path / "cut.warc"
            path.write_bytes(pieces[0] + pieces[1] + pieces[2][:cut])
            records, damage = split(path)
            is_whole = pieces is plain and cut >= len(pieces[2]) - 4  # only the closing blank lines are gone
            assert len(records) == 2 + is_whole
            expected = [] if is_whole else [(kept_bytes, cut)]
            assert [(loss.offset, loss.lost_bytes) for loss in damage] == expected


def test_reading_goes_on_after_a_damaged_gzip_member(tmp_path):
    members = [gzip.compress(raw_record(number, b"text %d " % number * 40), mtime=0) for number in range(4)]
    for position in range(10, len(members[1])):
        damaged = bytearray(members[1])
        damaged[position] ^= 0x55
        path = tmp_path / "damaged.warc.gz"
        path.write_bytes(members[0] + damaged + members[2] + members[3])
        records, damage = split(path)
        assert [record.uri for record in records] == ["http://x/0", "http://x/2", "http://x/3"]
        assert [(loss.offset, loss.lost_bytes) for loss in damage] == [(len(members[0]), len(members[1]))]


def test_reading_goes_on_after_junk_between_records(tmp_path):
    first, second = raw_record(0, b"one"), raw_record(1, b"two")
    for name, pieces in {
        "junk.warc": [first, b"junk, and more junk\r\n", second],
        "junk.warc.gz": [gzip.compress(first), b"junk, not gzip", gzip.compress(second)],
    }.items():
        (tmp_path / name).write_bytes(b"".join(pieces))
        records, damage = split(tmp_path / name)
        assert [record.block for record in records] == [b"one", b"two"]
        assert [loss.offset for loss in damage] == [len(pieces[0])]


def test_reading_starts_at_any_record(tmp_path):
    write_resources(tmp_path, [b"a", b"b" * 99999, b"c"])
    path = tmp_path / "pages-00000.warc.gz"
    records, _ = split(path)
    for number, record in enumerate(records):
        later, damage = split(path, start=record.offset)
        assert [item.block for item in later] == [item.block for item in records[number:]]
        assert damage == []


def test_a_block_above_the_limit_is_skipped_and_reported(tmp_path):
    write_resources(tmp_path, [b"small", b"x" * 5_000_000, b"after"])
    records, damage = split(tmp_path / "pages-00000.warc.gz", max_block_bytes=1000)
    assert [record.block for record in records[1:]] == [b"small", b"after"]
    assert len(damage) == 1
    assert "5000000 bytes" in damage[0].reason


def test_a_record_without_a_length_is_reported(tmp_path):
    (tmp_path / "a.warc").write_bytes(
        b"WARC/1.0\r\nWARC-Type: resource\r\nContent-Length: many\r\n\r\nbody\r\n\r\n"
        + raw_record(1, b"next")
    )
    records, damage = split(tmp_path / "a.warc")
    assert [record.block for record in records] == [b"next"]
    assert "'many'" in damage[0].reason


def test_an_empty_file_has_no_records_and_no_damage(tmp_path):
    (tmp_path / "empty.warc").touch()
    assert list(read_warc(tmp_path / "empty.warc")) == []


def test_files_roll_at_the_size_limit_and_each_begins_with_a_warcinfo(tmp_path):
    bodies = [bytes([65 + number]) * 10 for number in range(12)]
    write_resources(tmp_path, bodies, max_file_bytes=1000)
    paths = sorted(tmp_path.glob("pages-*.warc.gz"))
    files = [split(path)[0] for path in paths]
    assert len(paths) > 2
    assert all(records[0].type == "warcinfo" for records in files)
    assert [record.block for records in files for record in records if record.type == "resource"] == bodies


def test_a_writer_reopened_at_a_position_continues_to_the_same_bytes(tmp_path):
    bodies = [b"body %d" % number * 20 for number in range(30)]
    write_resources(tmp_path / "whole", bodies, max_file_bytes=1500)
    for stop in (0, 1, 7, 15, 29):
        folder = tmp_path / f"stopped-{stop}"
        position = WarcPosition()
        with WarcWriter(folder, HEAD, 1500) as writer:
            for number, body in enumerate(bodies):
                if number == stop:
                    position = writer.sync()
                writer.write_resource(f"file:{number}", DATE, "text/plain", body)
        with WarcWriter(folder, HEAD, 1500, position) as writer:
            for number in range(stop, len(bodies)):
                writer.write_resource(f"file:{number}", DATE, "text/plain", bodies[number])
        whole = {path.name: path.read_bytes() for path in (tmp_path / "whole").iterdir()}
        assert {path.name: path.read_bytes() for path in folder.iterdir()} == whole


def test_a_line_break_in_a_uri_cannot_forge_a_header(tmp_path):
    with WarcWriter(tmp_path, HEAD, 1 << 20) as writer:
        writer.write_resource("http://a/\r\nWARC-Type: response x", DATE, "text/plain", b"body")
    record = split(tmp_path / "pages-00000.warc.gz")[0][1]
    assert (record.type, record.uri) == ("resource", "http://a/%0D%0AWARC-Type:%20response%20x")


def test_a_writer_that_wrote_nothing_leaves_no_file(tmp_path):
    with WarcWriter(tmp_path, HEAD, 1 << 20):
        pass
    assert list(tmp_path.iterdir()) == []


@needs_samples
@pytest.mark.parametrize(
    "name",
    [
        "resiliparse-commoncrawl-2020-34.warc.gz",
        "dolma-sample-0001.warc.gz",
        "whirlwind.warc",
        "whirlwind.warc.wet.gz",
        "warcio/example.warc.gz",
        "warcio/example-wrong-chunks.warc.gz",
        "warcio/example-bad-non-chunked.warc.gz",
        "iipc/hello-world.warc",
    ],
)
def test_real_files_are_read_as_fastwarc_reads_them(name):
    records, damage = split(SAMPLES / name)
    assert damage == []
    with io.BytesIO((SAMPLES / name).read_bytes()) as file:
        expected = [
            (record.record_id.strip("<>"), record.reader.read())
            for record in ArchiveIterator(file, parse_http=False)
        ]
    assert [(record.record_id, record.block) for record in records] == expected


@needs_samples
def test_decoded_bodies_of_real_pages_are_those_that_fastwarc_decodes():
    path = SAMPLES / "dolma-sample-0001.warc.gz"
    ours = [record.payload().content for record in split(path)[0] if record.type == "response"]
    with path.open("rb") as file:
        theirs = [
            record.reader.read()
            for record in ArchiveIterator(file, auto_decode="all")
            if record.headers["WARC-Type"] == "response"
        ]
    assert ours == theirs


@needs_samples
def test_traps_in_real_files_are_survived_and_counted():
    records, damage = split(SAMPLES / "warcio/example-trunc.warc")
    assert (len(records), len(damage)) == (4, 1)
    records, damage = split(SAMPLES / "warcio/example.arc.gz")
    assert (records, len(damage)) == ([], 1)
    records, _ = split(SAMPLES / "warcio/example-wget-bad-target-uri.warc.gz")
    assert all(not record.uri.startswith("<") for record in records)


def plain_record(number: int, length: int | None = None) -> bytes:
    body = f"body {number}".encode()
    head = f"WARC/1.0\r\nWARC-Type: resource\r\nWARC-Target-URI: u:{number}\r\n"
    head += f"Content-Length: {len(body) if length is None else length}\r\n\r\n"
    return head.encode() + body + b"\r\n\r\n"


@pytest.mark.parametrize("length", [40, 150, 10_000, 10**12])
@pytest.mark.parametrize("is_gzip", [False, True])
def test_a_record_with_too_great_a_length_gives_back_what_it_swallowed(tmp_path, length, is_gzip):
    members = [plain_record(0), plain_record(1, length), plain_record(2), plain_record(3)]
    path = tmp_path / "a.warc"
    path.write_bytes(b"".join(gzip.compress(member) if is_gzip else member for member in members))
    records, damage = split(path)
    assert [record.uri for record in records] == ["u:0", "u:2", "u:3"]
    assert len(damage) == 1


def test_a_gzipped_file_whose_first_byte_is_lost_costs_one_record(tmp_path):
    members = b"".join(gzip.compress(plain_record(number)) for number in range(3))
    path = tmp_path / "a.warc.gz"
    path.write_bytes(b"\0" + members[1:])
    records, damage = split(path)
    assert [record.uri for record in records] == ["u:1", "u:2"]
    assert len(damage) == 1


def test_headers_that_run_into_the_next_record_cost_one_record(tmp_path):
    path = tmp_path / "a.warc"
    path.write_bytes(b"WARC/1.0\r\nWARC-Type: resource\r\nlost " + plain_record(1) + plain_record(2))
    records, damage = split(path)
    assert [record.uri for record in records] == ["u:1", "u:2"]
    assert len(damage) == 1
