"""HTTP messages as WARC records hold them: parsing, and decoding of bodies with bounded memory.

The block of a `response` record is the message as it crossed the wire (RFC 9112), so its body may be
chunked and compressed. Archives in the wild often decoded the body and kept the headers; a body that
does not decode from its very first bytes is therefore taken as it is.
"""

import io
import re
import zlib
from dataclasses import dataclass

from fastwarc.stream_io import BrotliReader, ZstdReader

Headers = tuple[tuple[str, str], ...]
"""Name and value in the order and spelling received; names may repeat."""

_STEP_BYTES = 1 << 16
"""Decoded at a time, so that what precedes the damage in a body is kept."""
_STATUS_LINE = re.compile(rb"HTTP/(\d(?:\.\d)?)[ \t]+(\d{3})(?:[ \t]+([^\r\n]*))?\r?\n")
_HEAD_END = re.compile(rb"\r?\n\r?\n")
_CHUNK_SIZE = re.compile(rb"([0-9a-fA-F]{1,16})[ \t]*(?:;[^\r\n]*)?\r?\n")


@dataclass(frozen=True)
class HttpResponse:
    """A parsed response; `body` is still encoded as it was sent."""

    status: int
    reason: str
    headers: Headers
    body: bytes

    def header(self, name: str) -> str | None:
        """The first value of a header, its name in any case."""
        return header_value(self.headers, name)


@dataclass(frozen=True)
class DecodedBody:
    """A body after its encodings were removed, up to a bound."""

    content: bytes
    is_complete: bool
    """False when the bound cut it, or when the encoded data was damaged or cut."""
    fault: str | None = None
    """Why it is not complete."""


def header_value(headers: Headers, name: str) -> str | None:
    """The first value of a header, its name in any case."""
    name = name.lower()
    for key, value in headers:
        if key.lower() == name:
            return value
    return None


def parse_http_response(block: bytes) -> HttpResponse | None:
    """Split a response into status, headers and raw body; None when it is not an HTTP response."""
    status_line = _STATUS_LINE.match(block)
    if status_line is None:
        return None
    # The blank line may follow the status line at once, so the search starts on its line feed.
    end = _HEAD_END.search(block, status_line.end() - 1) or _HEAD_END.search(block, status_line.end() - 2)
    head = block[status_line.end() : end.start() if end else len(block)]
    return HttpResponse(
        status=int(status_line[2]),
        reason=(status_line[3] or b"").decode("latin-1").strip(),
        headers=parse_headers(head),
        body=block[end.end() :] if end else b"",
    )


def parse_headers(head: bytes) -> Headers:
    """Header lines to pairs. UTF-8, or Latin-1 where it is not; folded lines are joined."""
    try:
        text = head.decode("utf-8")
    except UnicodeDecodeError:
        text = head.decode("latin-1")
    text = text.replace("\r\n", "\n")
    pairs: list[tuple[str, str]] = []
    if "\n " not in text and "\n\t" not in text:  # as nearly always: no line is folded
        split = [line.partition(":") for line in text.split("\n")]
        return tuple([(name.strip(), value.strip()) for name, colon, value in split if colon])
    for line in text.split("\n"):
        if line[:1] in (" ", "\t") and pairs:
            name, value = pairs[-1]
            pairs[-1] = (name, f"{value} {line.strip()}")
        elif ":" in line:
            name, _, value = line.partition(":")
            pairs.append((name.strip(), value.strip()))
    return tuple(pairs)


def decode_body(headers: Headers, body: bytes, max_bytes: int) -> DecodedBody:
    """Remove Transfer-Encoding, then Content-Encoding, keeping at most `max_bytes` of the result."""
    fault = None
    if "chunked" in (header_value(headers, "Transfer-Encoding") or "").lower():
        body, fault = join_chunks(body)
    encodings = (header_value(headers, "Content-Encoding") or "").lower().split(",")
    for encoding in reversed([name.strip() for name in encodings]):
        body, decode_fault = _decode(encoding, body, max_bytes)
        fault = fault or decode_fault
    if len(body) > max_bytes:
        body, fault = body[:max_bytes], fault or f"longer than {max_bytes} bytes"
    return DecodedBody(body, fault is None, fault)


def join_chunks(body: bytes) -> tuple[bytes, str | None]:
    """Join the chunks of a chunked body (RFC 9112, section 7.1). Returns the content and a fault or None."""
    parts: list[bytes] = []
    position = 0
    while size_line := _CHUNK_SIZE.match(body, position):
        size = int(size_line[1], 16)
        if size == 0:
            return b"".join(parts), None
        start = size_line.end()
        parts.append(body[start : start + size])
        if start + size > len(body):
            return b"".join(parts), "the chunked body is cut short"
        position = start + size
        position += 2 if body.startswith(b"\r\n", position) else int(body.startswith(b"\n", position))
    if not parts:
        return body, None  # the archive joined the chunks and kept the header
    return b"".join(parts), "the chunked body is malformed"


def _decode(encoding: str, body: bytes, max_bytes: int) -> tuple[bytes, str | None]:
    if not body:
        return body, None  # revisit records and answers to HEAD keep the header of a body they lack
    if encoding in ("gzip", "x-gzip"):
        return _inflate(body, max_bytes, (31,))
    if encoding == "deflate":
        # RFC 9110 means zlib's format; servers also send the bare stream.
        return _inflate(body, max_bytes, (15, -15))
    if encoding in ("br", "zstd"):
        return _read_bounded(BrotliReader if encoding == "br" else ZstdReader, body, max_bytes)
    return body, None


def _inflate(body: bytes, max_bytes: int, window_bits: tuple[int, ...]) -> tuple[bytes, str | None]:
    for wbits in window_bits:
        inflater = zlib.decompressobj(wbits)
        try:
            start = inflater.decompress(body[:64], 1)
        except zlib.error:
            continue
        parts, fault = [start], None
        pending = inflater.unconsumed_tail + body[64:]
        size = len(start)
        while not inflater.eof and fault is None:
            try:
                part = inflater.decompress(pending, min(_STEP_BYTES, max_bytes + 1 - size))
            except zlib.error as error:
                fault = f"damaged compressed body: {error}"
                break
            parts.append(part)
            size += len(part)
            pending = inflater.unconsumed_tail
            if size > max_bytes:
                fault = f"decompresses to more than {max_bytes} bytes"
            elif not pending and not inflater.eof and not part:
                fault = "the compressed body is cut short"
        return b"".join(parts)[:max_bytes], fault
    return body, None  # the archive decoded the body and kept the header


def _read_bounded(reader_type: type, body: bytes, max_bytes: int) -> tuple[bytes, str | None]:
    reader = reader_type(io.BytesIO(body))
    parts: list[bytes] = []
    size = 0
    try:
        while size <= max_bytes and (part := reader.read(min(_STEP_BYTES, max_bytes + 1 - size))):
            parts.append(part)
            size += len(part)
    except OSError as error:
        if not parts:
            return body, None  # the archive decoded the body and kept the header
        return b"".join(parts), f"damaged compressed body: {error}"
    if size > max_bytes:
        return b"".join(parts)[:max_bytes], f"decompresses to more than {max_bytes} bytes"
    return b"".join(parts), None
