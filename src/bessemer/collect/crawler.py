"""The crawl: breadth-first from seed URLs, many requests at once, one order of records.

URLs are fetched concurrently but processed strictly in frontier order, so the archive does not depend
on which answer came first. Every stretch of pages is committed as one: archive and failure log are
synced, then the frontier's transaction records how long they are. After kill -9 both files are cut
back to the last commit and the crawl goes on from there.
"""

import asyncio
import re
import time
from collections import deque
from dataclasses import dataclass

from bessemer.collect.clock import Clock, warc_date
from bessemer.collect.crawl_config import CrawlConfig
from bessemer.collect.failures import FailureLog
from bessemer.collect.fetch import REDIRECTS, Exchange, Fetcher, FetchFailed, user_agent
from bessemer.collect.frontier import CrawlProgress, Entry, Frontier
from bessemer.collect.links import extract_links, media_type
from bessemer.collect.robots import Robots
from bessemer.collect.urls import canonical_url, host_of
from bessemer.errors import ConfigError
from bessemer.formats.http_message import HttpResponse, decode_body
from bessemer.formats.warc_writer import WarcHead, WarcWriter
from bessemer.runner.context import StageContext

_SECONDS_PER_COMMIT = 10.0
_WINDOW_PER_SLOT = 4
"""URLs under way for each request in flight, so that one slow host does not hold the others up."""


@dataclass(frozen=True)
class CrawlPlan:
    """What to crawl, beside how."""

    seeds: tuple[str, ...]
    max_pages: int | None
    max_file_bytes: int
    head: WarcHead
    clock: Clock


@dataclass(frozen=True)
class _Fetched:
    """What became of one URL: an exchange, or the reason for there being none."""

    exchange: Exchange | None
    content: bytes
    """The decoded body."""
    date: str
    reason: str | None = None


def crawl(config: CrawlConfig, plan: CrawlPlan, context: StageContext) -> CrawlProgress:
    """Crawl into WARC files under the context's output; continues what an earlier attempt committed.

    Raises ConfigError when a seed is no http(s) URL.
    """
    seeds = [canonical_url(seed) for seed in plan.seeds]
    bad = [seed for seed, canonical in zip(plan.seeds, seeds, strict=True) if canonical is None]
    if bad:
        raise ConfigError(f"not http(s) URLs: {', '.join(map(repr, bad))}; write them as https://host/path")
    return asyncio.run(_crawl(config, plan, [seed for seed in seeds if seed], context))


def warc_head(config: CrawlConfig, date: str, description: str) -> WarcHead:
    """The first record of each file of a collection."""
    robots = "obey" if config.respect_robots else "ignore"
    agent = user_agent(config)
    return WarcHead(
        date,
        {
            "software": agent.partition(" ")[0],
            "description": description,
            "http-header-user-agent": agent,
            "robots": robots,
        },
    )


async def _crawl(
    config: CrawlConfig, plan: CrawlPlan, seeds: list[str], context: StageContext
) -> CrawlProgress:
    with Frontier(context.scratch / "frontier.sqlite") as frontier:
        progress = frontier.progress()
        frontier.add(seeds, depth=0)
        with (
            FailureLog(context.output, progress.failures_offset) as failures,
            WarcWriter(context.output, plan.head, plan.max_file_bytes, progress.warc) as writer,
        ):
            archive = _Archive(config, Scope(config, seeds), frontier, writer, failures, progress.num_pages)
            async with Fetcher(config) as fetcher:
                await _run(config, plan, archive, fetcher, context)
            archive.commit()
            return frontier.progress()


async def _run(
    config: CrawlConfig, plan: CrawlPlan, archive: "_Archive", fetcher: Fetcher, context: StageContext
) -> None:
    """Keep a window of URLs under way and hand what came of them to the archive in frontier order."""
    robots = Robots(config, fetcher)
    window: deque[tuple[Entry, asyncio.Task[_Fetched]]] = deque()
    window_size = config.max_concurrency * _WINDOW_PER_SLOT
    last_id = 0
    with context.progress("crawl", total=plan.max_pages, unit="pages") as shown:
        try:
            while plan.max_pages is None or archive.num_pages < plan.max_pages:
                for entry in archive.frontier.pending(last_id, window_size - len(window)):
                    window.append((entry, asyncio.create_task(_visit(entry, config, plan, robots, fetcher))))
                    last_id = entry.id
                if not window:
                    return
                entry, task = window.popleft()
                archive.add(entry, await task)
                shown.set(archive.num_pages, waiting=len(window), failed=archive.num_failed)
        finally:
            for _, task in window:
                task.cancel()
            await asyncio.gather(*(task for _, task in window), return_exceptions=True)


async def _visit(
    entry: Entry, config: CrawlConfig, plan: CrawlPlan, robots: Robots, fetcher: Fetcher
) -> _Fetched:
    date = warc_date(plan.clock())
    refusal = await robots.refusal(entry.url)
    if refusal is not None:
        return _Fetched(None, b"", date, refusal)
    try:
        exchange = await fetcher.fetch(entry.url, lambda head: _drop_reason(head, config))
    except FetchFailed as failure:
        return _Fetched(None, b"", date, str(failure))
    date = warc_date(plan.clock())
    decoded = decode_body(exchange.response.headers, exchange.response.body, config.max_decoded_bytes)
    if decoded.fault is not None:
        return _Fetched(None, b"", date, f"bad body: {decoded.fault}")
    return _Fetched(exchange, decoded.content, date)


def _drop_reason(head: HttpResponse, config: CrawlConfig) -> str | None:
    """Why a response is not worth its body."""
    if head.status in REDIRECTS:
        return None
    if head.status != 200:
        return f"HTTP {head.status}"
    if media_type(head) not in config.content_types:
        return f"content type: {media_type(head) or 'none given'}"
    length = head.header("Content-Length") or ""
    if length.isdigit() and int(length) > config.max_bytes:
        return f"too long: a body of more than {config.max_bytes} bytes"
    return None


class Scope:
    """Which URLs belong to a crawl."""

    def __init__(self, config: CrawlConfig, seeds: list[str]) -> None:
        self._hosts = {host_of(seed) for seed in seeds} if config.same_host else None
        self._include = [re.compile(pattern) for pattern in config.include]
        self._exclude = [re.compile(pattern) for pattern in config.exclude]

    def __contains__(self, url: str) -> bool:
        if self._hosts is not None and host_of(url) not in self._hosts:
            return False
        if self._include and not any(pattern.search(url) for pattern in self._include):
            return False
        return not any(pattern.search(url) for pattern in self._exclude)


class _Archive:
    """Takes outcomes in frontier order: records, links, failures, and commits."""

    def __init__(
        self,
        config: CrawlConfig,
        scope: Scope,
        frontier: Frontier,
        writer: WarcWriter,
        failures: FailureLog,
        num_pages: int,
    ) -> None:
        self.frontier = frontier
        self.num_pages = num_pages
        self.num_failed = 0
        self._config = config
        self._scope = scope
        self._writer = writer
        self._failures = failures
        self._num_uncommitted = 0
        self._committed_s = time.monotonic()

    def add(self, entry: Entry, fetched: _Fetched) -> None:
        """Record what became of a URL."""
        reason = fetched.reason
        if fetched.exchange is not None:
            exchange = fetched.exchange
            body = exchange.response.body
            self._writer.write_exchange(
                entry.url, fetched.date, exchange.request, exchange.response_block, body
            )
            if exchange.response.status in REDIRECTS:
                reason = self._follow_redirect(entry, exchange.response.header("Location"))
            else:
                self.num_pages += 1
                self._follow_links(entry, exchange.response, fetched.content)
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
        position, failures_offset = self._writer.sync(), self._failures.sync()
        self.frontier.commit(CrawlProgress(self.num_pages, failures_offset, position))
        self._num_uncommitted = 0
        self._committed_s = time.monotonic()

    def _follow_links(self, entry: Entry, response: HttpResponse, content: bytes) -> None:
        if entry.depth >= self._config.max_depth:
            return
        follow_all = not self._config.respect_robots
        links = extract_links(entry.url, response, content, follow_all)
        self.frontier.add((link for link in links if link in self._scope), entry.depth + 1)

    def _follow_redirect(self, entry: Entry, location: str | None) -> str:
        """Put the target into the frontier, where it is checked like any URL. Returns what to report."""
        target = canonical_url(location, base=entry.url) if location else None
        if target is None:
            return "redirect: to nowhere"
        if target not in self._scope:
            return f"redirect out of scope: {target}"
        if target in self.frontier.redirect_chain(entry):
            return f"redirect loop: {target}"
        if entry.num_redirects >= self._config.max_redirects:
            return f"too many redirects: {target}"
        self.frontier.add_redirect(entry, target)
        return f"redirect: {target}"
