"""What earlier crawls hold, so that only pages that changed are fetched and stored again.

The WARC files of the earlier crawls are indexed once into a SQLite file: for each URL the latest
capture's validators (ETag, Last-Modified) and where its body lies. A capture whose body cannot be read
again is left out, so that its page is simply fetched.
"""

import hashlib
import json
import re
import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from bessemer.errors import ConfigError
from bessemer.formats.warc import WarcRecord, is_warc_name, read_warc
from bessemer.formats.warc_writer import Original, sha1_digest
from bessemer.urls import canonical_url

_SCHEMA = """
CREATE TABLE IF NOT EXISTS bodies (
    record_id TEXT PRIMARY KEY,
    digest TEXT NOT NULL,
    url TEXT NOT NULL,
    date TEXT NOT NULL,
    path TEXT NOT NULL,
    file_offset INTEGER NOT NULL
);
CREATE INDEX IF NOT EXISTS digests ON bodies (digest);
CREATE TABLE IF NOT EXISTS captures (
    url TEXT PRIMARY KEY,
    date TEXT NOT NULL,
    etag TEXT,
    last_modified TEXT,
    record_id TEXT NOT NULL,         -- of the body, where the capture knows it
    digest TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS complete (listing TEXT NOT NULL);
"""
_SAFE_VALIDATOR = re.compile(r"[\x21-\x7e](?:[\x20-\x7e]{0,510}[\x21-\x7e])?")
"""What may be sent back in a header: an archive is no more to be trusted than the server it came from."""


@dataclass(frozen=True)
class Capture:
    """An earlier capture whose body can be read."""

    etag: str | None
    last_modified: str | None
    original: Original
    """The record that holds the body."""
    digest: str
    path: Path
    offset: int

    @property
    def conditions(self) -> list[tuple[str, str]]:
        """Request headers that ask for the page only if it changed (RFC 9110, section 13.1)."""
        headers = []
        if self.etag:
            headers.append(("If-None-Match", self.etag))
        if self.last_modified:
            headers.append(("If-Modified-Since", self.last_modified))
        return headers

    def record(self) -> WarcRecord:
        """Read the record that holds the body. Raises ConfigError when it is no longer there."""
        try:
            item = next(read_warc(self.path, self.offset), None)
        except OSError as error:
            raise ConfigError(f"{self.path} changed during the crawl: {error}") from error
        if not isinstance(item, WarcRecord) or item.record_id != self.original.record_id:
            raise ConfigError(
                f"{self.path} changed during the crawl; leave crawl.previous alone until it ends"
            )
        return item


class PreviousCrawl:
    """Looks up what earlier crawls captured. A context manager."""

    def __init__(self, index: Path, folders: Sequence[str]) -> None:
        """Index the folders into the file `index`, unless an earlier attempt did.

        Raises ConfigError when a folder holds no WARC files.
        """
        files = [file for folder in folders for file in _warc_files(folder)]
        listing = json.dumps([[str(file), file.stat().st_size] for file in files])
        digest = hashlib.sha256(listing.encode()).hexdigest()
        self._database = sqlite3.connect(index)
        self._database.executescript(_SCHEMA)
        if self._database.execute("SELECT listing FROM complete").fetchone() != (digest,):
            for table in ("bodies", "captures", "complete"):
                self._database.execute(f"DELETE FROM {table}")
            for file in files:
                self._index(file)
            self._database.execute("INSERT INTO complete VALUES (?)", (digest,))
            self._database.commit()

    def __enter__(self) -> "PreviousCrawl":
        return self

    def __exit__(self, *error: object) -> None:
        self._database.close()

    def capture(self, url: str) -> Capture | None:
        """The latest capture of a canonical URL, None when there is none to go by."""
        row = self._database.execute(
            "SELECT etag, last_modified, record_id, digest FROM captures WHERE url = ?", (url,)
        ).fetchone()
        if row is None:
            return None
        etag, last_modified, record_id, digest = row
        return self._capture("record_id", record_id, etag, last_modified) or self._capture(
            "digest", digest, etag, last_modified
        )

    def payload(self, digest: str) -> Capture | None:
        """A capture with this payload, whatever its URL."""
        return self._capture("digest", digest, None, None)

    def _capture(
        self, column: str, value: str, etag: str | None, last_modified: str | None
    ) -> Capture | None:
        row = self._database.execute(
            "SELECT record_id, url, date, digest, path, file_offset FROM bodies"
            f" WHERE {column} = ? ORDER BY date, path, file_offset LIMIT 1",
            (value,),
        ).fetchone()
        if row is None:
            return None
        record_id, url, date, digest, path, offset = row
        return Capture(etag, last_modified, Original(record_id, url, date), digest, Path(path), offset)

    def _index(self, file: Path) -> None:
        for record in _captures_in(file):
            url = canonical_url(record.uri)
            http = record.http
            if url is None or http is None:
                continue
            digest = record.header("WARC-Payload-Digest") or sha1_digest(http.body)
            body_id = record.record_id
            if record.type == "response":
                self._database.execute(
                    "INSERT OR IGNORE INTO bodies VALUES (?, ?, ?, ?, ?, ?)",
                    (record.record_id, digest, record.uri, record.date, str(file), record.offset),
                )
            else:
                body_id = record.header("WARC-Refers-To").strip("<>")
            etag, last_modified = _validator(http.header("ETag")), _validator(http.header("Last-Modified"))
            if record.type == "revisit" and not (etag or last_modified):
                continue  # "not modified" without validators: those of the capture before still hold
            self._database.execute(
                "INSERT INTO captures VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (url) DO UPDATE SET"
                " date = excluded.date, etag = excluded.etag, last_modified = excluded.last_modified,"
                " record_id = excluded.record_id, digest = excluded.digest WHERE excluded.date >= date",
                (url, record.date, etag, last_modified, body_id, digest),
            )


def _warc_files(folder: str) -> list[Path]:
    root = Path(folder)
    found = [root] if root.is_file() else sorted(root.rglob("*")) if root.is_dir() else []
    files = [path.resolve() for path in found if path.is_file() and is_warc_name(path)]
    if not files:
        raise ConfigError(
            f"crawl.previous: {folder!r} holds no WARC files; name the folder of an earlier crawl's pages"
        )
    return files


def _captures_in(file: Path) -> Iterator[WarcRecord]:
    """Pages that were answered well or not modified, where they can be read again."""
    for record in read_warc(file):
        if not isinstance(record, WarcRecord) or not record.can_start_here:
            continue
        is_page = record.type == "response" and record.status == 200
        if is_page or (record.type == "revisit" and record.status in (200, 304)):
            yield record


def _validator(value: str | None) -> str | None:
    return value if value and _SAFE_VALIDATOR.fullmatch(value) else None
