"""Whether a WARC record is what its writer digested (WARC 1.1, sections 5.8 and 5.9)."""

import base64
import binascii
import hashlib

from bessemer.formats.http_message import decode_body
from bessemer.formats.warc import WarcRecord

_ALGORITHMS = {"sha1": "sha1", "sha-1": "sha1", "sha256": "sha256", "sha-256": "sha256", "md5": "md5"}


def wrong_digest(record: WarcRecord) -> str | None:
    """Why a record does not match its digests; None when it does, or carries none that is known here.

    The digest of the block covers everything after the headers; that of the payload is asked only
    where there is no other, because writers disagree on whether it covers a chunked body as it was sent.
    """
    digest = record.header("WARC-Block-Digest")
    if digest:
        return None if fits(digest, record.block) is not False else f"wrong digest: block is not {digest}"
    digest = record.header("WARC-Payload-Digest")
    if not digest or record.type == "revisit":  # a revisit has the digest of what it left out
        return None
    fitting = [fits(digest, payload) for payload in _payloads(record)]
    return None if True in fitting or None in fitting else f"wrong digest: payload is not {digest}"


def payload_fits(record: WarcRecord, digest: str) -> bool:
    """Whether a digest, such as that of a CDX line, is the payload's."""
    return any(fits(digest, payload) for payload in _payloads(record))


def fits(digest: str, content: bytes) -> bool | None:
    """Whether `algorithm:value` is the content's digest; None when the algorithm is not known.

    Values are written in base 32, hexadecimal or base 64; without an algorithm it is SHA-1.
    """
    name, colon, value = digest.strip().rpartition(":")
    algorithm = _ALGORITHMS.get(name.lower() if colon else "sha1")
    if algorithm is None:
        return None
    actual = hashlib.new(algorithm, content, usedforsecurity=False).digest()
    return actual in _readings(value)


def _readings(value: str) -> list[bytes]:
    """The bytes that a written digest may stand for."""
    readings = []
    for decode in (bytes.fromhex, lambda text: base64.b32decode(text, casefold=True), base64.b64decode):
        try:
            readings.append(decode(value))
        except (ValueError, binascii.Error):
            continue
    return readings


def _payloads(record: WarcRecord) -> list[bytes]:
    """The body as it was sent and, where it was chunked, put together."""
    if record.http is None:
        return [record.block]
    chunked = tuple(pair for pair in record.http.headers if pair[0].lower() == "transfer-encoding")
    body = record.http.body
    return [body, decode_body(chunked, body, len(body)).content] if chunked else [body]
