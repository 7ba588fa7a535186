"""HTTP bodies: encodings undone within a bound, damage reported, half-decoded archives tolerated."""

import gzip
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bessemer.formats.http_message import decode_body, join_chunks, parse_http_response

LIMIT = 1 << 20


def chunked(body: bytes, size: int) -> bytes:
    pieces = [body[start : start + size] for start in range(0, len(body), size)]
    return b"".join(b"%x;ext=1\r\n%s\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"


@given(body=st.binary(max_size=500), size=st.integers(1, 100))
def test_chunks_are_joined(body, size):
    assert join_chunks(chunked(body, size)) == (body, None)


@given(body=st.binary(min_size=1, max_size=500))
@pytest.mark.parametrize("encoding", ["gzip", "deflate", "bare deflate", "gzip in chunks"])
def test_encodings_are_undone(encoding, body):
    headers = {
        "gzip": (("Content-Encoding", "gzip"),),
        "deflate": (("content-encoding", "deflate"),),
        "bare deflate": (("Content-Encoding", "Deflate"),),
        "gzip in chunks": (("Transfer-Encoding", "chunked"), ("Content-Encoding", "gzip")),
    }[encoding]
    encoded = {
        "gzip": gzip.compress(body),
        "deflate": zlib.compress(body),
        "bare deflate": zlib.compress(body, wbits=-15),
        "gzip in chunks": chunked(gzip.compress(body), 7),
    }[encoding]
    decoded = decode_body(headers, encoded, LIMIT)
    assert (decoded.content, decoded.fault) == (body, None)


def test_a_bomb_is_cut_at_the_bound_and_reported():
    decoded = decode_body((("Content-Encoding", "gzip"),), gzip.compress(bytes(50_000_000)), 1000)
    assert len(decoded.content) == 1000
    assert not decoded.is_complete


def test_what_precedes_the_damage_of_a_compressed_body_is_kept():
    body = bytes(range(256)) * 2000
    decoded = decode_body((("Content-Encoding", "gzip"),), gzip.compress(body, 0)[:300_000], LIMIT)
    assert not decoded.is_complete
    assert len(decoded.content) > 200_000
    assert body.startswith(decoded.content)


def test_a_body_that_the_archive_decoded_already_is_taken_as_it_is():
    headers = (("Transfer-Encoding", "chunked"), ("Content-Encoding", "gzip"))
    decoded = decode_body(headers, b"<html>plain</html>", LIMIT)
    assert (decoded.content, decoded.fault) == (b"<html>plain</html>", None)


@pytest.mark.parametrize("line_end", [b"\r\n", b"\n"])
def test_head_and_body_are_split_at_the_blank_line(line_end):
    lines = [b"HTTP/1.1 200 OK", b"A: 1", b"B: two", b" words", b"A: 3", b"", b"body\r\n\r\nmore"]
    response = parse_http_response(line_end.join(lines))
    assert response is not None
    assert response.headers == (("A", "1"), ("B", "two words"), ("A", "3"))
    assert response.body == b"body\r\n\r\nmore"


def test_a_response_without_headers_has_a_body():
    response = parse_http_response(b"HTTP/1.1 204 No Content\r\n\r\nrest")
    assert response is not None
    assert (response.headers, response.body) == ((), b"rest")


def test_what_is_not_http_is_not_parsed():
    assert parse_http_response(b"GET / HTTP/1.1\r\n\r\n") is None
    assert parse_http_response(b"") is None
