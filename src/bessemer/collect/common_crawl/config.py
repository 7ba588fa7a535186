"""Which part of Common Crawl to collect."""

import re
from typing import Literal

from pydantic import Field, field_validator, model_validator

from bessemer.config import Bytes, Config, Count, Seconds

_CRAWL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_PATH = re.compile(r"[A-Za-z0-9][A-Za-z0-9._=/-]{0,511}")


class CommonCrawlConfig(Config):
    """Whole files of one crawl (`files` or `paths`), or the pages of it that the index finds for `urls`."""

    crawl: str
    """Id of the crawl, such as CC-MAIN-2025-05; all ids are at https://index.commoncrawl.org/collinfo.json."""
    kind: Literal["warc", "wet"] = "warc"
    """Whole files: pages as they were fetched, or the text that Common Crawl extracted from them."""
    files: int | None = Field(default=None, ge=1)
    """Take so many files from the head of the crawl's list; each is about 1 GB (WARC) or 100 MB (WET)."""
    paths: tuple[str, ...] = ()
    """Take these files, as the crawl's list names them."""
    urls: tuple[str, ...] = ()
    """Take single pages: a URL, `example.org/*` (all below it) or `*.example.org` (with subdomains)."""
    limit: Count = Field(default=1000, ge=1)
    """Most pages taken through the index."""
    filters: tuple[str, ...] = ("=status:200",)
    """What the index gives, in its own syntax: `=mime:text/html`, `~languages:.*deu.*`, `!=status:404`."""
    base_url: str = "https://data.commoncrawl.org"
    """Where the files are."""
    index_url: str = "https://index.commoncrawl.org"
    """Where the index is."""
    request_delay_s: Seconds = Field(default=1.0, ge=0)
    """Time between two requests to the index; ranges of pages follow each other at a quarter of it."""
    max_retries: int = Field(default=8, ge=0)
    """Further attempts after 429, 5xx, failed connections and stalls; downloads continue where they were."""
    retry_delay_s: Seconds = Field(default=1.0, ge=0)
    """Wait before the first retry, doubled each time, less up to half of it by chance."""
    max_retry_delay_s: Seconds = Field(default=300.0, ge=0)
    """Longest wait before a retry; a longer Retry-After, up to an hour, is obeyed."""
    read_timeout_s: Seconds = Field(default=60.0, gt=0)
    """A transfer that brings nothing for so long has stalled."""
    max_download_bytes: Bytes = Field(default=8 << 30, ge=1)
    """A file that is larger is not fetched."""

    @field_validator("crawl")
    @classmethod
    def _is_an_id(cls, crawl: str) -> str:
        if not _CRAWL.fullmatch(crawl):
            raise ValueError(f"{crawl!r} is no crawl id; write it as CC-MAIN-2025-05")
        return crawl

    @field_validator("paths")
    @classmethod
    def _are_paths(cls, paths: tuple[str, ...]) -> tuple[str, ...]:
        for path in paths:
            if not _PATH.fullmatch(path) or ".." in path:
                raise ValueError(f"{path!r} is no path of a crawl file (crawl-data/…/….warc.gz)")
        return paths

    @field_validator("base_url", "index_url")
    @classmethod
    def _is_http(cls, url: str) -> str:
        if not re.match(r"https?://[^/\s]+", url):
            raise ValueError(f"{url!r} is no http(s) URL")
        return url.rstrip("/")

    @model_validator(mode="after")
    def _says_what_to_take(self) -> "CommonCrawlConfig":
        given = [name for name in ("files", "paths", "urls") if getattr(self, name)]
        if len(given) != 1:
            found = " and ".join(given) or "none of them"
            raise ValueError(f"give one of files, paths and urls (found {found})")
        if self.urls and self.kind == "wet":
            raise ValueError("the index points into WARC files; leave out kind: wet, or give files instead")
        return self
