"""Which links a crawl follows."""

import re

from bessemer.collect.crawl_config import CrawlConfig
from bessemer.collect.frontier import Frontier
from bessemer.collect.traps import date_shape, query_shape, trap_of
from bessemer.url_sessions import without_parameters
from bessemer.urls import host_of


class Scope:
    """Which URLs belong to a crawl: those of its hosts and patterns."""

    def __init__(self, config: CrawlConfig, starting_points: list[str]) -> None:
        self._hosts = {host_of(url) for url in starting_points} if config.same_host else None
        self._include = [re.compile(pattern) for pattern in config.include]
        self._exclude = [re.compile(pattern) for pattern in config.exclude]

    def __contains__(self, url: str) -> bool:
        if self._hosts is not None and host_of(url) not in self._hosts:
            return False
        if self._include and not any(pattern.search(url) for pattern in self._include):
            return False
        return not any(pattern.search(url) for pattern in self._exclude)

    def extend(self, url: str) -> None:
        """Take in the host of a URL that a seed redirected to."""
        if self._hosts is not None:
            self._hosts.add(host_of(url))


class LinkGate:
    """Lets links of a scope into the frontier, unless they look like a trap."""

    def __init__(self, config: CrawlConfig, scope: Scope, frontier: Frontier) -> None:
        self._config = config
        self._scope = scope
        self._frontier = frontier

    def admit(self, link: str, depth: int) -> str | None:
        """Add a link to the frontier if it belongs there. Returns the trap that it looks like, if any."""
        url = without_parameters(link, self._config.strip_parameters)
        if url not in self._scope or self._frontier.knows(url):
            return None
        trap = trap_of(url, self._config.traps) or self._count_shapes(url)
        if trap is None:
            self._frontier.add(url, depth)
        return trap

    def _count_shapes(self, url: str) -> str | None:
        traps = self._config.traps
        dates = date_shape(url) if traps.max_dates else None
        if dates is not None and not self._frontier.count_shape(dates, traps.max_dates):
            return "calendar"
        query = query_shape(url) if traps.max_queries else None
        if query is not None and not self._frontier.count_shape(query, traps.max_queries):
            return "endless queries"
        return None
