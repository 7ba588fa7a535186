"""One commit of a data set repository: what the hub says of it, and its list of files.

The hub's own web interface, as the client library huggingface_hub speaks it: `/revision/` gives the
commit, its date and the card; `/tree/` the files, a thousand a page, the next page named in the header
`Link` (RFC 8288).
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urljoin

from bessemer.collect.hub.card import DatasetCard, card_of
from bessemer.collect.hub.config import HubConfig
from bessemer.collect.readers.rows import iso_date
from bessemer.collect.transfer import Refused, Transfer
from bessemer.errors import BessemerError
from bessemer.urls import origin_of

_MAX_ANSWER_BYTES = 64 << 20
_MAX_PAGES = 2000
_NEXT = re.compile(r'<([^<>]*)>[^,]*;\s*rel="?next"?')
_COMMIT = re.compile(r"[0-9a-f]{40}(?:[0-9a-f]{24})?")
_NAME = re.compile(r"[^\x00-\x1f\x7f\\]{1,1000}")


@dataclass(frozen=True)
class RepositoryFile:
    """A file as the hub lists it."""

    name: str
    num_bytes: int
    digest: tuple[str, str]
    """`sha256` of the content, or `git-blob`: the SHA-1 that git gives it."""


@dataclass(frozen=True)
class Repository:
    """One commit."""

    commit: str
    modified: str | None
    """When the repository last changed, ISO 8601: nothing in it is newer."""
    card: DatasetCard
    files: tuple[RepositoryFile, ...]


async def read_repository(
    source: HubConfig, endpoint: str, headers: Mapping[str, str], transfer: Transfer
) -> Repository:
    """The commit that the revision stands for now. Raises BessemerError when there is none."""
    base = f"{endpoint}/api/datasets/{source.dataset}"
    wanted = "expand=sha&expand=lastModified&expand=cardData"
    url = f"{base}/revision/{quote(source.revision, safe='')}?{wanted}"
    try:
        answer = json.loads(await transfer.get(url, _MAX_ANSWER_BYTES, headers))
        commit = str(answer["sha"])
        if not _COMMIT.fullmatch(commit):
            raise ValueError(f"{commit[:80]!r} is no commit")
        files = await _tree(f"{base}/tree/{commit}?recursive=true&expand=false", headers, transfer)
        return Repository(
            commit, iso_date(answer.get("lastModified")), card_of(answer.get("cardData")), files
        )
    except Refused as refusal:
        hint = ""
        if refusal.status in (401, 403, 404):
            hint = (
                "; a private or gated data set needs a token in HF_TOKEN, and its terms accepted on its page"
            )
        raise BessemerError(
            f"the hub at {endpoint} does not give data set {source.dataset!r} at {source.revision!r}: "
            f"{refusal}{hint}"
        ) from refusal
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise BessemerError(f"{url} did not answer as a hub does: {error!r}; is it one?") from error


async def _tree(url: str, headers: Mapping[str, str], transfer: Transfer) -> tuple[RepositoryFile, ...]:
    files: list[RepositoryFile] = []
    for _ in range(_MAX_PAGES):
        content, link = await _page(url, headers, transfer)
        entries = json.loads(content)
        files += [_file(entry) for entry in entries if entry["type"] == "file"]
        following = _NEXT.search(link)
        if following is None:
            return tuple(files)
        target = urljoin(url, following[1])
        if origin_of(target) != origin_of(url):
            raise ValueError(f"its list goes on at another server, {target[:200]}")
        url = target
    raise ValueError(f"its list of files has more than {_MAX_PAGES} pages")


async def _page(url: str, headers: Mapping[str, str], transfer: Transfer) -> tuple[bytes, str]:
    """A page of the list and the header that names the next one."""

    async def once() -> tuple[bytes, str]:
        async with transfer.request(url, headers) as answer:
            if answer.status != 200:
                raise Refused(f"HTTP {answer.status} where 200 was expected", answer.status)
            body = bytearray()
            async for chunk in answer.chunks:
                body += chunk
                if len(body) > _MAX_ANSWER_BYTES:
                    raise Refused(f"too long: a list of more than {_MAX_ANSWER_BYTES} bytes")
            return bytes(body), answer.header("Link") or ""

    return await transfer.retried(url, once)


def _file(entry: dict[str, Any]) -> RepositoryFile:
    """An entry of the list. Raises ValueError and the like for what is none."""
    name, num_bytes, lfs = entry["path"], entry["size"], entry.get("lfs")
    is_safe = isinstance(name, str) and _NAME.fullmatch(name) and ".." not in name.split("/")
    if not is_safe or name.startswith("/") or not isinstance(num_bytes, int) or num_bytes < 0:
        raise ValueError(f"{entry!r:.200} is no file of a repository")
    digest = ("sha256", str(lfs["oid"])) if isinstance(lfs, dict) else ("git-blob", str(entry["oid"]))
    return RepositoryFile(name, num_bytes, digest)
