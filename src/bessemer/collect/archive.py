"""The crawl's bookkeeper: takes visits in frontier order and writes records, links, failures, commits.

Everything that the output depends on is decided here, in that one order, so that it does not depend on
which answer came first, nor on how many requests ran at once.
"""

import time
from collections.abc import Mapping
from dataclasses import replace

from bessemer.collect.crawl_config import CrawlConfig
from bessemer.collect.failures import FailureLog
from bessemer.collect.fetch import REDIRECTS, Exchange
from bessemer.collect.frontier import CrawlProgress, Entry, Frontier, Kind
from bessemer.collect.recrawl import Capture, PreviousCrawl
from bessemer.collect.reservations import Signal, first_reservation
from bessemer.collect.robots import SiteRules
from bessemer.collect.scope import LinkGate, Scope
from bessemer.collect.sitemaps import Sitemap
from bessemer.collect.visit import Visit
from bessemer.formats.warc_writer import Original, Revisit, WarcWriter, sha1_digest
from bessemer.urls import authority_of, canonical_url, origin_of

_SECONDS_PER_COMMIT = 10.0
_MAX_LINKS_TRAP = "more links than max_links"


class Archive:
    """Records what became of each URL. `progress` says what the output holds."""

    def __init__(
        self,
        config: CrawlConfig,
        scope: Scope,
        frontier: Frontier,
        writer: WarcWriter,
        failures: FailureLog,
        previous: PreviousCrawl | None,
        about: Mapping[str, str],
    ) -> None:
        """`about` is said of every page, unless the page says otherwise of itself."""
        self.frontier = frontier
        self.progress: CrawlProgress = frontier.progress()
        self.given_up: set[str] = set(self.progress.hosts_given_up)
        self.num_failed = 0
        self._config = config
        self._scope = scope
        self._gate = LinkGate(config, scope, frontier)
        self._writer = writer
        self._failures = failures
        self._previous = previous
        self._about = about
        self._num_uncommitted = 0
        self._committed_s = time.monotonic()

    def add(self, entry: Entry, visit: Visit) -> None:
        """Record what became of a URL."""
        reason = self._closed_reason(entry)
        if reason is None:
            self._note_site(entry, visit.site)
            self._count_failures_in_a_row(entry, visit)
            reason = self._add_visit(entry, visit)
        if reason is not None:
            self.num_failed += 1
            self._failures.add(entry.url, reason)
        self.frontier.finish(entry)
        self._num_uncommitted += 1
        is_due = time.monotonic() - self._committed_s >= _SECONDS_PER_COMMIT
        if self._num_uncommitted >= self._config.pages_per_commit or is_due:
            self.commit()

    def commit(self) -> None:
        """Make everything so far survive a crash."""
        self.progress.warc = self._writer.sync()
        self.progress.failures_offset = self._failures.sync()
        self.frontier.commit(self.progress)
        self._num_uncommitted = 0
        self._committed_s = time.monotonic()

    def _closed_reason(self, entry: Entry) -> str | None:
        """Why nothing more is taken from a server."""
        authority = authority_of(entry.url)
        if authority in self.given_up:
            return f"host given up: {self._config.max_host_failures} failures in a row"
        limit = self._config.traps.max_pages_per_host
        if limit and entry.kind is Kind.PAGE and self.frontier.host(authority).num_pages >= limit:
            return f"host limit: {limit} pages"
        return None

    def _note_site(self, entry: Entry, site: SiteRules | None) -> None:
        """Keep what an origin states about crawling and training, once, and queue its sitemaps."""
        if site is None or not self.frontier.is_new_origin(origin_of(entry.url)):
            return
        for evidence in site.evidence:
            exchange = evidence.exchange
            content_type = "application/http; msgtype=response"
            self._writer.write_metadata(exchange.url, evidence.date, content_type, exchange.response_block)
        # Not where only a sitemap of another host led: hosts that name each other's would have no end.
        is_ours = entry.kind is Kind.PAGE or entry.url in self._scope
        is_wanted = is_ours and self._config.sitemaps and self._config.max_depth > 0
        if is_wanted and site.closed_reason is None:
            for text in site.robots.sitemaps:
                self._queue_sitemap(canonical_url(text, base=entry.url), entry)

    def _queue_sitemap(self, url: str | None, named_by: Entry) -> None:
        if url is None or self.frontier.knows(url):
            return
        # Counted for the host that names it: a robots.txt may name sitemaps of other hosts, but must not
        # send the crawler to thousands of them.
        authority = authority_of(named_by.url)
        counts = self.frontier.host(authority)
        if counts.num_sitemaps >= self._config.max_sitemaps_per_host:
            self._leave("more sitemaps than max_sitemaps_per_host")
            return
        self.frontier.set_host(authority, replace(counts, num_sitemaps=counts.num_sitemaps + 1))
        self.frontier.add(url, depth=1, kind=Kind.SITEMAP)

    def _count_failures_in_a_row(self, entry: Entry, visit: Visit) -> None:
        has_answered = visit.has_answered or visit.exchange is not None or visit.sitemap is not None
        if visit.has_answered is None and not has_answered:
            return
        authority = authority_of(entry.url)
        counts = self.frontier.host(authority)
        num_failures = 0 if has_answered else counts.num_failures + 1
        if num_failures == counts.num_failures:
            return
        self.frontier.set_host(authority, replace(counts, num_failures=num_failures))
        if 0 < self._config.max_host_failures <= num_failures:
            self.given_up.add(authority)
            self.progress.hosts_given_up.append(authority)

    def _add_visit(self, entry: Entry, visit: Visit) -> str | None:
        """Returns why there is no page, None when there is."""
        if visit.sitemap is not None:
            self._add_sitemap(entry, visit.sitemap)
            return visit.reason
        exchange = visit.exchange
        if exchange is None:
            self._note_reservation(entry, visit)
            return visit.reason or "no answer"
        if exchange.response.status in REDIRECTS:
            if entry.kind is Kind.PAGE:
                self._write_response(entry, visit, exchange)
            return self._follow_redirect(entry, exchange.response.header("Location"))
        self._add_page(entry, visit, exchange)
        return None

    def _add_page(self, entry: Entry, visit: Visit, exchange: Exchange) -> None:
        authority = authority_of(entry.url)
        counts = self.frontier.host(authority)
        self.frontier.set_host(authority, replace(counts, num_pages=counts.num_pages + 1))
        self.progress.num_pages += 1
        self.progress.num_marked += first_reservation(visit.signals) is not None
        if visit.unchanged is not None:
            self._write_not_modified(entry, visit, exchange, visit.unchanged)
            num_captures = 1
        else:
            num_captures = self._write_page(entry, visit, exchange)
        limit = self._config.traps.max_same_content
        if limit and num_captures > limit:
            self._leave("links of same content", len(visit.links))
            return
        self._follow_links(entry, visit)

    def _write_page(self, entry: Entry, visit: Visit, exchange: Exchange) -> int:
        """Write a response, or a revisit where its payload is known. Returns how often it was met."""
        body = exchange.response.body
        digest = sha1_digest(body)
        known = self.frontier.payload(digest)
        if not body or (known is None and not self._recall(digest)):
            record_id = self._write_response(entry, visit, exchange)
            if body:
                self.frontier.count_payload(digest, Original(record_id, entry.url, visit.date))
            return 1
        original, num_captures = known or self.frontier.payload(digest) or (None, 0)
        assert original is not None, "a recalled payload is known"
        self._writer.write_revisit(
            entry.url,
            visit.date,
            exchange.request,
            exchange.response_head,
            Revisit(original, digest),
            exchange.address,
        )
        self.frontier.count_payload(digest, original)
        self.progress.num_same_content += 1
        return num_captures + 1 if known else 1

    def _recall(self, digest: str) -> bool:
        """Take a payload over from the earlier crawl, if that had it."""
        capture = self._previous.payload(digest) if self._previous else None
        if capture is None:
            return False
        self._take_over(capture)
        return True

    def _write_not_modified(self, entry: Entry, visit: Visit, exchange: Exchange, capture: Capture) -> None:
        if self.frontier.payload(capture.digest) is None:
            self._take_over(capture)
        known = self.frontier.payload(capture.digest)
        original = known[0] if known else capture.original
        self._writer.write_revisit(
            entry.url,
            visit.date,
            exchange.request,
            exchange.response_head,
            Revisit(original, None),
            exchange.address,
        )
        self.progress.num_not_modified += 1

    def _take_over(self, capture: Capture) -> None:
        if self._config.unchanged == "copy":
            record = capture.record()
            self._writer.write_copy(record.headers, record.block)
        self.frontier.count_payload(capture.digest, capture.original)

    def _write_response(self, entry: Entry, visit: Visit, exchange: Exchange) -> str:
        about: dict[str, object] = dict(self._about)
        if visit.licence is not None:
            about["licence"] = visit.licence
        if visit.signals:
            about["reservations"] = [signal.as_json() for signal in visit.signals]
        return self._writer.write_exchange(
            entry.url,
            visit.date,
            exchange.request,
            exchange.response_block,
            exchange.response.body,
            exchange.address,
            about,
        )

    def _note_reservation(self, entry: Entry, visit: Visit) -> None:
        """Keep on record why a page is not in the archive, where its owner is the reason."""
        if visit.reason is None or first_reservation(visit.signals) != visit.reason:
            return
        lines = [_warc_field(signal) for signal in visit.signals]
        block = "".join([*lines, "verdict: not stored\r\n"]).encode("utf-8", "replace")
        self._writer.write_metadata(entry.url, visit.date, "application/warc-fields", block)

    def _add_sitemap(self, entry: Entry, sitemap: Sitemap) -> None:
        for text in sitemap.sitemaps:
            url = canonical_url(text, base=entry.url)
            # sitemaps.org, "Sitemap file location": an index lists sitemaps of its own site.
            if url is not None and authority_of(url) == authority_of(entry.url):
                self._queue_sitemap(url, entry)
        links = (canonical_url(text, base=entry.url) for text in sitemap.pages)
        self._admit([link for link in links if link is not None], entry.depth)

    def _follow_links(self, entry: Entry, visit: Visit) -> None:
        if entry.depth >= self._config.max_depth:
            return
        self._admit(visit.links, entry.depth + 1)
        if visit.num_links_left:
            self._leave(_MAX_LINKS_TRAP, visit.num_links_left)

    def _admit(self, links: "tuple[str, ...] | list[str]", depth: int) -> None:
        for link in links:
            trap = self._gate.admit(link, depth)
            if trap is not None:
                self._leave(trap)

    def _leave(self, trap: str, num_links: int = 1) -> None:
        if num_links:
            self.progress.links_left[trap] = self.progress.links_left.get(trap, 0) + num_links

    def _follow_redirect(self, entry: Entry, location: str | None) -> str:
        """Put the target into the frontier, where it is checked like any URL. Returns what to report."""
        target = canonical_url(location, base=entry.url) if location else None
        if target is None:
            return "redirect: to nowhere"
        if entry.kind is Kind.PAGE and target not in self._scope:
            if entry.depth > 0:
                return f"redirect out of scope: {target}"
            self._scope.extend(target)  # https://example.org is as often https://www.example.org
            if target not in self._scope:
                return f"redirect out of scope: {target}"
        if target in self.frontier.redirect_chain(entry):
            return f"redirect loop: {target}"
        if entry.num_redirects >= self._config.max_redirects:
            return f"too many redirects: {target}"
        self.frontier.add_redirect(entry, target)
        return f"redirect: {target}"


def _warc_field(signal: Signal) -> str:
    """One line of application/warc-fields."""
    policy = f"; policy {signal.policy}" if signal.policy else ""
    text = f"{signal.says}{policy}".replace("\r", " ").replace("\n", " ")
    return f"{signal.by.replace(' ', '-')}: {text}\r\n"
