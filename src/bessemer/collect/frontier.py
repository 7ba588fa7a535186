"""The crawl's memory: every URL ever found, in breadth-first order, in a SQLite file.

One transaction holds what was learned from a stretch of pages together with the position that the
WARC writer and the failure log had reached, so that after a crash the files can be cut back to
exactly what the frontier knows.
"""

import json
import sqlite3
from dataclasses import asdict, dataclass, field
from enum import IntEnum
from pathlib import Path

from bessemer.formats.warc_writer import Original, WarcPosition

_SCHEMA = """
CREATE TABLE IF NOT EXISTS urls (
    id INTEGER PRIMARY KEY,          -- order of discovery, which is breadth-first order
    url TEXT NOT NULL UNIQUE,
    kind INTEGER NOT NULL,           -- what is expected there: see Kind
    depth INTEGER NOT NULL,          -- links from a seed
    num_redirects INTEGER NOT NULL,  -- in a row, up to this URL
    redirected_from INTEGER,         -- id of the URL that redirected here
    is_done INTEGER NOT NULL DEFAULT 0
);
CREATE INDEX IF NOT EXISTS pending ON urls (id) WHERE is_done = 0;
CREATE TABLE IF NOT EXISTS hosts (
    authority TEXT PRIMARY KEY,
    num_pages INTEGER NOT NULL DEFAULT 0,
    num_sitemaps INTEGER NOT NULL DEFAULT 0,
    num_failures INTEGER NOT NULL DEFAULT 0  -- in a row
);
CREATE TABLE IF NOT EXISTS origins (origin TEXT PRIMARY KEY);
CREATE TABLE IF NOT EXISTS payloads (
    digest TEXT PRIMARY KEY,
    record_id TEXT NOT NULL,
    url TEXT NOT NULL,
    date TEXT NOT NULL,
    num_captures INTEGER NOT NULL DEFAULT 0
);
CREATE TABLE IF NOT EXISTS shapes (shape TEXT PRIMARY KEY, num_urls INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS progress (id INTEGER PRIMARY KEY CHECK (id = 0), value TEXT NOT NULL);
"""
_MAX_REMEMBERED = 200_000
"""URLs kept in memory, so that the links that every page has cost no query."""


class Kind(IntEnum):
    """What is expected at a URL."""

    PAGE = 0
    SITEMAP = 1


@dataclass(frozen=True)
class Entry:
    """One URL of the frontier."""

    id: int
    url: str
    kind: Kind
    depth: int
    num_redirects: int


@dataclass(frozen=True)
class HostCounts:
    """What a crawl has to do with one server so far."""

    num_pages: int = 0
    num_sitemaps: int = 0
    num_failures: int = 0
    """In a row."""


@dataclass
class CrawlProgress:
    """What the output files hold, and what was met on the way."""

    num_pages: int = 0
    """Pages that were answered, revisits among them."""
    failures_offset: int = 0
    warc: WarcPosition = field(default_factory=WarcPosition)
    num_same_content: int = 0
    """Pages whose bytes another page, or the earlier crawl, had: revisit records."""
    num_not_modified: int = 0
    """Pages that the server said had not changed: revisit records."""
    num_marked: int = 0
    """Pages stored although their owner reserves them, because the config says so."""
    hosts_given_up: list[str] = field(default_factory=list)
    links_left: dict[str, int] = field(default_factory=dict)
    """Links that were not followed, by the trap that they look like."""

    @property
    def facts(self) -> dict[str, object]:
        """For the manifest: whatever is not zero."""
        facts = {
            "revisits_same_content": self.num_same_content,
            "revisits_not_modified": self.num_not_modified,
            "stored_though_reserved": self.num_marked,
            "hosts_given_up": list(self.hosts_given_up),
            "links_left_by_trap": dict(sorted(self.links_left.items())),
        }
        return {name: value for name, value in facts.items() if value}


class Frontier:
    """URLs to fetch and URLs seen. Changes are durable once `commit` returns. A context manager."""

    def __init__(self, path: Path) -> None:
        self._database = sqlite3.connect(path)
        self._database.executescript("PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;" + _SCHEMA)
        self._remembered: set[str] = set()

    def __enter__(self) -> "Frontier":
        return self

    def __exit__(self, *error: object) -> None:
        self._database.close()

    def knows(self, url: str) -> bool:
        """Whether a canonical URL was ever added."""
        if url in self._remembered:
            return True
        is_known = self._database.execute("SELECT 1 FROM urls WHERE url = ?", (url,)).fetchone() is not None
        if is_known:
            self._remember(url)
        return is_known

    def add(self, url: str, depth: int, kind: Kind = Kind.PAGE) -> None:
        """Append a canonical URL, unless it was added before."""
        if url in self._remembered:
            return
        self._database.execute(
            "INSERT OR IGNORE INTO urls (url, kind, depth, num_redirects) VALUES (?, ?, ?, 0)",
            (url, kind, depth),
        )
        self._remember(url)

    def add_redirect(self, source: Entry, url: str) -> None:
        """Append the target of a redirect, at its source's depth, unless it was seen before."""
        self._database.execute(
            "INSERT OR IGNORE INTO urls (url, kind, depth, num_redirects, redirected_from)"
            " VALUES (?, ?, ?, ?, ?)",
            (url, source.kind, source.depth, source.num_redirects + 1, source.id),
        )

    def redirect_chain(self, entry: Entry) -> list[str]:
        """The URLs that redirected to this one, itself first."""
        rows = self._database.execute(
            "WITH RECURSIVE chain(id, url, redirected_from) AS ("
            " SELECT id, url, redirected_from FROM urls WHERE id = ?"
            " UNION SELECT urls.id, urls.url, urls.redirected_from"
            " FROM urls JOIN chain ON urls.id = chain.redirected_from"
            ") SELECT url FROM chain",
            (entry.id,),
        )
        return [url for (url,) in rows]

    def starting_points(self) -> list[str]:
        """The seeds, and what they redirected to."""
        return [url for (url,) in self._database.execute("SELECT url FROM urls WHERE depth = 0 ORDER BY id")]

    def pending(self, after_id: int, limit: int) -> list[Entry]:
        """The next URLs that are not done, in order."""
        rows = self._database.execute(
            "SELECT id, url, kind, depth, num_redirects FROM urls"
            " WHERE is_done = 0 AND id > ? ORDER BY id LIMIT ?",
            (after_id, limit),
        )
        return [Entry(id, url, Kind(kind), depth, hops) for id, url, kind, depth, hops in rows]

    def num_pending(self) -> int:
        """How many URLs are not done."""
        return self._database.execute("SELECT count(*) FROM urls WHERE is_done = 0").fetchone()[0]

    def finish(self, entry: Entry) -> None:
        """Mark a URL as done, whatever came of it."""
        self._database.execute("UPDATE urls SET is_done = 1 WHERE id = ?", (entry.id,))

    def is_new_origin(self, origin: str) -> bool:
        """Whether this is asked for the first time about an origin."""
        cursor = self._database.execute("INSERT OR IGNORE INTO origins VALUES (?)", (origin,))
        return cursor.rowcount == 1

    def host(self, authority: str) -> HostCounts:
        """What was counted for a server."""
        row = self._database.execute(
            "SELECT num_pages, num_sitemaps, num_failures FROM hosts WHERE authority = ?", (authority,)
        ).fetchone()
        return HostCounts(*row) if row else HostCounts()

    def set_host(self, authority: str, counts: HostCounts) -> None:
        """Remember what was counted for a server."""
        self._database.execute(
            "INSERT OR REPLACE INTO hosts VALUES (?, ?, ?, ?)",
            (authority, counts.num_pages, counts.num_sitemaps, counts.num_failures),
        )

    def payload(self, digest: str) -> tuple[Original, int] | None:
        """The record that holds a payload and how often it was met, None when it is new."""
        row = self._database.execute(
            "SELECT record_id, url, date, num_captures FROM payloads WHERE digest = ?", (digest,)
        ).fetchone()
        return None if row is None else (Original(*row[:3]), row[3])

    def count_payload(self, digest: str, original: Original) -> None:
        """Count a capture of a payload; `original` holds it, if it was not met before."""
        self._database.execute(
            "INSERT INTO payloads VALUES (?, ?, ?, ?, 1)"
            " ON CONFLICT (digest) DO UPDATE SET num_captures = num_captures + 1",
            (digest, original.record_id, original.uri, original.date),
        )

    def count_shape(self, shape: str, limit: int) -> bool:
        """Count one more URL of a shape. Returns False, and counts none, when `limit` is reached."""
        cursor = self._database.execute(
            "INSERT INTO shapes VALUES (?, 1)"
            " ON CONFLICT (shape) DO UPDATE SET num_urls = num_urls + 1 WHERE num_urls < ?",
            (shape, limit),
        )
        return cursor.rowcount == 1

    def progress(self) -> CrawlProgress:
        """What the last commit recorded; the beginning when there was none."""
        row = self._database.execute("SELECT value FROM progress").fetchone()
        if row is None:
            return CrawlProgress()
        value = json.loads(row[0])
        value["warc"] = WarcPosition(**value["warc"])
        return CrawlProgress(**value)

    def commit(self, progress: CrawlProgress) -> None:
        """Make all changes durable together with the position of the files, which must be synced."""
        self._database.execute(
            "INSERT OR REPLACE INTO progress (id, value) VALUES (0, ?)", (json.dumps(asdict(progress)),)
        )
        self._database.commit()

    def _remember(self, url: str) -> None:
        if len(self._remembered) >= _MAX_REMEMBERED:
            self._remembered.clear()
        self._remembered.add(url)
