"""Who may ask one server next, and when: turns, delays, and pauses after failures."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from bessemer.collect.crawl_config import CrawlConfig

_MAX_DOUBLINGS = 30


class LeaveAlone(Exception):
    """The server asked for a longer pause than the crawl can wait."""

    def __init__(self, pause_s: float) -> None:
        super().__init__(f"asks to be left alone for {pause_s:.0f} s")


class HostTurns:
    """The turns of one server: so many requests at once, so long after the one before, and a pause that
    doubles with every failure in a row."""

    def __init__(self, config: CrawlConfig) -> None:
        self.delay_s = config.delay_s
        self._config = config
        self._slots = asyncio.Semaphore(config.max_concurrency_per_host)
        self._next_s = 0.0
        self._paused_until_s = 0.0
        self._num_failures = 0

    def slow_down(self, delay_s: float) -> None:
        """Keep at least this delay from now on, also after the request that was made last."""
        if delay_s > self.delay_s:
            self._next_s += delay_s - self.delay_s
            self.delay_s = delay_s

    def note_failure(self, retry_after_s: float | None) -> None:
        """Pause everyone: the server is overloaded, down, or asked for it."""
        doublings = min(self._num_failures, _MAX_DOUBLINGS)
        pause_s = min(self._config.retry_delay_s * 2**doublings, self._config.max_retry_delay_s)
        self._num_failures += 1
        until_s = asyncio.get_running_loop().time() + max(pause_s, retry_after_s or 0.0)
        self._paused_until_s = max(self._paused_until_s, until_s)

    def note_success(self) -> None:
        """The server answers: the next failure is the first again."""
        self._num_failures = 0

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Wait for a turn and hold it. Raises LeaveAlone."""
        loop = asyncio.get_running_loop()
        async with self._slots:
            # Others may have moved the times on meanwhile, hence the loop.
            while True:
                pause_s = self._paused_until_s - loop.time()
                if pause_s > self._config.max_retry_delay_s:
                    raise LeaveAlone(pause_s)
                wait_s = max(pause_s, self._next_s - loop.time())
                if wait_s <= 0:
                    break
                await asyncio.sleep(wait_s)
            self._next_s = loop.time() + self.delay_s
            yield


def retry_after_s(value: str | None, date: str | None) -> float | None:
    """Retry-After in seconds (RFC 9110, section 10.2.3): a number, or a date.

    A date is held against the server's own clock, or ours where the server does not give its time.
    None when there is none, or when it cannot be understood.
    """
    if value is None:
        return None
    value = value.strip()
    if value.isascii() and value.isdigit():
        return float(value[:12])
    until = _parse_date(value)
    if until is None:
        return None
    now = _parse_date(date or "") or datetime.now(UTC)
    return max((until - now).total_seconds(), 0.0)


def _parse_date(value: str) -> datetime | None:
    try:
        date = parsedate_to_datetime(value)
    except (TypeError, ValueError):
        return None
    return date if date.tzinfo else date.replace(tzinfo=UTC)
