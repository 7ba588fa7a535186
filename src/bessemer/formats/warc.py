"""Reading WARC files (ISO 28500:2017, WARC/1.1; also 1.0), whatever state they are in.

`read_warc` yields every record that is whole, and a `WarcDamage` in place of each stretch that is
not, so that nothing is lost without being counted. WET files are WARC files too, with `conversion`
records. The writer is in `warc_writer`.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from bessemer.formats.http_message import (
    DecodedBody,
    Headers,
    HttpResponse,
    decode_body,
    header_value,
    parse_headers,
    parse_http_response,
)
from bessemer.formats.warc_bytes import PlainStream, open_stream

WARC_SUFFIXES = (".warc", ".warc.gz", ".wet", ".wet.gz")
MAX_BLOCK_BYTES = 64 << 20
"""Blocks above this are skipped and reported; Common Crawl truncates pages at 1 MiB."""
MAX_DECODED_BYTES = 64 << 20
"""Bound of a decoded body, against decompression bombs."""
_MAX_HEADER_BYTES = 1 << 16
_VERSION_LINE = re.compile(rb"WARC/\d+\.\d+[ \t]*\r?\n")
_HEADER_END = re.compile(rb"\r?\n\r?\n")
_RECORD = b"WARC/"
_NEXT_RECORD = b"WARC/1."
_ANOTHER_RECORD = re.compile(rb"WARC/1\.\d[ \t]*\r?\n(?:WARC-|Content-)")


@dataclass(frozen=True)
class WarcRecord:
    """One record. Attributes that the file did not give are empty strings."""

    file: str
    """Name of the file, without folders."""
    offset: int
    """File offset at which the record, or the gzip member that holds its start, begins."""
    index: int
    """Number of whole records before this one since the offset where reading began."""
    headers: Headers
    block: bytes
    can_start_here: bool = True
    """Whether `read_warc` can start at `offset`: not where the record begins inside a gzip member."""

    @property
    def type(self) -> str:
        """`response`, `resource`, `conversion`, `request`, `metadata`, `revisit`, `warcinfo`, …"""
        return self.header("WARC-Type").lower()

    @property
    def record_id(self) -> str:
        """WARC-Record-ID without its angle brackets."""
        return self.header("WARC-Record-ID").strip("<>")

    @property
    def uri(self) -> str:
        """WARC-Target-URI, without the angle brackets that some writers add."""
        return self.header("WARC-Target-URI").strip("<>")

    @property
    def date(self) -> str:
        """WARC-Date as written: ISO 8601, UTC."""
        return self.header("WARC-Date")

    @cached_property
    def http(self) -> HttpResponse | None:
        """The HTTP response of a `response` or `revisit` record, None for all else."""
        if self.type not in ("response", "revisit"):
            return None
        return parse_http_response(self.block)

    @property
    def status(self) -> int | None:
        """HTTP status, None where there is no HTTP response."""
        return self.http.status if self.http else None

    @property
    def content_type(self) -> str:
        """Content-Type of the payload, parameters included: the HTTP header's for responses."""
        if self.http is not None:
            return self.http.header("Content-Type") or ""
        return self.header("Content-Type")

    @property
    def description(self) -> dict[str, Any]:
        """What the collector knew about the page besides its bytes: the JSON object of WARC-JSON-Metadata.

        A field beyond the standard (WARC 1.1, section 5, allows them) that other tools write too. Empty
        when it is absent or holds anything else.
        """
        try:
            value = json.loads(self.header("WARC-JSON-Metadata") or "{}")
        except (ValueError, RecursionError):
            return {}
        return value if isinstance(value, dict) else {}

    def header(self, name: str) -> str:
        """A WARC header, its name in any case; empty when absent."""
        return header_value(self.headers, name) or ""

    def payload(self, max_bytes: int = MAX_DECODED_BYTES) -> DecodedBody:
        """What the record is about: the decoded body of a response, else the block."""
        if self.http is not None:
            return decode_body(self.http.headers, self.http.body, max_bytes)
        return decode_body((), self.block, max_bytes)


@dataclass(frozen=True)
class WarcDamage:
    """A stretch of a file that holds no whole record."""

    file: str
    offset: int
    """File offset where it begins (of the gzip member, in gzipped files)."""
    lost_bytes: int
    """File bytes up to the next readable record or the end; 0 where a gzip member goes on after it."""
    reason: str


class _Unreadable(Exception):
    """Raised inside this module when the stream does not go on with a whole record."""

    def __init__(self, reason: str, is_at_record: bool = False) -> None:
        super().__init__(reason)
        self.is_at_record = is_at_record
        """Whether the stream is at the start of the next record already."""


def is_warc_name(path: Path) -> bool:
    """Whether a file name says WARC or WET."""
    return path.name.lower().endswith(WARC_SUFFIXES)


def read_warc(
    path: Path, start: int = 0, max_block_bytes: int = MAX_BLOCK_BYTES
) -> Iterator[WarcRecord | WarcDamage]:
    """Every record of a .warc or .warc.gz file in order, with damage reported where it lies.

    A record is yielded only when all of its block is there and the gzip member that it ends in is
    not damaged. `start` must be 0 or the `offset` of a record that `can_start_here`. Raises OSError
    when the file cannot be read.
    """
    with path.open("rb") as file:
        stream = open_stream(file, start)
        size_bytes = path.stat().st_size
        index = 0
        while True:
            offset = stream.offset
            reason, is_found = None, False
            try:
                stream.skip_line_ends()
                if stream.peek(1):
                    offset = stream.offset
                    record = _read_record(stream, path.name, index, max_block_bytes)
                    index += 1
                    yield record
                    continue
            except _Unreadable as unreadable:
                reason, is_found = str(unreadable), unreadable.is_at_record
            if reason is None and stream.fault is None:
                return
            is_found = is_found or _find_next_record(stream)
            if not is_found and stream.fault is not None:
                offset, reason = min(offset, stream.fault.offset), stream.fault.reason
                is_found = stream.recover()
            end = stream.offset if is_found else size_bytes
            yield WarcDamage(path.name, offset, end - offset, reason or "no record starts here")
            if not is_found:
                return


def _read_record(stream: PlainStream, file: str, index: int, max_block_bytes: int) -> WarcRecord:
    offset, can_start_here = stream.offset, stream.can_start_here
    headers = _read_headers(stream)
    mark = stream.mark(offset)
    length = header_value(headers, "Content-Length") or ""
    if not length.isascii() or not length.isdigit():
        raise _Unreadable(f"Content-Length is {length!r}, not a number")
    num_bytes = int(length)
    if num_bytes > max_block_bytes:
        is_cut = stream.skip(num_bytes) < num_bytes
        cut = ", and the file ends before it does" if is_cut else ""
        reason = f"block of {num_bytes} bytes, more than {max_block_bytes} are not read{cut}"
        is_followed = not is_cut and _is_at_end(stream)
        raise _Unreadable(reason, bool(stream.peek(1)) if is_followed else _go_back(stream, mark))
    block = stream.read(num_bytes)
    if len(block) < num_bytes:
        reason = f"the file ends after {len(block)} of {num_bytes} bytes of a record"
        raise _Unreadable(reason, _go_back(stream, mark))
    # Looking beyond the record makes the stream check the member's checksum before the record counts.
    following = stream.peek(32)
    is_at_end = _is_at_end(stream)
    if not stream.peek(1) and stream.fault is not None and stream.fault.offset == offset:
        raise _Unreadable(stream.fault.reason)
    swallowed = None if is_at_end else _ANOTHER_RECORD.search(block + following)
    if swallowed is not None and swallowed.start() < len(block):
        raise _Unreadable("Content-Length is wrong: it ends within another record", _go_back(stream, mark))
    return WarcRecord(file, offset, index, headers, block, can_start_here)


def _read_headers(stream: PlainStream) -> Headers:
    head = stream.peek(4096)
    end = _HEADER_END.search(head)
    if end is None:
        head = stream.peek(_MAX_HEADER_BYTES)
        end = _HEADER_END.search(head)
    version_line = _VERSION_LINE.match(head)
    reason = None
    if version_line is None:
        reason = f"expected a WARC version line, found {head[:20]!r}"
    elif end is None:
        reason = f"no end of the record's headers within {len(head)} bytes"
    elif _ANOTHER_RECORD.search(head[: end.end()], version_line.end()):
        reason = "its headers run into those of another record"
    if reason is not None or version_line is None or end is None:
        stream.read(1)  # so that the search for the next record does not stop here again
        raise _Unreadable(reason or "")
    stream.read(end.end())
    return parse_headers(head[version_line.end() : end.start()])


def _is_at_end(stream: PlainStream) -> bool:
    """Whether a record may end here, line ends aside: at the start of another one, or with the file."""
    # Two line ends follow every block (WARC 1.1, section 4); some writers leave out one or both.
    stream.skip_line_ends()
    head = stream.peek(len(_RECORD))
    return not head or head == _RECORD


def _go_back(stream: PlainStream, mark: int) -> bool:
    """Return to where a record that swallowed others may be followed by them; not over a damaged member.

    Returns whether the next record starts right there.
    """
    return stream.fault is None and stream.go_back(mark)


def _find_next_record(stream: PlainStream) -> bool:
    """Pass over what is not a record. A version line begins one even where the line end before it is lost."""
    while stream.skip_to(_NEXT_RECORD):
        if _VERSION_LINE.match(stream.peek(32)):
            return True
        stream.read(1)
    return False
