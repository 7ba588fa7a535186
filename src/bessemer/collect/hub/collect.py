"""Collecting a data set of the Hugging Face hub: a file at a time is fetched, verified, read and let go.

Only data is taken: loading scripts, which some data sets come with, are never fetched nor run. Downloads
are this project's own (`collect.download`) and not huggingface_hub's, whose partial files do not survive
the process and whose checks end at the size (version 2.4).
"""

import asyncio
import json
import os
from collections.abc import Callable, Coroutine, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

from bessemer.collect.config import CollectConfig
from bessemer.collect.download import download
from bessemer.collect.files import SourceFile, format_of
from bessemer.collect.hub.card import DataFiles, DatasetCard
from bessemer.collect.hub.config import HubConfig
from bessemer.collect.hub.repository import Repository, RepositoryFile, read_repository
from bessemer.collect.hub.selection import chosen_files
from bessemer.collect.local import collect_source_files
from bessemer.collect.transfer import Pause, Refused, Transfer, TransferLimits
from bessemer.errors import BessemerError
from bessemer.formats.warc_writer import WarcHead
from bessemer.runner.context import Metrics, StageContext
from bessemer.runner.files import write_atomically
from bessemer.runner.manifest import digest_of_json

_PUBLIC_HUB = "https://huggingface.co"
_MAX_RETRY_DELAY_S, _READ_TIMEOUT_S = 300.0, 60.0


def collect_hub(
    config: CollectConfig, context: StageContext, head: WarcHead, pause: Pause = asyncio.sleep
) -> tuple[int, Metrics]:
    """Write the rows and documents of a data set to the output. Returns their number, and what was pinned.

    Raises BessemerError when there is no such data set, and ConfigError when no file in it fits the choice.
    """
    source = config.hub
    assert source is not None, "the config was validated"
    endpoint = source.endpoint or os.environ.get("HF_ENDPOINT", "").rstrip("/") or _PUBLIC_HUB
    token = os.environ.get("HF_TOKEN")
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    limits = TransferLimits(source.max_retries, source.retry_delay_s, _MAX_RETRY_DELAY_S, _READ_TIMEOUT_S)

    def connect() -> Transfer:
        return Transfer(config.crawl, limits, context.seed, pause)

    async def asked() -> Repository:
        async with connect() as transfer:
            return await read_repository(source, endpoint, headers, transfer)

    repository = _pinned(source, endpoint, context.scratch / "hub.json", asked)
    files = _source_files(config, source, endpoint, repository, context.scratch / "download")
    wanted = {file.name: file for file in repository.files}

    @contextmanager
    def fetched(file: SourceFile) -> Iterator[SourceFile]:
        listed = wanted[file.name.removeprefix(f"{source.dataset}/")]
        yield replace(file, fault=_fetch(file, listed, connect, headers))
        file.path.unlink(missing_ok=True)

    context.say(f"{source.dataset} at commit {repository.commit[:12]}: {len(files):,} files")
    # The date of the commit, not of the download: the same commit gives the same bytes.
    named = config.model_copy(
        update={
            "source_name": config.source_name or source.dataset,
            "fetched_at": config.fetched_at or repository.modified or "1970-01-01",
        }
    )
    pinned = f"{endpoint}/datasets/{source.dataset}/tree/{repository.commit}"
    head = WarcHead(head.date, {**head.fields, "isPartOf": pinned})
    present: Callable[[SourceFile], AbstractContextManager[SourceFile]] = fetched
    num_pages = collect_source_files(files, named, context, head, present)
    facts = {"dataset": source.dataset, "revision": source.revision, "commit": repository.commit}
    return num_pages, {**facts, "licence": config.licence or repository.card.licence}


def _source_files(
    config: CollectConfig, source: HubConfig, endpoint: str, repository: Repository, folder: Path
) -> list[SourceFile]:
    listed = {file.name: file for file in repository.files}
    names = chosen_files(source, repository.card, list(listed))
    total = sum(listed[name].num_bytes for name in names)
    if total > source.max_bytes:
        raise BessemerError(
            f"data set {source.dataset!r}: {len(names)} files of {total / 1e9:.1f} GB, more than max_bytes "
            f"({source.max_bytes / 1e9:.1f} GB); choose with split:, files: or max_files:, or raise it"
        )
    resolved = f"{endpoint}/datasets/{source.dataset}/resolve/{repository.commit}"
    return [
        SourceFile(
            folder / f"{number:05d}" / name.rpartition("/")[2],
            f"{source.dataset}/{name}",
            config.format if config.format != "auto" else format_of(name.rpartition("/")[2]),
            repository.card.licence,
            f"{resolved}/{quote(name)}",
            digest=":".join(listed[name].digest),
        )
        for number, name in enumerate(names)
    ]


def _fetch(
    file: SourceFile, listed: RepositoryFile, connect: Callable[[], Transfer], headers: dict[str, str]
) -> str | None:
    """Bring a file to its path, unless an earlier attempt did. Returns why it cannot be had."""
    assert file.url is not None, "files of a repository have an address"
    url = file.url

    async def work() -> None:
        async with connect() as transfer:
            await download(transfer, url, file.path, listed.num_bytes, headers, dict([listed.digest]))

    if file.path.exists():
        return None
    file.path.parent.mkdir(parents=True, exist_ok=True)
    try:
        asyncio.run(work())
    except Refused as refusal:
        return f"not fetched: {refusal}"
    return None


def _pinned(
    source: HubConfig, endpoint: str, path: Path, asked: Callable[[], Coroutine[Any, Any, Repository]]
) -> Repository:
    """The commit that the revision stood for when the stage began; `path` keeps what `asked` gave."""
    key = digest_of_json([source.dataset, source.revision, endpoint])
    if path.exists() and (kept := json.loads(path.read_bytes()))["key"] == key:
        return _from_json(kept)
    repository = asyncio.run(asked())
    write_atomically(path, json.dumps({"key": key, **asdict(repository)}).encode())
    return repository


def _from_json(kept: dict) -> Repository:
    parts = [
        DataFiles(part["subset"], part["split"], tuple(part["patterns"]), part["is_default"])
        for part in kept["card"]["data_files"]
    ]
    files = [RepositoryFile(file["name"], file["num_bytes"], tuple(file["digest"])) for file in kept["files"]]
    card = DatasetCard(kept["card"]["licence"], tuple(parts))
    return Repository(kept["commit"], kept["modified"], card, tuple(files))
