"""What a host says about crawling: robots.txt (RFC 9309) and tdmrep.json, read before its first page."""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from bessemer.collect.clock import Clock, warc_date
from bessemer.collect.crawl_config import CrawlConfig
from bessemer.collect.fetch import REDIRECTS, Exchange, Fetcher, FetchFailed, product_token
from bessemer.collect.reservations import Signal, TdmFile, parse_tdm_file
from bessemer.collect.robots_txt import RobotsTxt, parse_robots_txt
from bessemer.formats.http_message import decode_body
from bessemer.urls import canonical_url, origin_of

_MAX_ROBOTS_BYTES = 500 * 1024
"""RFC 9309, section 2.5: at least 500 KiB are read."""
_MAX_TDM_BYTES = 1 << 20
_MAX_REDIRECTS = 5
"""RFC 9309, section 2.3.1.2: at least five redirects are followed."""
_MAX_AGE_S = 24 * 3600.0
"""RFC 9309, section 2.4: a copy should not be used for longer than a day."""
_MAX_ORIGINS = 4000
"""Files are kept in memory for so many origins; those read first are read again when they are needed."""
TDM_PATH = "/.well-known/tdmrep.json"


@dataclass(frozen=True)
class Evidence:
    """A file in which a host states its wishes, as it was fetched."""

    exchange: Exchange
    date: str


@dataclass(frozen=True)
class SiteRules:
    """What one origin says to this crawler."""

    robots: RobotsTxt = field(default_factory=RobotsTxt)
    closed_reason: str | None = None
    """Why nothing is allowed at all."""
    tdm: TdmFile = field(default_factory=TdmFile)
    evidence: tuple[Evidence, ...] = ()

    def refusal(self, url: str) -> str | None:
        """Why this URL may not be fetched, None when it may."""
        if self.closed_reason is not None:
            return self.closed_reason
        return None if self.robots.is_allowed(url) else "robots.txt: disallowed"

    def signals(self, url: str) -> tuple[Signal, ...]:
        """What the host's files say about the use of this page."""
        preference = self.robots.reservation(url)
        from_robots = Signal("robots.txt", preference, True) if preference is not None else None
        return tuple(signal for signal in (from_robots, self.tdm.signal(url)) if signal is not None)


class Sites:
    """Reads each origin's files once a day, before the origin's first page."""

    def __init__(
        self,
        config: CrawlConfig,
        fetcher: Fetcher,
        clock: Clock,
        monotonic_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._config = config
        self._fetcher = fetcher
        self._clock = clock
        self._monotonic_s = monotonic_s
        self._product = product_token(config)
        self._reading: dict[str, tuple[float, asyncio.Task[SiteRules]]] = {}

    async def rules(self, url: str) -> SiteRules:
        """What the origin of this URL says."""
        origin, now_s = origin_of(url), self._monotonic_s()
        read_s, task = self._reading.get(origin, (0.0, None))
        if task is None or now_s - read_s > _MAX_AGE_S:
            task = asyncio.create_task(self._read(origin))
            self._reading.pop(origin, None)  # so that the order is that of reading
            self._reading[origin] = (now_s, task)
            self._forget_the_oldest()
        # A visitor that is cancelled must not take the others' answer with it.
        return await asyncio.shield(task)

    async def aclose(self) -> None:
        """Stop reading."""
        tasks = [task for _, task in self._reading.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _forget_the_oldest(self) -> None:
        while len(self._reading) > _MAX_ORIGINS:
            oldest = next(iter(self._reading))
            if not self._reading[oldest][1].done():
                return
            del self._reading[oldest]

    async def _read(self, origin: str) -> SiteRules:
        rules = await self._read_robots(origin) if self._config.respect_robots else SiteRules()
        if rules.refusal(origin + TDM_PATH) is not None:
            return rules
        return await self._with_tdm_file(origin, rules)

    async def _read_robots(self, origin: str) -> SiteRules:
        try:
            exchange = await self._follow(f"{origin}/robots.txt", _MAX_ROBOTS_BYTES)
        except FetchFailed as failure:
            # 429 among them: the RFC allows to go on, but a server that is busy has been asked enough.
            return SiteRules(closed_reason=f"robots.txt unreachable: {failure}")
        if exchange is None or 400 <= exchange.response.status < 500:
            return SiteRules()
        if exchange.response.status >= 500:
            return SiteRules(closed_reason=f"robots.txt unreachable: HTTP {exchange.response.status}")
        return self._understood(origin, exchange)

    def _understood(self, origin: str, exchange: Exchange) -> SiteRules:
        body = decode_body(exchange.response.headers, exchange.response.body, _MAX_ROBOTS_BYTES)
        content, is_cut = body.content, exchange.is_cut or len(body.content) == _MAX_ROBOTS_BYTES
        if body.fault and not is_cut:
            # Half a rule set must not pass for the whole: a disallow may be in the other half.
            return SiteRules(closed_reason=f"robots.txt unreachable: {body.fault}")
        if is_cut:
            content = content[: max(content.rfind(b"\n"), content.rfind(b"\r")) + 1]  # no half rule
        robots = parse_robots_txt(content.decode("utf-8", "replace"), self._product)
        evidence = (Evidence(exchange, warc_date(self._clock())),)
        delay_s = robots.crawl_delay_s or 0.0
        if delay_s > self._config.max_crawl_delay_s:
            reason = f"robots.txt: asks for a delay of {delay_s:g} s, above max_crawl_delay_s"
            return SiteRules(robots, reason, evidence=evidence)
        if delay_s:
            self._fetcher.slow_down(origin, delay_s)
        return SiteRules(robots, evidence=evidence)

    async def _with_tdm_file(self, origin: str, rules: SiteRules) -> SiteRules:
        # TDMRep, "TDM File on the Origin Server": a file that cannot be had says nothing.
        try:
            exchange = await self._follow(origin + TDM_PATH, _MAX_TDM_BYTES)
        except FetchFailed:
            return rules
        if exchange is None or exchange.response.status != 200 or exchange.is_cut:
            return rules
        body = decode_body(exchange.response.headers, exchange.response.body, _MAX_TDM_BYTES)
        tdm = parse_tdm_file(body.content)
        if not tdm.rules:
            return rules
        evidence = (*rules.evidence, Evidence(exchange, warc_date(self._clock())))
        return SiteRules(rules.robots, rules.closed_reason, tdm, evidence)

    async def _follow(self, url: str, max_bytes: int) -> Exchange | None:
        """The answer at the end of redirects; None when they lead nowhere. Raises FetchFailed."""
        for _ in range(_MAX_REDIRECTS + 1):
            exchange = await self._fetcher.fetch(url, max_bytes=max_bytes, is_cut_allowed=True)
            if exchange.response.status not in REDIRECTS:
                return exchange
            target = canonical_url(exchange.response.header("Location") or "", base=url)
            if target is None:
                return None
            url = target
        return None
