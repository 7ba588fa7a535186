"""Ranges of WARC files: together they give exactly the records of the whole file, wherever it is cut."""

import gzip
import zlib
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from bessemer.curate.ranges import ByteRange, RangeReader, cut, prove
from bessemer.formats.warc import WarcDamage, WarcRecord, read_warc
from bessemer.formats.warc_bytes import find_record_start

SAMPLES = Path(__file__).parents[3] / "shared" / "data" / "web"


def raw_record(number: int, body: bytes) -> bytes:
    head = (
        f"WARC/1.1\r\nWARC-Type: resource\r\nWARC-Target-URI: http://x/{number}\r\n"
        f"Content-Type: text/plain\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body + b"\r\n\r\n"


def member(content: bytes, level: int) -> bytes:
    deflater = zlib.compressobj(level, zlib.DEFLATED, wbits=31)
    return deflater.compress(content) + deflater.flush()


ARCHIVE = b"".join(member(raw_record(1000 + i, b"inside"), 6) for i in range(4))
"""A page that is an archive itself; stored without compression, its records look like records."""
BODIES = st.one_of(
    st.binary(max_size=200),
    st.just(ARCHIVE),
    st.just(b"text\r\n\r\n" + raw_record(2000, b"a plain one inside") * 3),
    st.just(b"\x1f\x8b\x08" * 50),
)


def items_of(whole: list) -> list[tuple]:
    """What must not depend on where reading began: all but the number of records before."""
    return [
        (item.offset, item.headers, item.block)
        if isinstance(item, WarcRecord)
        else (item.offset, item.lost_bytes, item.reason)
        for item in whole
    ]


def read_in_ranges(path: Path, max_range_bytes: int) -> tuple[list[tuple], int]:
    """All items by way of ranges, and how many ranges had to be read again."""
    ranges = cut({path.name: path}, max_range_bytes)
    items: dict[int, list] = {}
    num_again = 0

    def read(number: int, range_: ByteRange) -> RangeReader:
        reader = RangeReader(range_)
        items[number] = list(reader)
        assert reader.num_items == len(items[number])
        return reader

    def again(number: int, range_: ByteRange) -> RangeReader:
        nonlocal num_again
        num_again += 1
        return read(number, range_)

    prove(ranges, [read(number, range_) for number, range_ in enumerate(ranges)], again)
    return items_of([item for number in range(len(ranges)) for item in items[number]]), num_again


@settings(max_examples=120, deadline=None)
@given(
    bodies=st.lists(BODIES, min_size=1, max_size=12),
    records_per_member=st.sampled_from([1, 1, 1, 3, 100]),
    level=st.sampled_from([0, 6]),
    max_range_bytes=st.integers(20, 2000),
    flips=st.lists(st.integers(0, 1 << 20), max_size=2),
)
@example([ARCHIVE] * 6, 1, 0, 150, [])
def test_ranges_of_gzipped_files_give_the_items_of_the_whole_file(
    tmp_path_factory, bodies, records_per_member, level, max_range_bytes, flips
):
    records = [raw_record(number, body) for number, body in enumerate(bodies)]
    groups = [records[i : i + records_per_member] for i in range(0, len(records), records_per_member)]
    content = bytearray(b"".join(member(b"".join(group), level) for group in groups))
    for flip in flips:
        content[flip % len(content)] ^= 0x41
    path = tmp_path_factory.mktemp("warc") / "pages.warc.gz"
    path.write_bytes(content)
    expected = items_of(list(read_warc(path)))
    assert read_in_ranges(path, max_range_bytes)[0] == expected


@settings(max_examples=80, deadline=None)
@given(
    bodies=st.lists(BODIES, min_size=1, max_size=8),
    piece=st.integers(30, 400),
    max_range_bytes=st.integers(20, 1000),
)
def test_a_range_never_begins_in_a_member_that_begins_inside_a_record(
    tmp_path_factory, bodies, piece, max_range_bytes
):
    plain = b"".join(raw_record(number, body) for number, body in enumerate(bodies))
    pieces = [plain[i : i + piece] for i in range(0, len(plain), piece)]
    path = tmp_path_factory.mktemp("warc") / "split.warc.gz"
    path.write_bytes(b"".join(member(each, 6) for each in pieces))
    expected = items_of(list(read_warc(path)))
    assert len(expected) == len(bodies)
    assert read_in_ranges(path, max_range_bytes)[0] == expected


@settings(max_examples=80, deadline=None)
@given(
    bodies=st.lists(BODIES, min_size=1, max_size=12),
    max_range_bytes=st.integers(10, 2000),
    cut_off=st.integers(0, 300),
)
def test_ranges_of_plain_files_give_the_items_of_the_whole_file(
    tmp_path_factory, bodies, max_range_bytes, cut_off
):
    plain = b"".join(raw_record(number, body) for number, body in enumerate(bodies))
    path = tmp_path_factory.mktemp("warc") / "pages.warc"
    path.write_bytes(plain[: max(1, len(plain) - cut_off)])
    assert read_in_ranges(path, max_range_bytes)[0] == items_of(list(read_warc(path)))


def test_ordinary_files_are_read_once_and_forged_starts_cost_one_more_reading(tmp_path: Path):
    ordinary, forged = tmp_path / "ordinary.warc.gz", tmp_path / "forged.warc.gz"
    records = [raw_record(i, b"page %d " % i * 40) for i in range(200)]
    ordinary.write_bytes(b"".join(gzip.compress(record) for record in records))
    archives = [raw_record(i, ARCHIVE * 5) for i in range(50)]
    forged.write_bytes(b"".join(member(record, 0) for record in archives))
    _, num_again = read_in_ranges(ordinary, 1000)
    assert num_again == 0
    items, num_again = read_in_ranges(forged, 1000)
    assert num_again > 10
    assert len(items) == 50


def test_every_kind_of_sample_file_is_read_in_ranges_as_it_is_whole():
    if not SAMPLES.is_dir():
        pytest.skip("the sample files are not here")
    paths = [path for path in sorted(SAMPLES.rglob("*")) if ".warc" in path.name]
    assert len(paths) > 20
    for path in paths:
        expected = items_of(list(read_warc(path)))
        for max_range_bytes in (1000, 30_000):
            assert read_in_ranges(path, max_range_bytes)[0] == expected, path


def test_ranges_cover_each_file_once_in_equal_parts(tmp_path: Path):
    (tmp_path / "a").write_bytes(b"x" * 1001)
    (tmp_path / "b").write_bytes(b"")
    ranges = cut({"one/a": tmp_path / "a", "b": tmp_path / "b"}, 250)
    assert [(each.start, each.end) for each in ranges] == [
        (0, 200), (200, 400), (400, 600), (600, 800), (800, 1001),
    ]  # fmt: skip
    assert {each.name for each in ranges} == {"one/a"}
    assert str(ranges[1]) == "one/a:200-400"


def test_items_carry_the_name_that_the_ledger_uses(tmp_path: Path):
    path = tmp_path / "pages.warc"
    path.write_bytes(raw_record(1, b"whole") + raw_record(2, b"cut off")[:-9])
    reader = RangeReader(ByteRange("collect/pages.warc", path, 0, path.stat().st_size))
    kinds = [(type(item), item.file) for item in reader]
    assert kinds == [(WarcRecord, "collect/pages.warc"), (WarcDamage, "collect/pages.warc")]


def test_a_record_start_is_found_across_chunks_and_only_inside_the_bounds(tmp_path: Path):
    path = tmp_path / "pages.warc.gz"
    filler = member(b"no record " * 10, 0)
    before = filler * (66_000 // len(filler))
    path.write_bytes(before + gzip.compress(raw_record(1, b"x")))
    place = len(before)
    for start in (0, place - 1, place):
        assert find_record_start(path, start, place + 1) == place
    assert find_record_start(path, 0, place) is None
    assert find_record_start(path, place + 1, place + 1000) is None


def test_a_proven_empty_range_reads_nothing(tmp_path: Path):
    path = tmp_path / "pages.warc"
    path.write_bytes(raw_record(1, b"x") * 3)
    range_ = ByteRange("pages.warc", path, 10, path.stat().st_size)
    assert len(list(RangeReader(range_))) == 2
    assert list(RangeReader(replace(range_, is_proven=True, first=None))) == []
