"""Where raw pages come from, and how politely a crawl behaves."""

import re
from typing import Literal

from pydantic import Field, field_validator, model_validator

from bessemer.config import Bytes, Config, Count, Seconds

Format = Literal["auto", "warc", "text", "html", "markdown", "jsonl", "parquet"]
PROJECT_NOTE = "language-model corpus crawler; obeys robots.txt"


class CrawlConfig(Config):
    """How the crawler fetches. The defaults are polite to strangers' servers."""

    user_agent: str | None = None
    """Sent with every request, and matched against robots.txt. Default: bessemer, its version, and a note."""
    contact: str = ""
    """A URL or mail address of the person who runs the crawl, added to the default user agent."""
    delay_s: Seconds = Field(default=1.0, ge=0)
    """Least time between two requests to one host; a longer Crawl-delay in robots.txt wins."""
    max_crawl_delay_s: Seconds = Field(default=60.0, ge=0)
    """A host that asks for a longer delay than this is left alone."""
    max_concurrency: int = Field(default=16, ge=1)
    """Requests in flight over all hosts."""
    max_concurrency_per_host: int = Field(default=1, ge=1)
    """Requests in flight to one host."""
    timeout_s: Seconds = Field(default=30.0, gt=0)
    """For one request, from connecting to the last byte."""
    max_bytes: Bytes = Field(default=5 << 20, ge=1)
    """A longer body is dropped and reported, not cut: half a page is no page."""
    max_decoded_bytes: Bytes = Field(default=50 << 20, ge=1)
    """Bound after decompression; more is dropped as a decompression bomb."""
    max_depth: int = Field(default=10, ge=0)
    """Links from a seed; 0 fetches the seeds alone."""
    max_redirects: int = Field(default=5, ge=0)
    """Redirects followed in a row."""
    max_retries: int = Field(default=3, ge=0)
    """Further attempts after 429, 503 and failed connections."""
    retry_delay_s: Seconds = Field(default=1.0, ge=0)
    """Wait before the first retry, doubled each time; a Retry-After up to a minute wins."""
    pages_per_commit: int = Field(default=100, ge=1)
    """A killed crawl continues from the last multiple of this, or from 10 s before."""
    same_host: bool = True
    """Stay on the hosts of the seeds."""
    include: tuple[str, ...] = ()
    """Regular expressions; when given, a link is followed only if one is found in its URL."""
    exclude: tuple[str, ...] = ()
    """Regular expressions; a link is not followed if one is found in its URL."""
    content_types: tuple[str, ...] = ("text/html", "application/xhtml+xml", "text/plain")
    """Everything else is dropped before its body is read."""
    respect_robots: bool = True
    """Obey robots.txt (RFC 9309) and nofollow marks. Switch it off for your own hosts only."""
    allow_private_hosts: bool = False
    """Also fetch from loopback, private and link-local addresses."""
    resolve: dict[str, str] = Field(default={})
    """Host name → `ADDRESS:PORT` to connect to instead, as curl's --resolve; may be a private address."""

    @field_validator("include", "exclude")
    @classmethod
    def _compiles(cls, patterns: tuple[str, ...]) -> tuple[str, ...]:
        for pattern in patterns:
            try:
                re.compile(pattern)
            except re.error as error:
                raise ValueError(f"{pattern!r} is no regular expression: {error}") from None
        return patterns

    @field_validator("resolve")
    @classmethod
    def _names_a_port(cls, resolve: dict[str, str]) -> dict[str, str]:
        for host, target in resolve.items():
            if not re.fullmatch(r".+:\d{1,5}", target):
                raise ValueError(f"resolve {host!r}: expected ADDRESS:PORT, got {target!r}")
        return resolve


class CollectConfig(Config):
    """One source of raw pages: the built-in corpus, a crawl from seed URLs, or local files."""

    source: Literal["builtin", "urls", "path"] = "builtin"
    """Follows from `urls` or `path` when one of them is given."""
    urls: tuple[str, ...] = ()
    """Seeds of a crawl."""
    path: str | tuple[str, ...] = ()
    """Files, folders or glob patterns, relative to the working directory."""
    format: Format = "auto"
    """Kind of the files under `path`; `auto` goes by each name's extension."""
    text_column: str = "text"
    """JSONL and Parquet: the column that holds the document."""
    id_column: str | None = None
    """JSONL and Parquet: the column that names the document; handed on as `id`."""
    url_column: str | None = None
    """JSONL and Parquet: the column that holds the document's URL; handed on as `url`."""
    max_document_bytes: Bytes = Field(default=32 << 20, ge=1, le=64 << 20)
    """A longer row or text file is dropped and reported."""
    max_pages: Count | None = Field(default=None, ge=1)
    """Stop a crawl (also of the built-in corpus) after so many pages."""
    max_file_bytes: Bytes = Field(default=256 << 20, ge=1)
    """Size at which the next WARC file begins."""
    builtin_modules: tuple[str, ...] | None = None
    """Built-in corpus: only these modules, without topics and packages. Default: everything."""
    builtin_packages: tuple[str, ...] = ("numpy", "polars", "pyarrow", "torch")
    """Built-in corpus: installed packages that get one page for each public function and class."""
    builtin_deadline_s: Seconds = Field(default=60.0, gt=0)
    """Built-in corpus: a module that takes longer to document is skipped and reported."""
    crawl: CrawlConfig = CrawlConfig()
    """How the crawler behaves; the built-in corpus is crawled too, without delay."""

    @model_validator(mode="before")
    @classmethod
    def _infer_source(cls, values: object) -> object:
        if isinstance(values, dict) and "source" not in values:
            given = [name for name in ("urls", "path") if values.get(name)]
            if len(given) == 1:
                return {**values, "source": given[0]}
            if len(given) == 2:
                raise ValueError("urls and path are both given; use one collect stage for each")
        return values

    @model_validator(mode="after")
    def _source_has_what_it_needs(self) -> "CollectConfig":
        for name in ("urls", "path"):
            is_given = bool(getattr(self, name))
            if self.source == name and not is_given:
                raise ValueError(f"source: {name} needs {name}: to be given")
            if self.source != name and is_given:
                raise ValueError(f"{name} is given, but source is {self.source}; remove one of them")
        return self

    @property
    def paths(self) -> tuple[str, ...]:
        """`path` as a tuple."""
        return (self.path,) if isinstance(self.path, str) else self.path
