"""How politely a crawl behaves, and what bounds it."""

import re
from typing import Literal

from pydantic import Field, field_validator

from bessemer.config import Bytes, Config, Count, Seconds

PROJECT_NOTE = "language-model corpus crawler; obeys robots.txt"
DEFAULT_MAX_PAGES = 10_000
"""Bound of a crawl that names none: a typing error in a seed must not fetch the web."""
_HEADER_TEXT = re.compile(r"[\x20-\x7e]*")


class TrapConfig(Config):
    """Bounds on URLs that a site can make without end. 0 switches a bound off."""

    max_path_segments: int = Field(default=20, ge=0)
    """A link with more is not followed (Heritrix, TooManyPathSegmentsDecideRule: 20)."""
    max_repeats: int = Field(default=2, ge=0)
    """A link whose path repeats a segment, or a row of segments, more often in a row is not followed
    (Heritrix, PathologicalPathDecideRule: 2)."""
    max_query_parameters: int = Field(default=12, ge=0)
    """A link with more parameters in its query is not followed."""
    max_dates: int = Field(default=400, ge=0)
    """URLs of one host that differ in nothing but their dates: calendars, daily archives."""
    max_queries: int = Field(default=2000, ge=0)
    """URLs of one host that differ in nothing but their queries."""
    max_same_content: int = Field(default=3, ge=0)
    """Links are followed from so many pages with the same bytes."""
    max_links: int = Field(default=50_000, ge=0)
    """Links taken from one page."""
    max_pages_per_host: Count = Field(default=0, ge=0)
    """Pages stored from one host; off by default, as a crawl may be of one host."""


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
    """Links from a seed; 0 fetches the seeds alone. Pages that a sitemap names have depth 1."""
    max_redirects: int = Field(default=5, ge=0)
    """Redirects followed in a row."""
    max_retries: int = Field(default=3, ge=0)
    """Further attempts after 429, 503 and failed connections."""
    retry_delay_s: Seconds = Field(default=1.0, ge=0)
    """Pause of a host after a failure, doubled with each failure in a row; Retry-After wins when longer."""
    max_retry_delay_s: Seconds = Field(default=120.0, ge=0)
    """Longest such pause. A host that asks for more is left alone until then: what is due there fails."""
    max_host_failures: int = Field(default=10, ge=0)
    """A host is given up when so many of its URLs in a row could not be fetched; 0 never gives up."""
    pages_per_commit: int = Field(default=100, ge=1)
    """A killed crawl continues from the last multiple of this, or from 10 s before."""
    same_host: bool = True
    """Stay on the hosts of the seeds, and on those that a seed redirects to."""
    include: tuple[str, ...] = ()
    """Regular expressions; when given, a link is followed only if one is found in its URL."""
    exclude: tuple[str, ...] = ()
    """Regular expressions; a link is not followed if one is found in its URL."""
    strip_parameters: tuple[str, ...] = ()
    """Names of further query parameters that name a visit, not a page (`ref`, `track_*`); cut from links."""
    content_types: tuple[str, ...] = ("text/html", "application/xhtml+xml", "text/plain")
    """Everything else is dropped before its body is read."""
    respect_robots: bool = True
    """Obey robots.txt (RFC 9309) and nofollow marks. Switch it off for your own hosts only."""
    respect_reservations: bool = True
    """Store no page whose owner reserves it from training: noai, TDMRep, Content-Usage, Content-Signal.
    Switched off, such pages are stored and marked."""
    sitemaps: bool = True
    """Follow the sitemaps that a host's robots.txt names."""
    max_sitemaps_per_host: int = Field(default=100, ge=0)
    """Sitemap files read that one host names, indexes included."""
    max_sitemap_urls: Count = Field(default=50_000, ge=0)
    """URLs taken from one sitemap file; the protocol allows 50,000."""
    previous: str | tuple[str, ...] = ()
    """Folders with the WARC files of earlier crawls. Pages are then asked for only if they changed."""
    unchanged: Literal["copy", "refer"] = "copy"
    """An unchanged page gets a revisit record; `copy` puts the earlier capture in front of it, so that
    this crawl can be read alone, `refer` leaves it where it is."""
    traps: TrapConfig = TrapConfig()
    """Bounds on URLs without end."""
    allow_private_hosts: bool = False
    """Also fetch from loopback, private and link-local addresses."""
    resolve: dict[str, str] = Field(default={})
    """Host name → `ADDRESS:PORT` to connect to instead, as curl's --resolve; may be a private address."""

    @property
    def previous_folders(self) -> tuple[str, ...]:
        """`previous` as a tuple."""
        return (self.previous,) if isinstance(self.previous, str) else self.previous

    @field_validator("user_agent", "contact")
    @classmethod
    def _fits_a_header(cls, text: str | None) -> str | None:
        # RFC 9110, section 5.5: a field value is visible ASCII; anything else never reaches the server whole.
        if text is not None and not _HEADER_TEXT.fullmatch(text):
            raise ValueError(
                f"{text!r} is sent in a header, which holds printable ASCII alone; "
                "write a web address in its xn-- form, a name without accents"
            )
        return text

    @field_validator("user_agent")
    @classmethod
    def _names_a_crawler(cls, text: str | None) -> str | None:
        if text is not None and not re.match(r"[^\s/]", text):
            raise ValueError("must begin with the crawler's name, which robots.txt is searched for")
        return text

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
            if host != host.lower() or not re.fullmatch(r"[^\s/:]+|[0-9a-f.]*:[0-9a-f:.]+", host):
                raise ValueError(
                    f"resolve {host!r}: expected a host's name in small letters, without scheme, port or path"
                )
            if not re.fullmatch(r".+:\d{1,5}", target):
                raise ValueError(f"resolve {host!r}: expected ADDRESS:PORT, got {target!r}")
        return resolve
