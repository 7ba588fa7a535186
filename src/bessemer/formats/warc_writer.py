"""Writing WARC/1.1 files: one gzip member a record, rolled at a size, resumable at an exact offset.

Nothing in the output depends on chance or on the clock: dates are given by the caller, record ids
are UUIDs of version 5 (RFC 9562), and gzip members carry no time.
"""

import base64
import hashlib
import json
import os
import re
import uuid
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from bessemer.runner.files import fsync_folder

_COMPRESSION_LEVEL = 6
_HTTP_REQUEST = "application/http; msgtype=request"
_HTTP_RESPONSE = "application/http; msgtype=response"
_LINE_BREAKING = re.compile(r"[\x00-\x20\x7f]+")


@dataclass(frozen=True)
class WarcPosition:
    """How far a writer got; a writer opened here continues as if it had never stopped."""

    file_number: int = 0
    offset: int = 0
    num_records: int = 0
    """Records in all files up to here, warcinfo records included."""


@dataclass(frozen=True)
class WarcHead:
    """What every file of a collection says about itself in its first record."""

    date: str
    """ISO 8601, UTC."""
    fields: Mapping[str, str]
    """`software`, `description`, …: the fields of application/warc-fields."""


@dataclass(frozen=True)
class Original:
    """The record that holds a payload which was met again."""

    record_id: str
    uri: str
    date: str


@dataclass(frozen=True)
class Revisit:
    """Why a capture needs no body, and where the body is (WARC 1.1, sections 6.7.2 and 6.7.3)."""

    original: Original
    payload_digest: str | None
    """Set where the payload came again and was the same; None where the server said "not modified"."""

    @property
    def fields(self) -> dict[str, str]:
        """The WARC headers that say so."""
        kind = "server-not-modified" if self.payload_digest is None else "identical-payload-digest"
        refers = {
            "WARC-Profile": f"http://netpreserve.org/warc/1.1/revisit/{kind}",
            "WARC-Refers-To": f"<{self.original.record_id}>",
            "WARC-Refers-To-Target-URI": _one_line(self.original.uri),
            "WARC-Refers-To-Date": self.original.date,
        }
        if self.payload_digest is None:
            return refers
        return {**refers, "WARC-Truncated": "length", "WARC-Payload-Digest": self.payload_digest}


def sha1_digest(content: bytes) -> str:
    """`sha1:` and the digest in base 32, as WARC tools write it."""
    return "sha1:" + base64.b32encode(hashlib.sha1(content, usedforsecurity=False).digest()).decode()


class WarcWriter:
    """Appends records to `{prefix}-00000.warc.gz`, `{prefix}-00001.warc.gz`, … in a folder.

    Opening at a position removes whatever lies beyond it: the tail of that file and later files.
    Use it as a context manager; leaving it syncs what was written. Without records there are no files.
    """

    def __init__(
        self,
        folder: Path,
        head: WarcHead,
        max_file_bytes: int,
        position: WarcPosition | None = None,
        prefix: str = "pages",
    ) -> None:
        self._folder = folder
        self._head = head
        self._max_file_bytes = max_file_bytes
        self._prefix = prefix
        self._position = position or WarcPosition()
        folder.mkdir(parents=True, exist_ok=True)
        for path in sorted(folder.glob(f"{prefix}-*.warc.gz")):
            if path.name > self._path().name:
                path.unlink()
        self._file = self._open()

    def __enter__(self) -> "WarcWriter":
        return self

    def __exit__(self, *error: object) -> None:
        self.sync()
        self._file.close()
        if self._position.num_records == 0:
            self._path().unlink()

    def write_resource(
        self, uri: str, date: str, content_type: str, body: bytes, about: Mapping[str, object] | None = None
    ) -> str:
        """A page that came from no HTTP exchange. Returns the record id.

        `about` is what is known of the page besides its bytes: see `WarcRecord.description`.
        """
        return self._write("resource", uri, date, content_type, body, body, _described(about))

    def write_conversion(
        self, uri: str, date: str, content_type: str, body: bytes, about: Mapping[str, object] | None = None
    ) -> str:
        """What a page gave in another format, such as the text layer of a PDF. Returns the record id."""
        return self._write("conversion", uri, date, content_type, body, body, _described(about))

    def write_member(self, member: bytes) -> None:
        """A record as it is in another archive: one whole gzip member, copied byte for byte."""
        self._begin_record(may_roll=True)
        self._append_bytes(member)

    def write_exchange(
        self,
        uri: str,
        date: str,
        request: bytes,
        response: bytes,
        body: bytes,
        address: str | None = None,
        about: Mapping[str, object] | None = None,
    ) -> str:
        """An HTTP exchange: a response record and its request. Returns the response's record id.

        `response` is the whole message and `body` its end, which the payload digest covers; `address` is
        the IP address that was connected to.
        """
        links = _connected_to(address) | _described(about)
        record_id = self._write("response", uri, date, _HTTP_RESPONSE, response, body, links)
        self._write_request(uri, date, request, record_id)
        return record_id

    def write_revisit(
        self, uri: str, date: str, request: bytes, head: bytes, revisit: Revisit, address: str | None = None
    ) -> str:
        """An HTTP exchange whose payload is stored already: a revisit record and its request.

        `head` is the response without its body. WARC 1.1, section 6.7. Returns the revisit's record id.
        """
        links = _connected_to(address) | revisit.fields
        record_id = self._write("revisit", uri, date, _HTTP_RESPONSE, head, None, links)
        self._write_request(uri, date, request, record_id)
        return record_id

    def write_metadata(self, uri: str, date: str, content_type: str, block: bytes) -> str:
        """What is known of a resource that is not stored itself. Returns the record id."""
        return self._write("metadata", uri, date, content_type, block, None)

    def write_copy(self, headers: Iterable[tuple[str, str]], block: bytes) -> None:
        """A record of another archive under its own id and date, as its headers and block were read."""
        self._begin_record(may_roll=True)
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers)
        head = "WARC/1.1\r\n" + lines + "\r\n"
        self._append_bytes(_gzip_member(head.encode("utf-8", "replace") + block + b"\r\n\r\n"))

    def _write_request(self, uri: str, date: str, request: bytes, record_id: str) -> None:
        links = {"WARC-Concurrent-To": f"<{record_id}>"}
        self._write("request", uri, date, _HTTP_REQUEST, request, None, links)

    def sync(self) -> WarcPosition:
        """Make everything written so far durable. Returns the position to continue from."""
        self._file.flush()
        os.fsync(self._file.fileno())
        fsync_folder(self._folder)
        return self._position

    def _path(self) -> Path:
        return self._folder / f"{self._prefix}-{self._position.file_number:05d}.warc.gz"

    def _open(self) -> BinaryIO:
        file = self._path().open("ab")
        file.truncate(self._position.offset)
        return file

    def _write(
        self,
        record_type: str,
        uri: str,
        date: str,
        content_type: str,
        block: bytes,
        payload: bytes | None,
        links: Mapping[str, str] | None = None,
    ) -> str:
        self._begin_record(may_roll=record_type != "request")
        return self._append(
            record_type, {"WARC-Target-URI": _one_line(uri)}, date, content_type, block, payload, links
        )

    def _begin_record(self, may_roll: bool) -> None:
        if may_roll and self._position.offset >= self._max_file_bytes:
            self._roll()
        if self._position.offset == 0:
            self._write_warcinfo()

    def _write_warcinfo(self) -> None:
        fields = {"format": "WARC File Format 1.1", **self._head.fields}
        block = "".join(f"{name}: {value}\r\n" for name, value in fields.items()).encode()
        name = {"WARC-Filename": self._path().name}
        self._append("warcinfo", name, self._head.date, "application/warc-fields", block, None, None)

    def _append(
        self,
        record_type: str,
        subject: Mapping[str, str],
        date: str,
        content_type: str,
        block: bytes,
        payload: bytes | None,
        links: Mapping[str, str] | None,
    ) -> str:
        block_digest = sha1_digest(block)
        payload_digest = block_digest if payload is None or payload is block else sha1_digest(payload)
        target = next(iter(subject.values()))
        identity = f"{record_type} {target} {payload_digest} {self._position.num_records}"
        record_id = f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, identity)}"
        headers = {
            "WARC-Type": record_type,
            "WARC-Record-ID": f"<{record_id}>",
            "WARC-Date": date,
            **subject,
            **(links or {}),
            "WARC-Block-Digest": block_digest,
            **({"WARC-Payload-Digest": payload_digest} if payload is not None else {}),
            "Content-Type": content_type,
            "Content-Length": str(len(block)),
        }
        head = "WARC/1.1\r\n" + "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        self._append_bytes(_gzip_member(head.encode() + b"\r\n" + block + b"\r\n\r\n"))
        return record_id

    def _append_bytes(self, member: bytes) -> None:
        self._file.write(member)
        position = self._position
        self._position = WarcPosition(
            position.file_number, position.offset + len(member), position.num_records + 1
        )

    def _roll(self) -> None:
        self.sync()
        self._file.close()
        self._position = WarcPosition(self._position.file_number + 1, 0, self._position.num_records)
        self._file = self._open()


def _one_line(uri: str) -> str:
    return _LINE_BREAKING.sub(lambda found: "".join(f"%{ord(char):02X}" for char in found[0]), uri)


def _connected_to(address: str | None) -> dict[str, str]:
    return {"WARC-IP-Address": address} if address else {}


def _described(about: Mapping[str, object] | None) -> dict[str, str]:
    return {"WARC-JSON-Metadata": json.dumps(about)} if about else {}


def _gzip_member(content: bytes) -> bytes:
    deflater = zlib.compressobj(_COMPRESSION_LEVEL, zlib.DEFLATED, wbits=31)
    return deflater.compress(content) + deflater.flush()
