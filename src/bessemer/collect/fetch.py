"""One HTTP exchange: bounded in time and size, at most as fast as the host likes, retried when it asks.

Works on httpcore, below httpx, because an archive needs the headers and bytes as they were sent, and
the address check has to sit where connections are opened.
"""

import asyncio
import importlib.metadata
import ssl
from collections import defaultdict
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from urllib.parse import urlsplit

import httpcore

from bessemer.collect.addresses import ForbiddenAddress, GuardedBackend
from bessemer.collect.crawl_config import PROJECT_NOTE, CrawlConfig
from bessemer.collect.urls import origin_of, request_target
from bessemer.formats.http_message import HttpResponse

REDIRECTS = frozenset({301, 302, 303, 307, 308})
_RETRY_STATUSES = frozenset({429, 503})
_MAX_RETRY_AFTER_S = 60.0


class FetchFailed(Exception):
    """No usable answer. The message is the reason that crawl.jsonl gives."""

    def __init__(self, reason: str, retry_after_s: float | None = None, is_passing: bool = False) -> None:
        super().__init__(reason)
        self.retry_after_s = retry_after_s
        self.is_passing = is_passing
        """Whether another attempt may succeed."""


@dataclass(frozen=True)
class Exchange:
    """A request and its answer, as they go into the archive."""

    url: str
    request: bytes
    response: HttpResponse

    @property
    def response_block(self) -> bytes:
        """The whole response. Its body is no longer chunked, which the headers then say."""
        response = self.response
        lines = [f"HTTP/1.1 {response.status} {response.reason}"]
        for name, value in response.headers:
            is_hop = name.lower() in ("transfer-encoding", "content-length")
            lines.append(f"{'X-Crawl-' if is_hop else ''}{name}: {value}")
        lines.append(f"Content-Length: {len(response.body)}")
        return "\r\n".join(lines).encode("latin-1", "replace") + b"\r\n\r\n" + response.body


def user_agent(config: CrawlConfig) -> str:
    """The name that the crawler gives: who it is, and whom to ask."""
    if config.user_agent is not None:
        return config.user_agent
    try:
        version = importlib.metadata.version("bessemer")
    except importlib.metadata.PackageNotFoundError:  # run from a source tree
        version = "0"
    notes = f"{PROJECT_NOTE}; +{config.contact}" if config.contact else PROJECT_NOTE
    return f"bessemer/{version} ({notes})"


class Fetcher:
    """Fetches URLs under the limits of a CrawlConfig. A context manager: closes its connections."""

    def __init__(self, config: CrawlConfig) -> None:
        self._config = config
        self._user_agent = user_agent(config)
        self._slots = asyncio.Semaphore(config.max_concurrency)
        self._hosts: dict[str, _HostTurns] = defaultdict(
            lambda: _HostTurns(config.max_concurrency_per_host, config.delay_s)
        )
        self._pool = httpcore.AsyncConnectionPool(
            ssl_context=ssl.create_default_context(),
            max_connections=config.max_concurrency,
            keepalive_expiry=15.0,
            network_backend=GuardedBackend(config.resolve, config.allow_private_hosts),
        )

    async def __aenter__(self) -> "Fetcher":
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._pool.aclose()

    def slow_down(self, url: str, delay_s: float) -> None:
        """Wait at least so long between two requests to this URL's host from now on."""
        turns = self._hosts[origin_of(url)]
        turns.delay_s = max(turns.delay_s, delay_s)

    async def fetch(self, url: str, wants: Callable[[HttpResponse], str | None]) -> Exchange:
        """Get a URL, with retries. Redirects are answers, not followed.

        `wants` sees the response before its body is read and may return a reason to drop it.
        Raises FetchFailed.
        """
        attempt = 0
        while True:
            try:
                async with self._hosts[origin_of(url)].turn(), self._slots:
                    return await self._fetch_once(url, wants)
            except FetchFailed as failure:
                if not failure.is_passing or attempt >= self._config.max_retries:
                    raise
                backoff_s = self._config.retry_delay_s * 2**attempt
                self._hosts[origin_of(url)].pause(max(backoff_s, failure.retry_after_s or 0.0))
                attempt += 1

    async def _fetch_once(self, url: str, wants: Callable[[HttpResponse], str | None]) -> Exchange:
        headers = [
            ("Host", urlsplit(url).netloc),
            ("User-Agent", self._user_agent),
            ("Accept", "text/html,application/xhtml+xml,text/plain;q=0.9,*/*;q=0.1"),
            ("Accept-Encoding", "gzip, deflate"),
        ]
        lines = [f"GET {request_target(url)} HTTP/1.1", *(f"{name}: {value}" for name, value in headers)]
        request = "\r\n".join(lines).encode("latin-1", "replace") + b"\r\n\r\n"
        timeout_s = self._config.timeout_s
        timeouts = dict.fromkeys(("connect", "read", "write", "pool"), timeout_s)
        try:
            async with (
                asyncio.timeout(timeout_s),
                self._pool.stream("GET", url, headers=headers, extensions={"timeout": timeouts}) as answer,
            ):
                return Exchange(url, request, await self._read(answer, wants))
        except ForbiddenAddress as error:
            raise FetchFailed(f"private address: {error}") from error
        except (TimeoutError, httpcore.TimeoutException) as error:
            raise FetchFailed(f"timeout: no whole answer in {timeout_s:g} s", is_passing=True) from error
        except httpcore.NetworkError as error:
            raise FetchFailed(f"connection failed: {error}", is_passing=True) from error
        except (httpcore.ProtocolError, httpcore.UnsupportedProtocol) as error:
            raise FetchFailed(f"malformed answer: {error}", is_passing=True) from error

    async def _read(
        self, answer: httpcore.Response, wants: Callable[[HttpResponse], str | None]
    ) -> HttpResponse:
        headers = tuple((name.decode("latin-1"), value.decode("latin-1")) for name, value in answer.headers)
        reason = answer.extensions.get("reason_phrase", b"").decode("latin-1")
        head = HttpResponse(answer.status, reason, headers, b"")
        if head.status in _RETRY_STATUSES:
            retry_after_s = _retry_after_s(head.header("Retry-After"), head.header("Date"))
            raise FetchFailed(f"HTTP {head.status}", retry_after_s, is_passing=True)
        drop_reason = wants(head)
        if drop_reason is not None:
            raise FetchFailed(drop_reason)
        body = bytearray()
        async for chunk in answer.aiter_stream():
            body += chunk
            if len(body) > self._config.max_bytes:
                raise FetchFailed(f"too long: a body of more than {self._config.max_bytes} bytes")
        return HttpResponse(answer.status, reason, headers, bytes(body))


class _HostTurns:
    """Who may ask one host next: so many at once, and so long after the one before."""

    def __init__(self, max_concurrency: int, delay_s: float) -> None:
        self.delay_s = delay_s
        self._slots = asyncio.Semaphore(max_concurrency)
        self._next_s = 0.0

    def pause(self, seconds: float) -> None:
        """Let nobody ask for a while."""
        self._next_s = max(self._next_s, asyncio.get_running_loop().time() + seconds)

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Wait for a turn and hold it."""
        loop = asyncio.get_running_loop()
        async with self._slots:
            # Others may have moved the time on meanwhile, hence the loop.
            while (wait_s := self._next_s - loop.time()) > 0:
                await asyncio.sleep(wait_s)
            self._next_s = loop.time() + self.delay_s
            yield


def _retry_after_s(value: str | None, date: str | None) -> float | None:
    """Retry-After in seconds (RFC 9110, section 10.2.3): a number, or a date against the server's own."""
    if value is None:
        return None
    if value.isascii() and value.isdigit():
        return min(float(value), _MAX_RETRY_AFTER_S)
    try:
        wait = parsedate_to_datetime(value) - parsedate_to_datetime(date or "")
    except (TypeError, ValueError):
        return None
    return min(max(wait.total_seconds(), 0.0), _MAX_RETRY_AFTER_S)
