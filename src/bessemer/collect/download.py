"""One large file to disk: in parts if it must be, never mixed from two versions, verified before it counts.

A part is continued only when the server confirms by the file's validator (ETag or Last-Modified, in
If-Range: RFC 9110, section 13.1.5) that it is still the same file.
"""

import base64
import binascii
import hashlib
import json
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from bessemer.collect.transfer import Answer, Interrupted, Progressed, Refused, Transfer
from bessemer.runner.files import fsync_folder, write_atomically

_CONTENT_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+|\*)")
_SHA256_DIGEST = re.compile(r"sha-256=:?([A-Za-z0-9+/=]+):?", re.IGNORECASE)
_MD5_ETAG = re.compile(r'"([0-9a-f]{32})"')


@dataclass(frozen=True)
class _Version:
    """Which version of a file a part belongs to, and what its whole must be."""

    url: str
    validator: str | None
    """A strong ETag or Last-Modified; without one a part cannot be continued."""
    num_bytes: int | None
    digests: dict[str, str]
    """Algorithm → hexadecimal digest, where the server gave one."""


async def download(
    transfer: Transfer,
    url: str,
    target: Path,
    max_bytes: int,
    headers: Mapping[str, str] | None = None,
    digests: Mapping[str, str] | None = None,
    advance: Callable[[int], None] = lambda num_bytes: None,
) -> None:
    """Fetch a URL into `target`, which appears when it is whole and matches all that is known of it.

    Continues `.part` files that an earlier attempt left beside the target. `digests` (algorithm, or
    `git-blob` → hexadecimal) must match besides those that the server sends; `advance` gets the bytes as
    they come.
    Raises Refused when there is no such file, it is longer than `max_bytes`, or does not match.
    """
    part = _Part(url, target.with_name(target.name + ".part"), max_bytes, advance)
    has_failed_check = False
    while True:
        await transfer.retried(url, lambda: part.continue_from(transfer, headers or {}))
        fault = part.fault(digests or {})
        if fault is None:
            part.publish(target)
            return
        part.discard()
        if has_failed_check:
            raise Refused(fault)
        has_failed_check = True  # once more from the start: the fault may be the connection's


class _Part:
    """A file on its way."""

    def __init__(self, url: str, path: Path, max_bytes: int, advance: Callable[[int], None]) -> None:
        self._url = url
        self._path = path
        self._version_path = path.with_name(path.name + ".json")
        self._max_bytes = max_bytes
        self._advance = advance

    async def continue_from(self, transfer: Transfer, headers: Mapping[str, str]) -> None:
        """Fetch what is missing. Raises Interrupted, or Progressed when some of it came."""
        version = self._version()
        start = self._path.stat().st_size if version is not None and self._path.exists() else 0
        if version is not None and version.num_bytes is not None and start == version.num_bytes:
            return
        asked = dict(headers)
        if version is not None and start and version.validator is not None:
            asked |= {"Range": f"bytes={start}-", "If-Range": version.validator}
        received = 0
        try:
            async with transfer.request(self._url, asked) as answer:
                version, start = self._agree(answer, version, start)
                with self._path.open("r+b" if start else "wb") as file:
                    file.truncate(start)
                    file.seek(start)
                    async for chunk in answer.chunks:
                        file.write(chunk)
                        received += len(chunk)
                        self._advance(len(chunk))
                        if start + received > self._max_bytes:
                            raise Refused(self._too_long(start + received))
        except Interrupted as failure:
            # Only what can be continued is progress: without a validator the next attempt starts over.
            if received and version is not None and version.validator is not None:
                raise Progressed(str(failure), failure.retry_after_s) from failure
            raise
        if version.num_bytes is not None and start + received != version.num_bytes:
            raise Interrupted(f"{start + received} of {version.num_bytes} bytes came")

    def _agree(self, answer: Answer, version: _Version | None, start: int) -> tuple[_Version, int]:
        """The version that the answer belongs to, and the offset at which its body begins."""
        if answer.status == 206 and version is not None:
            found = _CONTENT_RANGE.fullmatch(answer.header("Content-Range") or "")
            is_next = found is not None and int(found[1]) == start
            if is_next and found is not None and found[3] in ("*", str(version.num_bytes)):
                return version, start
        if answer.status != 200:
            # An answer about another stretch than the one asked for: start over.
            self.discard()
            raise Interrupted(f"the server gave another part of the file (HTTP {answer.status})")
        length = answer.header("Content-Length") or ""
        num_bytes = int(length) if length.isascii() and length.isdigit() else None
        if num_bytes is not None and num_bytes > self._max_bytes:
            raise Refused(self._too_long(num_bytes))
        etag = answer.header("ETag")
        is_strong = etag is not None and not etag.startswith("W/")
        validator = etag if is_strong else answer.header("Last-Modified")
        version = _Version(self._url, validator, num_bytes, _digests_of(answer))
        write_atomically(self._version_path, json.dumps(asdict(version)).encode())
        return version, 0

    def _too_long(self, num_bytes: int) -> str:
        return f"too long: a file of {num_bytes} bytes or more, where at most {self._max_bytes} are fetched"

    def _version(self) -> _Version | None:
        try:
            version = _Version(**json.loads(self._version_path.read_bytes()))
        except (FileNotFoundError, ValueError, TypeError):
            return None
        return version if version.url == self._url else None

    def fault(self, digests: Mapping[str, str]) -> str | None:
        """Why the whole file is not the one that was meant."""
        version = self._version()
        wanted = {**(version.digests if version else {}), **digests}
        for algorithm, digest in sorted(wanted.items()):
            actual = _digest(self._path, algorithm)
            if actual != digest.lower():
                return f"wrong checksum: {algorithm} is {actual}, not {digest}"
        return None

    def publish(self, target: Path) -> None:
        with self._path.open("rb") as file:
            os.fsync(file.fileno())
        os.replace(self._path, target)
        self._version_path.unlink(missing_ok=True)
        fsync_folder(target.parent)

    def discard(self) -> None:
        self._version_path.unlink(missing_ok=True)
        self._path.unlink(missing_ok=True)


def _digest(path: Path, algorithm: str) -> str:
    """A file's digest in hexadecimal; `git-blob` is the SHA-1 that git calls the content by."""
    with path.open("rb") as file:
        if algorithm != "git-blob":
            return hashlib.file_digest(file, algorithm).hexdigest()
        digest = hashlib.sha1(b"blob %d\0" % os.fstat(file.fileno()).st_size, usedforsecurity=False)
        while chunk := file.read(1 << 20):
            digest.update(chunk)
        return digest.hexdigest()


def _digests_of(answer: Answer) -> dict[str, str]:
    """Digests that the server gives: Content-MD5, Repr-Digest or Digest (RFC 9530, 3230), and the ETag of
    Amazon S3, which is the MD5 of objects that were uploaded in one piece."""
    digests: dict[str, str] = {}
    if md5 := _hexadecimal(answer.header("Content-MD5"), num_bytes=16):
        digests["md5"] = md5
    sha256 = _SHA256_DIGEST.search(answer.header("Repr-Digest") or answer.header("Digest") or "")
    if sha256 and (digest := _hexadecimal(sha256[1], num_bytes=32)):
        digests["sha256"] = digest
    is_s3 = answer.header("x-amz-request-id") is not None or answer.header("Server") == "AmazonS3"
    is_encrypted = (answer.header("x-amz-server-side-encryption") or "AES256") != "AES256"
    etag = _MD5_ETAG.fullmatch(answer.header("ETag") or "")
    if is_s3 and etag and not is_encrypted:
        digests.setdefault("md5", etag[1])
    return digests


def _hexadecimal(value: str | None, num_bytes: int) -> str | None:
    try:
        digest = base64.b64decode(value or "", validate=True)
    except (binascii.Error, ValueError):
        return None
    return digest.hex() if len(digest) == num_bytes else None
