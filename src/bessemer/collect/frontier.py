"""The crawl's memory: every URL ever found, in breadth-first order, in a SQLite file.

One transaction holds what was learned from a stretch of pages together with the position that the
WARC writer and the failure log had reached, so that after a crash the files can be cut back to
exactly what the frontier knows.
"""

import json
import sqlite3
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path

from bessemer.formats.warc_writer import WarcPosition

_SCHEMA = """
CREATE TABLE IF NOT EXISTS urls (
    id INTEGER PRIMARY KEY,          -- order of discovery, which is breadth-first order
    url TEXT NOT NULL UNIQUE,
    depth INTEGER NOT NULL,          -- links from a seed
    num_redirects INTEGER NOT NULL,  -- in a row, up to this URL
    redirected_from INTEGER,         -- id of the URL that redirected here
    is_done INTEGER NOT NULL DEFAULT 0
);
CREATE INDEX IF NOT EXISTS pending ON urls (id) WHERE is_done = 0;
CREATE TABLE IF NOT EXISTS progress (id INTEGER PRIMARY KEY CHECK (id = 0), value TEXT NOT NULL);
"""


@dataclass(frozen=True)
class Entry:
    """One URL of the frontier."""

    id: int
    url: str
    depth: int
    num_redirects: int


@dataclass(frozen=True)
class CrawlProgress:
    """What the output files hold at a commit."""

    num_pages: int = 0
    failures_offset: int = 0
    warc: WarcPosition = field(default_factory=WarcPosition)


class Frontier:
    """URLs to fetch and URLs seen. Changes are durable once `commit` returns. A context manager."""

    def __init__(self, path: Path) -> None:
        self._database = sqlite3.connect(path)
        self._database.executescript("PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;" + _SCHEMA)

    def __enter__(self) -> "Frontier":
        return self

    def __exit__(self, *error: object) -> None:
        self._database.close()

    def add(self, urls: Iterable[str], depth: int) -> None:
        """Append canonical URLs that were never seen before."""
        self._database.executemany(
            "INSERT OR IGNORE INTO urls (url, depth, num_redirects) VALUES (?, ?, 0)",
            ((url, depth) for url in urls),
        )

    def add_redirect(self, source: Entry, url: str) -> None:
        """Append the target of a redirect, at its source's depth, unless it was seen before."""
        self._database.execute(
            "INSERT OR IGNORE INTO urls (url, depth, num_redirects, redirected_from) VALUES (?, ?, ?, ?)",
            (url, source.depth, source.num_redirects + 1, source.id),
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

    def pending(self, after_id: int, limit: int) -> list[Entry]:
        """The next URLs that are not done, in order."""
        rows = self._database.execute(
            "SELECT id, url, depth, num_redirects FROM urls WHERE is_done = 0 AND id > ? ORDER BY id LIMIT ?",
            (after_id, limit),
        )
        return [Entry(*row) for row in rows]

    def finish(self, entry: Entry) -> None:
        """Mark a URL as done, whatever came of it."""
        self._database.execute("UPDATE urls SET is_done = 1 WHERE id = ?", (entry.id,))

    def progress(self) -> CrawlProgress:
        """What the last commit recorded; the beginning when there was none."""
        row = self._database.execute("SELECT value FROM progress").fetchone()
        if row is None:
            return CrawlProgress()
        value = json.loads(row[0])
        return CrawlProgress(**{**value, "warc": WarcPosition(**value["warc"])})

    def commit(self, progress: CrawlProgress) -> None:
        """Make all changes durable together with the position of the files, which must be synced."""
        self._database.execute(
            "INSERT OR REPLACE INTO progress (id, value) VALUES (0, ?)", (json.dumps(asdict(progress)),)
        )
        self._database.commit()
