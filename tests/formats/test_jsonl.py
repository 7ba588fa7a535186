import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bessemer.errors import BessemerError
from bessemer.formats.jsonl import read_jsonl, write_jsonl

SCALARS = st.none() | st.booleans() | st.integers() | st.text() | st.floats(allow_nan=False)
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3)
)
ROWS = st.lists(st.dictionaries(st.text(), VALUES, max_size=4), max_size=5)


@given(ROWS)
@settings(max_examples=50, deadline=None)  # every example syncs its file
def test_rows_come_back_as_they_were_written(tmp_path_factory, rows):
    path = tmp_path_factory.getbasetemp() / "rows.jsonl"
    write_jsonl(path, rows)
    assert list(read_jsonl(path)) == rows


@given(ROWS)
@settings(max_examples=50, deadline=None)  # every example syncs its file
def test_every_line_is_one_row_whatever_line_ends_the_text_holds(tmp_path_factory, rows):
    path = tmp_path_factory.getbasetemp() / "lines.jsonl"
    write_jsonl(path, rows)
    lines = path.read_bytes().split(b"\n")
    assert lines.pop() == b""
    assert [json.loads(line) for line in lines] == rows


def test_unicode_line_separators_inside_a_text_do_not_end_the_row(tmp_path):
    rows = [{"text": "one\u2028two\u2029three\x85four\r\nfive"}]
    write_jsonl(tmp_path / "rows.jsonl", rows)
    assert list(read_jsonl(tmp_path / "rows.jsonl")) == rows


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b'{"a": 1', r"bad\.jsonl:3: not JSON"),
        (b"", r"bad\.jsonl:3: not JSON"),
        (b"\xff\xfe", r"bad\.jsonl:3: not JSON"),
        (b"[1, 2]", r"bad\.jsonl:3: expected an object, got list"),
        (b'{"b": 1}', r"bad\.jsonl:3: lacks a, c"),
    ],
)
def test_a_bad_line_is_named_by_file_and_number(tmp_path, line, message):
    path = tmp_path / "bad.jsonl"
    path.write_bytes(b'{"a": 1, "c": 2}\n' * 2 + line + b"\n")
    with pytest.raises(BessemerError, match=message):
        list(read_jsonl(path, required=("a", "c")))


def test_good_lines_before_a_bad_one_are_given_out_first(tmp_path):
    path = tmp_path / "bad.jsonl"
    path.write_text('{"a": 1}\n{"a": 2}\noops\n')
    rows = read_jsonl(path)
    assert [next(rows), next(rows)] == [{"a": 1}, {"a": 2}]
    with pytest.raises(BessemerError):
        next(rows)


def test_a_missing_file_is_said_to_be_missing(tmp_path):
    with pytest.raises(BessemerError, match=r"none\.jsonl is missing"):
        list(read_jsonl(tmp_path / "none.jsonl"))


def test_a_file_cut_short_is_never_seen(tmp_path):
    path = tmp_path / "rows.jsonl"
    write_jsonl(path, [{"a": 1}])

    def breaking():
        yield {"a": 2}
        raise RuntimeError("killed")

    with pytest.raises(RuntimeError):
        write_jsonl(path, breaking())
    assert list(read_jsonl(path)) == [{"a": 1}]
