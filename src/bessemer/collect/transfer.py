"""Downloads from servers of data sets: one request at a time, back-off, resume, verified files.

Unlike the crawler, which asks many strangers for small pages, this asks one server for large files. What
a server says in 429 and 503 is obeyed, waits grow with chance in them so that many clients do not come
back at once, and a transfer that broke goes on where it stopped.
"""

import asyncio
import random
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import TypeVar
from urllib.parse import urljoin, urlsplit

import httpcore

from bessemer.collect.addresses import ForbiddenAddress, GuardedBackend
from bessemer.collect.config import CrawlConfig
from bessemer.collect.fetch import user_agent
from bessemer.errors import BessemerError
from bessemer.formats.http_message import Headers, header_value

Pause = Callable[[float], Awaitable[None]]
_T = TypeVar("_T")
_PASSING_STATUSES = frozenset({408, 425, 429, 500, 502, 503, 504})
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_MAX_REDIRECTS = 5
_MAX_RETRY_AFTER_S = 3600.0


class Refused(Exception):
    """The server does not give this, however often it is asked. The message is the reason in words."""

    def __init__(self, reason: str, status: int = 0, body: bytes = b"") -> None:
        super().__init__(reason)
        self.status = status
        self.body = body


class Interrupted(Exception):
    """A transfer that may go well next time."""

    def __init__(self, reason: str, retry_after_s: float = 0.0) -> None:
        super().__init__(reason)
        self.retry_after_s = retry_after_s


class Progressed(Interrupted):
    """A transfer that brought something before it broke: its attempts are counted anew."""


@dataclass(frozen=True)
class TransferLimits:
    """How patient a transfer is."""

    max_retries: int
    retry_delay_s: float
    max_retry_delay_s: float
    read_timeout_s: float


@dataclass(frozen=True)
class Answer:
    """A response that began well; `chunks` gives its body."""

    status: int
    headers: Headers
    chunks: AsyncIterator[bytes]

    def header(self, name: str) -> str | None:
        """The first value of a header, its name in any case."""
        return header_value(self.headers, name)


class Transfer:
    """One connection at a time to servers of data sets. An async context manager.

    `pause` waits (injected by tests); `seed` decides the chance in waits.
    """

    def __init__(
        self, config: CrawlConfig, limits: TransferLimits, seed: int, pause: Pause = asyncio.sleep
    ) -> None:
        self._limits = limits
        self._pause = pause
        self._random = random.Random(seed)
        self._user_agent = user_agent(config)
        self._asked_s = -1e9
        self._pool = httpcore.AsyncConnectionPool(
            ssl_context=ssl.create_default_context(),
            max_connections=1,
            keepalive_expiry=15.0,
            network_backend=GuardedBackend(config.resolve, config.allow_private_hosts),
        )

    async def __aenter__(self) -> "Transfer":
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._pool.aclose()

    async def pace(self, delay_s: float) -> None:
        """Wait until so long after the last request."""
        now_s = asyncio.get_running_loop().time()
        if self._asked_s + delay_s > now_s:
            await self._pause(self._asked_s + delay_s - now_s)

    async def get(
        self, url: str, max_bytes: int, headers: Mapping[str, str] | None = None, status: int = 200
    ) -> bytes:
        """The body of an answer with this status, with retries. Raises Refused, or BessemerError when
        the server stays away."""

        async def once() -> bytes:
            async with self.request(url, headers or {}) as answer:
                if answer.status != status:
                    raise Refused(f"HTTP {answer.status} where {status} was expected", answer.status)
                body = bytearray()
                async for chunk in answer.chunks:
                    body += chunk
                    if len(body) > max_bytes:
                        raise Refused(f"too long: a body of more than {max_bytes} bytes")
                return bytes(body)

        return await self.retried(url, once)

    async def retried(self, url: str, once: Callable[[], Awaitable[_T]]) -> _T:
        """What `once` returns, after as many attempts as allowed. Attempts that `Progressed` are free."""
        attempt = 0
        while True:
            try:
                return await once()
            except Progressed as failure:
                attempt, reason, least_s = 0, str(failure), failure.retry_after_s
            except Interrupted as failure:
                reason, least_s = str(failure), failure.retry_after_s
            if attempt >= self._limits.max_retries:
                raise BessemerError(
                    f"{url} could not be fetched in {attempt + 1} attempts (last: {reason}). "
                    "What was fetched is kept; run the same command again to continue"
                )
            await self._pause(max(least_s, self._backoff_s(attempt)))
            attempt += 1

    def _backoff_s(self, attempt: int) -> float:
        longest_s = min(self._limits.retry_delay_s * 2**attempt, self._limits.max_retry_delay_s)
        return longest_s * (0.5 + 0.5 * self._random.random())

    @asynccontextmanager
    async def request(self, url: str, headers: Mapping[str, str]) -> AsyncIterator[Answer]:
        """One GET; redirects are followed. Raises Refused and Interrupted, also while chunks are read."""
        headers = dict(headers)
        for _ in range(_MAX_REDIRECTS + 1):
            async with self._request_once(url, headers) as answer:
                if answer.status not in _REDIRECTS:
                    yield answer
                    return
                target = urljoin(url, answer.header("Location") or "")
            if urlsplit(target).scheme not in ("http", "https") or target == url:
                raise Refused(f"redirect to nowhere: {target[:200]}")
            if urlsplit(target)[:2] != urlsplit(url)[:2]:
                headers.pop("Authorization", None)  # a secret is for the server that it was made for
            url = target
        raise Refused("too many redirects")

    @asynccontextmanager
    async def _request_once(self, url: str, headers: Mapping[str, str]) -> AsyncIterator[Answer]:
        timeout_s = self._limits.read_timeout_s
        timeouts = dict.fromkeys(("connect", "read", "write", "pool"), timeout_s)
        sent = {
            "Host": urlsplit(url).netloc,
            "User-Agent": self._user_agent,
            "Accept": "*/*",
            "Accept-Encoding": "identity",
            **headers,
        }
        self._asked_s = asyncio.get_running_loop().time()
        try:
            async with self._pool.stream(
                "GET", url, headers=list(sent.items()), extensions={"timeout": timeouts}
            ) as response:
                received = tuple(
                    (name.decode("latin-1"), value.decode("latin-1")) for name, value in response.headers
                )
                await _check(response, received)
                yield Answer(response.status, received, response.aiter_stream())
        except ForbiddenAddress as error:
            raise Refused(f"private address: {error}") from error
        except httpcore.TimeoutException as error:
            raise Interrupted(f"nothing came for {timeout_s:g} s") from error
        except (httpcore.NetworkError, httpcore.ProtocolError) as error:
            raise Interrupted(f"connection broke: {error or type(error).__name__}") from error
        except httpcore.UnsupportedProtocol as error:
            raise Refused(f"unsupported: {error}") from error


async def _check(response: httpcore.Response, headers: Headers) -> None:
    """Raise for every status that is no answer to go on with."""
    if response.status in (200, 206, 416) or response.status in _REDIRECTS:
        return
    body = bytearray()
    async for chunk in response.aiter_stream():
        body += chunk
        if len(body) > 4096:
            break
    if response.status in _PASSING_STATUSES:
        retry_after_s = retry_after(header_value(headers, "Retry-After"), header_value(headers, "Date"))
        if retry_after_s > _MAX_RETRY_AFTER_S:
            raise BessemerError(
                f"the server asks to come back in {retry_after_s / 3600:.1f} hours (HTTP {response.status}). "
                "What was fetched is kept; run the same command then to continue"
            )
        raise Interrupted(f"HTTP {response.status}", retry_after_s)
    raise Refused(f"HTTP {response.status}", response.status, bytes(body))


def retry_after(value: str | None, date: str | None) -> float:
    """Retry-After in seconds (RFC 9110, section 10.2.3): a number, or a date against the server's own."""
    if value is None:
        return 0.0
    if value.isascii() and value.isdigit():
        return float(value[:12])
    try:
        wait = parsedate_to_datetime(value) - parsedate_to_datetime(date or "")
    except (TypeError, ValueError):
        return 0.0
    return max(wait.total_seconds(), 0.0)
