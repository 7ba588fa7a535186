"""What becomes of one URL: its host's rules, the fetch, and a first look at the answer.

A visit changes nothing but times: whatever it finds goes to the archive, which takes visits in order.
"""

from dataclasses import dataclass

from bessemer.collect.clock import Clock, warc_date
from bessemer.collect.crawl_config import CrawlConfig
from bessemer.collect.fetch import NOT_MODIFIED, REDIRECTS, Exchange, Fetcher, FetchFailed, product_token
from bessemer.collect.frontier import Entry, Kind
from bessemer.collect.links import PageMarkup, media_type, read_markup
from bessemer.collect.recrawl import Capture, PreviousCrawl
from bessemer.collect.reservations import Signal, first_reservation, header_statements, meta_statements
from bessemer.collect.robots import SiteRules, Sites
from bessemer.collect.sitemaps import MAX_SITEMAP_BYTES, Sitemap, parse_sitemap
from bessemer.errors import ConfigError
from bessemer.formats.http_message import HttpResponse, decode_body
from bessemer.urls import authority_of


@dataclass(frozen=True)
class Visit:
    """What became of one URL."""

    date: str
    site: SiteRules | None = None
    exchange: Exchange | None = None
    """None where nothing was fetched, or nothing that is to be stored."""
    reason: str | None = None
    """Why there is no page."""
    has_answered: bool | None = None
    """Whether the server answered; None where it was not asked."""
    signals: tuple[Signal, ...] = ()
    """What the owner says about the page's use."""
    links: tuple[str, ...] = ()
    num_links_left: int = 0
    licence: str | None = None
    """What the page says its licence is: a URL."""
    sitemap: Sitemap | None = None
    unchanged: Capture | None = None
    """The earlier capture that still holds, where the server said so."""

    @property
    def num_bytes(self) -> int:
        """About how much memory it takes."""
        body = len(self.exchange.response.body) if self.exchange else 0
        urls = self.links if self.sitemap is None else self.sitemap.pages
        return body + 150 * len(urls) + 2000


class Visitor:
    """Makes visits under the rules of a CrawlConfig."""

    def __init__(
        self,
        config: CrawlConfig,
        clock: Clock,
        fetcher: Fetcher,
        sites: Sites,
        previous: PreviousCrawl | None,
        given_up: set[str],
    ) -> None:
        self._config = config
        self._clock = clock
        self._fetcher = fetcher
        self._sites = sites
        self._previous = previous
        self._product = product_token(config)
        self._given_up = given_up
        """Servers that the archive gave up; it refuses whatever a visit to them brings."""

    async def visit(self, entry: Entry) -> Visit:
        """Visit a URL. Never raises for what a server does."""
        if authority_of(entry.url) in self._given_up:
            return Visit(self._now(), reason="host given up")
        site = await self._sites.rules(entry.url)
        refusal = site.refusal(entry.url)
        if refusal is not None:
            return Visit(self._now(), site, reason=refusal)
        if entry.kind is Kind.SITEMAP:
            return await self._visit_sitemap(entry, site)
        signals = site.signals(entry.url)
        reservation = self._reservation(signals)
        if reservation is not None:
            return Visit(self._now(), site, reason=reservation, signals=signals)
        return await self._visit_page(entry, site, signals)

    async def _visit_sitemap(self, entry: Entry, site: SiteRules) -> Visit:
        try:
            exchange = await self._fetcher.fetch(entry.url, _sitemap_drop_reason, MAX_SITEMAP_BYTES)
        except FetchFailed as failure:
            return Visit(self._now(), site, reason=str(failure), has_answered=not failure.is_passing)
        response = exchange.response
        if response.status in REDIRECTS:
            return Visit(self._now(), site, exchange)
        sitemap = parse_sitemap(response.headers, response.body, self._config.max_sitemap_urls)
        reason = f"sitemap: {sitemap.fault}" if sitemap.fault else None
        return Visit(self._now(), site, reason=reason, sitemap=sitemap)

    async def _visit_page(self, entry: Entry, site: SiteRules, signals: tuple[Signal, ...]) -> Visit:
        capture = self._previous.capture(entry.url) if self._previous else None
        conditions = capture.conditions if capture else []
        said: list[Signal] = []

        def drop_reason(head: HttpResponse) -> str | None:
            said[:] = header_statements(head.headers, self._product).signals
            if head.status in REDIRECTS:
                return None  # where it leads is judged by what is there
            if head.status == NOT_MODIFIED and conditions:
                return self._reservation(said)
            return _page_drop_reason(head, self._config) or self._reservation(said)

        try:
            exchange = await self._fetcher.fetch(entry.url, drop_reason, headers=conditions)
        except FetchFailed as failure:
            told = (*signals, *said)
            return Visit(self._now(), site, None, str(failure), not failure.is_passing, told)
        signals = (*signals, *said)
        if exchange.response.status in REDIRECTS:
            return Visit(self._now(), site, exchange, signals=signals)
        if exchange.response.status == NOT_MODIFIED and capture is not None:
            return self._unchanged(entry, site, exchange, capture, signals)
        return self._read(entry, site, exchange, signals)

    def _read(self, entry: Entry, site: SiteRules, exchange: Exchange, signals: tuple[Signal, ...]) -> Visit:
        """A page as it came."""
        response = exchange.response
        decoded = decode_body(response.headers, response.body, self._config.max_decoded_bytes)
        if decoded.fault is not None:
            return Visit(self._now(), site, reason=f"bad body: {decoded.fault}")
        return self._judged(entry, site, exchange, response, decoded.content, signals, None)

    def _unchanged(
        self, entry: Entry, site: SiteRules, exchange: Exchange, capture: Capture, signals: tuple[Signal, ...]
    ) -> Visit:
        """A page that the server says has not changed: its links are those of the earlier capture."""
        record = capture.record()
        if record.http is None:
            raise ConfigError(f"{capture.path} at {capture.offset} holds no HTTP response any more")
        content = record.payload(self._config.max_decoded_bytes).content
        return self._judged(entry, site, exchange, record.http, content, signals, capture)

    def _judged(
        self,
        entry: Entry,
        site: SiteRules,
        exchange: Exchange,
        response: HttpResponse,
        content: bytes,
        signals: tuple[Signal, ...],
        unchanged: Capture | None,
    ) -> Visit:
        markup, told, is_nofollow = self._markup(entry, response, content)
        signals = (*signals, *told)
        reservation = self._reservation(signals)
        if reservation is not None:
            return Visit(self._now(), site, reason=reservation, signals=signals)
        links = () if is_nofollow else markup.links
        return Visit(
            self._now(),
            site,
            exchange,
            signals=signals,
            links=links,
            num_links_left=markup.num_links_left,
            licence=markup.licence,
            unchanged=unchanged,
        )

    def _markup(
        self, entry: Entry, response: HttpResponse, content: bytes
    ) -> tuple[PageMarkup, tuple[Signal, ...], bool]:
        """Links, what the meta elements say about use, and whether links may not be followed."""
        follow_all = not self._config.respect_robots
        markup = read_markup(entry.url, response, content, follow_all, self._config.traps.max_links)
        in_page = meta_statements(markup.metas, self._product)
        in_head = header_statements(response.headers, self._product)
        return markup, in_page.signals, not follow_all and (in_page.is_nofollow or in_head.is_nofollow)

    def _reservation(self, signals: "tuple[Signal, ...] | list[Signal]") -> str | None:
        return first_reservation(signals) if self._config.respect_reservations else None

    def _now(self) -> str:
        return warc_date(self._clock())


def _page_drop_reason(head: HttpResponse, config: CrawlConfig) -> str | None:
    """Why a response is not worth its body."""
    if head.status != 200:
        return f"HTTP {head.status}"
    if media_type(head) not in config.content_types:
        return f"content type: {media_type(head) or 'none given'}"
    return None


def _sitemap_drop_reason(head: HttpResponse) -> str | None:
    return None if head.status == 200 or head.status in REDIRECTS else f"HTTP {head.status}"
