"""The bytes under a WARC file: one continuous stream over plain or gzipped files, with file offsets.

A gzipped WARC is a row of gzip members, by convention one a record (WARC 1.1, annex D). Files in the
wild also hold one member for everything, or members split in the middle of a record, so the record
reader sees one stream and asks for the offset of the member that a record starts in. A damaged
member ends the stream with a `fault`; `recover` continues at the next member that holds a record.
"""

import os
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

_CHUNK_BYTES = 1 << 16
_LINE_ENDS_BYTES = 64
"""Looked at in one step."""
_MAX_INFLATED_BYTES = 1 << 20
"""Most that one step may inflate: a member of zeros must not fill the memory before anyone asks."""
_GZIP_MAGIC = b"\x1f\x8b\x08"
_GZIP_WBITS = 31
_RECORD_START = b"WARC/"
_PLAIN_RECORD_START = b"WARC/1."
_VERSION_LINE = re.compile(rb"WARC/1\.\d[ \t]*\r?\n")


@dataclass(frozen=True)
class StreamFault:
    """Where and why the stream ended before the file did."""

    offset: int
    """File offset of the damaged gzip member."""
    reason: str


class PlainStream:
    """An uncompressed file. Offsets are exact."""

    def __init__(self, file: BinaryIO, start: int = 0) -> None:
        file.seek(start)
        self._file = file
        self._buffer: bytearray = bytearray()
        self._offset = start
        self.fault: StreamFault | None = None

    @property
    def offset(self) -> int:
        """File offset of the next unread byte."""
        return self._offset

    @property
    def can_start_here(self) -> bool:
        """Whether another stream, opened at `offset`, would begin with the next unread byte."""
        return True

    def peek(self, size: int) -> bytes:
        """Up to `size` bytes without consuming them; fewer only at the end or before a fault."""
        while len(self._buffer) < size and self._fill():
            pass
        return bytes(memoryview(self._buffer)[:size])

    def read(self, size: int) -> bytes:
        """Up to `size` bytes; fewer only at the end or before a fault."""
        taken = self.peek(size)
        self._consume(len(taken))
        return taken

    def skip(self, size: int) -> int:
        """Consume up to `size` bytes without holding them all. Returns how many there were."""
        skipped = 0
        while skipped < size and (taken := self.read(min(size - skipped, _CHUNK_BYTES))):
            skipped += len(taken)
        return skipped

    def skip_line_ends(self) -> None:
        """Consume the carriage returns and line feeds up to the next other byte."""
        while self._buffer or self._fill():
            head = bytes(self._buffer[:_LINE_ENDS_BYTES])
            num_other = len(head.lstrip(b"\r\n"))
            self._consume(len(head) - num_other)
            if num_other:
                return

    def skip_to(self, marker: bytes) -> bool:
        """Consume everything before the next `marker`; False, with all consumed, when there is none."""
        while (found := self._buffer.find(marker)) < 0:
            self._consume(max(0, len(self._buffer) - len(marker) + 1))
            if not self._fill():
                self._consume(len(self._buffer))
                return False
        self._consume(found)
        return True

    def recover(self) -> bool:
        """Continue after a fault. A plain stream has none, so there is nothing left to read."""
        return False

    def mark(self, record_offset: int) -> int:
        """What `go_back` needs to return to here, within the record that begins at `record_offset`."""
        return self._offset

    def go_back(self, mark: int) -> bool:
        """Return to the mark. Returns whether a record starts right there, which cannot be said here."""
        self._file.seek(mark)
        self._buffer.clear()
        self._offset = mark
        return False

    def _consume(self, size: int) -> None:
        del self._buffer[:size]
        self._offset += size

    def _fill(self) -> bool:
        chunk = self._file.read(_CHUNK_BYTES)
        self._buffer += chunk
        return bool(chunk)


class GzipStream(PlainStream):
    """A file of gzip members. An offset is that of the member which holds the next unread byte."""

    def __init__(self, file: BinaryIO, start: int = 0) -> None:
        super().__init__(file, start)
        self._restart(start)

    @property
    def offset(self) -> int:
        return next(offset for position, offset in reversed(self._members) if position <= self._consumed)

    @property
    def can_start_here(self) -> bool:
        return any(position == self._consumed for position, _ in self._members)

    def recover(self) -> bool:
        """Continue at the next member after the fault that starts with a record, if there is one."""
        assert self.fault is not None, "recover is for streams that ended in a fault"
        offset = _find_member(self._file, self.fault.offset + 1)
        if offset is None:
            return False
        self._restart(offset)
        return True

    def mark(self, record_offset: int) -> int:
        return record_offset

    def go_back(self, mark: int) -> bool:
        """Go on with the first member after the mark that starts with a record; with the end if none does."""
        offset = _find_member(self._file, mark + 1)
        self._restart(self._file.seek(0, os.SEEK_END) if offset is None else offset)
        return offset is not None

    def _restart(self, offset: int) -> None:
        self._file.seek(offset)
        self._buffer.clear()
        self._compressed = b""
        self._compressed_end = offset  # file offset just after self._compressed
        self._inflater = None
        self._consumed = 0
        self._produced = 0
        self._members = [(0, offset)]  # (position in the stream, file offset), oldest first
        self.fault = None

    def _consume(self, size: int) -> None:
        del self._buffer[:size]
        self._consumed += size
        while len(self._members) > 1 and self._members[1][0] <= self._consumed:
            del self._members[0]

    def _read_compressed(self) -> bool:
        chunk = self._file.read(_CHUNK_BYTES)
        self._compressed += chunk
        self._compressed_end += len(chunk)
        return bool(chunk)

    def _open_member(self) -> bool:
        while True:
            self._compressed = self._compressed.lstrip(b"\0")  # gzip allows padding between members
            if self._compressed or not self._read_compressed():
                break
        if not self._compressed:
            return False
        offset = self._compressed_end - len(self._compressed)
        self._inflater = zlib.decompressobj(_GZIP_WBITS)
        if self._members[-1][0] == self._produced:
            self._members.pop()  # an empty member holds no byte of the stream
        self._members.append((self._produced, offset))
        return True

    def _fill(self) -> bool:
        """Inflate some more. False at the end of the file and at a fault."""
        while self.fault is None:
            if self._inflater is None and not self._open_member():
                return False
            assert self._inflater is not None
            member_offset = self._members[-1][1]
            if not self._compressed and not self._read_compressed():
                self.fault = StreamFault(member_offset, "the file ends inside a gzip member")
                return False
            try:
                inflated = self._inflater.decompress(self._compressed, _MAX_INFLATED_BYTES)
            except zlib.error as error:
                self.fault = StreamFault(member_offset, f"gzip: {error}")
                return False
            self._compressed = self._inflater.unconsumed_tail
            if self._inflater.eof:
                self._compressed = self._inflater.unused_data
                self._inflater = None
            self._buffer += inflated
            self._produced += len(inflated)
            if inflated:
                return True
        return False


def open_stream(file: BinaryIO, start: int = 0) -> PlainStream:
    """The stream over a file from `start` on, by its magic bytes. `start` is a record's offset."""
    return GzipStream(file, start) if _is_gzip(file) else PlainStream(file, start)


def _is_gzip(file: BinaryIO) -> bool:
    """By the first bytes; where those say neither, by whether the file holds a member with a record."""
    file.seek(0)
    head = file.read(len(_RECORD_START))
    if head.startswith(_GZIP_MAGIC[:2]) or head == _RECORD_START or not head:
        return head.startswith(_GZIP_MAGIC[:2])
    return _find_member(file, 0) is not None


def find_record_start(path: Path, start: int, end: int) -> int | None:
    """File offset in [start, end) of the first place that looks like the start of a record.

    In gzipped files that is a member which inflates to a record's first bytes, in plain files a version line.
    A page can hold such a place, too (an archive inside an archive), so whoever reads from here on must
    prove it: reading the file from a place that is proven reaches the same offset.
    """
    with path.open("rb") as file:
        if _is_gzip(file):
            return _find_member(file, start, end)
        starts = _find_all(file, _PLAIN_RECORD_START, start, end)
        return next((offset for offset in starts if _starts_with_version_line(file, offset)), None)


def _find_member(file: BinaryIO, start: int, end: int | None = None) -> int | None:
    """File offset in [start, end) of the first gzip member that starts with a record."""
    magics = _find_all(file, _GZIP_MAGIC, start, end)
    return next((offset for offset in magics if _starts_with_record(file, offset)), None)


def _find_all(file: BinaryIO, marker: bytes, start: int, end: int | None) -> Iterator[int]:
    """File offset of every `marker` that begins in [start, end). The file may be moved in between."""
    window = b""
    while end is None or start < end:
        file.seek(start + len(window))
        chunk = file.read(_CHUNK_BYTES)
        if not chunk:
            return
        window += chunk
        found = -1
        while (found := window.find(marker, found + 1)) >= 0:
            if end is not None and start + found >= end:
                return
            yield start + found
        kept = window[-(len(marker) - 1) :]
        start += len(window) - len(kept)
        window = kept


def _starts_with_record(file: BinaryIO, offset: int) -> bool:
    file.seek(offset)
    try:
        head = zlib.decompressobj(_GZIP_WBITS).decompress(file.read(4096), len(_RECORD_START))
    except zlib.error:
        return False
    return head == _RECORD_START


def _starts_with_version_line(file: BinaryIO, offset: int) -> bool:
    file.seek(offset)
    return _VERSION_LINE.match(file.read(32)) is not None
