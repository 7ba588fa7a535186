"""robots.txt, as RFC 9309 (Robots Exclusion Protocol) reads it."""

import asyncio
from dataclasses import dataclass

from protego import Protego

from bessemer.collect.crawl_config import CrawlConfig
from bessemer.collect.fetch import REDIRECTS, Fetcher, FetchFailed, user_agent
from bessemer.collect.urls import canonical_url, origin_of
from bessemer.formats.http_message import decode_body

_MAX_ROBOTS_BYTES = 500 * 1024
"""RFC 9309, section 2.5: at least 500 KiB are read."""
_MAX_REDIRECTS = 5
"""RFC 9309, section 2.3.1.2."""


@dataclass(frozen=True)
class RobotsRules:
    """What one host's robots.txt says to this crawler."""

    rules: Protego | None
    """None when there is no robots.txt, so that everything is allowed."""
    closed_reason: str | None = None
    """Why nothing is allowed at all."""

    def refusal(self, url: str, product: str) -> str | None:
        """Why this URL may not be fetched, None when it may."""
        if self.closed_reason is not None:
            return self.closed_reason
        if self.rules is not None and not self.rules.can_fetch(url, product):
            return "robots.txt: disallowed"
        return None


class Robots:
    """Fetches each host's robots.txt once, before the host's first page."""

    def __init__(self, config: CrawlConfig, fetcher: Fetcher) -> None:
        self._config = config
        self._fetcher = fetcher
        # RFC 9309, section 2.2.1: groups are matched by the product token, without its version.
        self._product = user_agent(config).partition("/")[0].partition(" ")[0]
        self._tasks: dict[str, asyncio.Task[RobotsRules]] = {}

    async def refusal(self, url: str) -> str | None:
        """Why this URL may not be fetched, None when it may."""
        if not self._config.respect_robots:
            return None
        origin = origin_of(url)
        if origin not in self._tasks:
            self._tasks[origin] = asyncio.create_task(self._read(origin))
        return (await self._tasks[origin]).refusal(url, self._product)

    async def _read(self, origin: str) -> RobotsRules:
        rules = await self._fetch(f"{origin}/robots.txt")
        delay_s = rules.rules.crawl_delay(self._product) if rules.rules else None
        if delay_s is not None and delay_s > self._config.max_crawl_delay_s:
            return RobotsRules(
                None, f"robots.txt: asks for a delay of {delay_s:g} s, above max_crawl_delay_s"
            )
        if delay_s is not None:
            self._fetcher.slow_down(origin, delay_s)
        return rules

    async def _fetch(self, url: str) -> RobotsRules:
        for _ in range(_MAX_REDIRECTS + 1):
            try:
                response = (await self._fetcher.fetch(url, lambda _: None)).response
            except FetchFailed as failure:
                return RobotsRules(None, f"robots.txt unreachable: {failure}")
            if response.status in REDIRECTS:
                target = canonical_url(response.header("Location") or "", base=url)
                if target is None:
                    return RobotsRules(None)
                url = target
                continue
            if response.status >= 500:
                return RobotsRules(None, f"robots.txt unreachable: HTTP {response.status}")
            if response.status >= 400:
                return RobotsRules(None)
            body = decode_body(response.headers, response.body, _MAX_ROBOTS_BYTES)
            if body.fault and len(body.content) < _MAX_ROBOTS_BYTES:
                # Half a rule set must not pass for the whole: a disallow may be in the other half.
                return RobotsRules(None, f"robots.txt unreachable: {body.fault}")
            return RobotsRules(Protego.parse(body.content.decode("utf-8", "replace")))
        return RobotsRules(None)
