"""The URL index of a crawl: which captures it has, and where in which file each lies.

Speaks the CDX server API (https://github.com/webrecorder/pywb/wiki/CDX-Server-API) as Common Crawl runs
it: `showNumPages` first, then page after page, one JSON object a line.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from urllib.parse import urlencode

from bessemer.collect.common_crawl.config import CommonCrawlConfig
from bessemer.collect.transfer import Refused, Transfer
from bessemer.errors import BessemerError

_FILE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._=/-]{0,511}")
_MAX_PAGE_BYTES = 64 << 20
_MAX_CAPTURE_BYTES = 64 << 20
_MAX_LINE_SHOWN = 80


@dataclass(frozen=True)
class Capture:
    """One page of the crawl."""

    url: str
    file: str
    """Path below the base URL."""
    offset: int
    num_bytes: int
    """Length of the gzip member that holds the record."""
    digest: str
    """SHA-1 of the payload in base 32; empty when the index gives none."""


@dataclass(frozen=True)
class Unfound:
    """A query, or a line of its answer, that gave no capture."""

    where: str
    reason: str


async def find_captures(transfer: Transfer, config: CommonCrawlConfig) -> list[Capture | Unfound]:
    """Captures for every URL of the config in the index's order, each record once, at most `limit`.

    Raises BessemerError when the index knows no such crawl.
    """
    found: dict[tuple[str, int], Capture] = {}
    unfound: list[Capture | Unfound] = []
    for query in config.urls:
        num_before = len(found) + len(unfound)
        for page in range(await _num_pages(transfer, config, query)):
            if len(found) >= config.limit:
                break
            for item in await _page(transfer, config, query, page):
                if isinstance(item, Unfound):
                    unfound.append(item)
                elif len(found) < config.limit:
                    found.setdefault((item.file, item.offset), item)
        if len(found) + len(unfound) == num_before and len(found) < config.limit:
            unfound.append(Unfound(query, "not in the index: no capture fits the URL and the filters"))
    return [*found.values(), *unfound]


async def _num_pages(transfer: Transfer, config: CommonCrawlConfig, query: str) -> int:
    answer = await _ask(transfer, config, query, showNumPages="true")
    if answer is None:
        return 0
    try:
        value = json.loads(answer)
        return int(value["pages"] if isinstance(value, dict) else value)
    except (ValueError, KeyError, TypeError) as error:
        raise BessemerError(
            f"{_address(config)} gave no number of pages for {query!r}, but {answer[:60]!r}; "
            "is index_url a CDX server?"
        ) from error


async def _page(
    transfer: Transfer, config: CommonCrawlConfig, query: str, page: int
) -> list[Capture | Unfound]:
    answer = await _ask(transfer, config, query, page=str(page))
    return list(_captures(answer or b"", f"{_address(config)}?url={query}&page={page}"))


async def _ask(transfer: Transfer, config: CommonCrawlConfig, query: str, **more: str) -> bytes | None:
    """The answer to one request, None when nothing was found."""
    parameters = [("url", query), ("output", "json"), *(("filter", each) for each in config.filters)]
    url = f"{_address(config)}?{urlencode([*parameters, *more.items()])}"
    await transfer.pace(config.request_delay_s)
    try:
        return await transfer.get(url, _MAX_PAGE_BYTES)
    except Refused as refusal:
        if refusal.status == 404 and b"No Captures" in refusal.body:
            return None
        hint = "; is there a crawl of this id?" if refusal.status == 404 else ""
        raise BessemerError(f"{_address(config)} refuses {query!r}: {refusal}{hint}") from refusal


def _address(config: CommonCrawlConfig) -> str:
    return f"{config.index_url}/{config.crawl}-index"


def _captures(answer: bytes, where: str) -> Iterator[Capture | Unfound]:
    for number, line in enumerate(answer.splitlines(), start=1):
        if not line.strip():
            continue
        capture = _capture(line)
        if capture is None:
            shown = line[:_MAX_LINE_SHOWN].decode("utf-8", "replace")
            yield Unfound(f"{where}#{number}", f"bad index line: {shown}")
        else:
            yield capture


def _capture(line: bytes) -> Capture | None:
    try:
        value = json.loads(line)
        capture = Capture(
            url=str(value["url"]),
            file=str(value["filename"]),
            offset=int(value["offset"]),
            num_bytes=int(value["length"]),
            digest=str(value.get("digest") or ""),
        )
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
    is_sound = _FILE_NAME.fullmatch(capture.file) and ".." not in capture.file and capture.offset >= 0
    return capture if is_sound and 0 < capture.num_bytes <= _MAX_CAPTURE_BYTES else None
