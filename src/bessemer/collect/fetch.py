"""One HTTP exchange: bounded in time and size, at most as fast as the host likes, retried when it asks.

Works on httpcore, below httpx, because an archive needs the headers and bytes as they were sent, and
the address check has to sit where connections are opened.
"""

import asyncio
import importlib.metadata
import ssl
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from urllib.parse import urlsplit

import httpcore

from bessemer.collect.addresses import ForbiddenAddress, GuardedBackend
from bessemer.collect.crawl_config import PROJECT_NOTE, CrawlConfig
from bessemer.collect.politeness import HostTurns, LeaveAlone, retry_after_s
from bessemer.formats.http_message import HttpResponse
from bessemer.urls import authority_of, request_target

REDIRECTS = frozenset({301, 302, 303, 307, 308})
NOT_MODIFIED = 304
_RETRY_STATUSES = frozenset({429, 503})
_MAX_STATUS_LINE_CHARS = 200

Wants = Callable[[HttpResponse], str | None]
"""Sees a response before its body is read; returns a reason to drop it, or None."""


class FetchFailed(Exception):
    """No usable answer. The message is the reason that crawl.jsonl gives."""

    def __init__(self, reason: str, retry_after_s: float | None = None, is_passing: bool = False) -> None:
        super().__init__(reason)
        self.retry_after_s = retry_after_s
        self.is_passing = is_passing
        """Whether the server is to blame rather than the URL, so that another attempt may succeed."""


@dataclass(frozen=True)
class Exchange:
    """A request and its answer, as they go into the archive."""

    url: str
    request: bytes
    response: HttpResponse
    address: str | None = None
    """The IP address that was connected to."""
    is_cut: bool = False
    """Whether the body goes on beyond the limit it was read to."""

    @property
    def response_head(self) -> bytes:
        """The response up to its body. The body is no longer chunked, which the headers then say."""
        response = self.response
        lines = [f"HTTP/1.1 {response.status} {response.reason[:_MAX_STATUS_LINE_CHARS]}"]
        has_body = response.status != NOT_MODIFIED
        for name, value in response.headers:
            is_hop = has_body and name.lower() in ("transfer-encoding", "content-length")
            lines.append(f"{'X-Crawl-' if is_hop else ''}{name}: {value}")
        if has_body:
            lines.append(f"Content-Length: {len(response.body)}")
        return "\r\n".join(lines).encode("latin-1", "replace") + b"\r\n\r\n"

    @property
    def response_block(self) -> bytes:
        """The whole response."""
        return self.response_head + self.response.body


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


def product_token(config: CrawlConfig) -> str:
    """The crawler's name without its version: what robots.txt and X-Robots-Tag call it (RFC 9309, 2.2.1)."""
    return user_agent(config).partition("/")[0].partition(" ")[0]


class Fetcher:
    """Fetches URLs under the limits of a CrawlConfig. A context manager: closes its connections."""

    def __init__(self, config: CrawlConfig) -> None:
        self._config = config
        self._user_agent = user_agent(config)
        self._slots = asyncio.Semaphore(config.max_concurrency)
        self._hosts: dict[str, HostTurns] = {}
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
        self._turns_of(url).slow_down(delay_s)

    async def fetch(
        self,
        url: str,
        wants: Wants = lambda _: None,
        max_bytes: int | None = None,
        is_cut_allowed: bool = False,
        headers: Iterable[tuple[str, str]] = (),
    ) -> Exchange:
        """Get a URL, with retries. Redirects are answers, not followed.

        A body of more than `max_bytes` (default: the config's) fails, or is cut there if `is_cut_allowed`.
        `headers` are sent beside the usual ones. Raises FetchFailed.
        """
        turns = self._turns_of(url)
        limit = self._config.max_bytes if max_bytes is None else max_bytes
        last_reason = ""
        for attempt in range(self._config.max_retries + 1):
            try:
                async with turns.turn(), self._slots:
                    exchange = await self._fetch_once(url, wants, limit, is_cut_allowed, headers)
            except LeaveAlone as request:
                reason = f"{last_reason}; the host {request}" if last_reason else f"host paused: it {request}"
                raise FetchFailed(reason, is_passing=True) from request
            except FetchFailed as failure:
                if not failure.is_passing:
                    turns.note_success()
                    raise
                turns.note_failure(failure.retry_after_s)
                last_reason = str(failure)
                if attempt == self._config.max_retries:
                    raise
            else:
                turns.note_success()
                return exchange
        raise AssertionError("the last attempt returns or raises")

    def _turns_of(self, url: str) -> HostTurns:
        authority = authority_of(url)
        if authority not in self._hosts:
            self._hosts[authority] = HostTurns(self._config)
        return self._hosts[authority]

    async def _fetch_once(
        self,
        url: str,
        wants: Wants,
        limit: int,
        is_cut_allowed: bool,
        more_headers: Iterable[tuple[str, str]],
    ) -> Exchange:
        headers = [
            ("Host", urlsplit(url).netloc),
            ("User-Agent", self._user_agent),
            ("Accept", "text/html,application/xhtml+xml,text/plain;q=0.9,*/*;q=0.1"),
            ("Accept-Encoding", "gzip, deflate"),
            *more_headers,
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
                response, is_cut = await _read(answer, wants, limit, is_cut_allowed)
                return Exchange(url, request, response, _address_of(answer), is_cut)
        except ForbiddenAddress as error:
            raise FetchFailed(f"private address: {error}") from error
        except (TimeoutError, httpcore.TimeoutException) as error:
            raise FetchFailed(f"timeout: no whole answer in {timeout_s:g} s", is_passing=True) from error
        except (httpcore.NetworkError, ssl.SSLError, OSError) as error:
            raise FetchFailed(f"connection failed: {error}", is_passing=True) from error
        except (httpcore.ProtocolError, httpcore.UnsupportedProtocol) as error:
            raise FetchFailed(f"malformed answer: {error}", is_passing=True) from error


async def _read(
    answer: httpcore.Response, wants: Wants, limit: int, is_cut_allowed: bool
) -> tuple[HttpResponse, bool]:
    headers = tuple((name.decode("latin-1"), value.decode("latin-1")) for name, value in answer.headers)
    reason = answer.extensions.get("reason_phrase", b"").decode("latin-1")
    head = HttpResponse(answer.status, reason, headers, b"")
    if head.status in _RETRY_STATUSES:
        after_s = retry_after_s(head.header("Retry-After"), head.header("Date"))
        raise FetchFailed(f"HTTP {head.status}", after_s, is_passing=True)
    drop_reason = wants(head)
    if drop_reason is not None:
        raise FetchFailed(drop_reason)
    length = (head.header("Content-Length") or "").strip()
    if not is_cut_allowed and length.isascii() and length.isdigit() and int(length[:20]) > limit:
        raise FetchFailed(f"too long: a body of more than {limit} bytes")
    body = bytearray()
    async for chunk in answer.aiter_stream():
        body += chunk
        if len(body) > limit and is_cut_allowed:
            return HttpResponse(answer.status, reason, headers, bytes(body[:limit])), True
        if len(body) > limit:
            raise FetchFailed(f"too long: a body of more than {limit} bytes")
    return HttpResponse(answer.status, reason, headers, bytes(body)), False


def _address_of(answer: httpcore.Response) -> str | None:
    stream = answer.extensions.get("network_stream")
    server = stream.get_extra_info("server_addr") if stream is not None else None
    return str(server[0]) if server else None
