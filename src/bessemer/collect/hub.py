"""Collecting a data set of the Hugging Face hub: its files are fetched, verified and read like local ones.

Only data is taken. Loading scripts, which some data sets come with, are never fetched nor run.
"""

import asyncio
import fnmatch
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from bessemer.collect.config import CollectConfig
from bessemer.collect.download import download
from bessemer.collect.files import SourceFile, format_of
from bessemer.collect.hub_config import HubConfig
from bessemer.collect.local import collect_source_files
from bessemer.collect.readers.rows import iso_date
from bessemer.collect.transfer import Pause, Refused, Transfer, TransferLimits
from bessemer.errors import BessemerError
from bessemer.formats.warc_writer import WarcHead
from bessemer.runner.context import StageContext
from bessemer.runner.files import write_atomically

_MAX_LISTING_BYTES = 64 << 20
_TABLES = ("parquet", "arrow", "jsonl")
_LIMITS = TransferLimits(max_retries=8, retry_delay_s=1.0, max_retry_delay_s=300.0, read_timeout_s=60.0)


@dataclass(frozen=True)
class _Repository:
    """One commit of a data set repository."""

    commit: str
    modified: str | None
    """When the repository last changed, ISO 8601: nothing in it is newer."""
    licence: str | None
    files: tuple[dict[str, Any], ...]
    """`name`, `num_bytes` and `sha256` (the last two None where the hub does not say) of the chosen files."""


def collect_hub(
    config: CollectConfig, context: StageContext, head: WarcHead, pause: Pause = asyncio.sleep
) -> tuple[int, str]:
    """Write the rows and documents of a data set to the output. Returns their number and the commit.

    Raises BessemerError when there is no such data set, or no file in it that can be read.
    """
    source = config.hub
    assert source is not None, "the config was validated"
    repository, files = asyncio.run(_download(config, source, context, pause))
    # The date of the commit, not of the download: the same commit gives the same bytes.
    named = config.model_copy(
        update={
            "source_name": config.source_name or source.dataset,
            "fetched_at": config.fetched_at or repository.modified,
        }
    )
    return collect_source_files(files, named, context, head), repository.commit


async def _download(
    config: CollectConfig, source: HubConfig, context: StageContext, pause: Pause
) -> tuple[_Repository, list[SourceFile]]:
    token = os.environ.get("HF_TOKEN")
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    folder = context.scratch / "downloads"
    async with Transfer(config.crawl, _LIMITS, context.seed, pause) as transfer:
        repository = await _repository(source, context.scratch / "hub.json", headers, transfer)
        total = sum(file["num_bytes"] or 0 for file in repository.files)
        if total > source.max_bytes:
            raise BessemerError(
                f"data set {source.dataset!r}: {len(repository.files)} files of {total / 1e9:.1f} GB are "
                f"more than max_bytes ({source.max_bytes / 1e9:.1f} GB); choose with files: or max_files:"
            )
        files = []
        with context.progress("download", total=total / 1e6 or None, unit="MB") as progress:
            for number, file in enumerate(repository.files):
                target = folder / f"{number:05d}" / Path(file["name"]).name
                target.parent.mkdir(parents=True, exist_ok=True)
                url = (
                    f"{source.endpoint}/datasets/{source.dataset}/resolve/{repository.commit}/"
                    f"{quote(file['name'])}"
                )
                fault = None
                if not target.exists():
                    digests = {"sha256": file["sha256"]} if file["sha256"] else {}
                    try:
                        await download(
                            transfer,
                            url,
                            target,
                            source.max_bytes,
                            headers,
                            digests,
                            lambda num_bytes: progress.advance(num_bytes / 1e6),
                        )
                    except Refused as refusal:
                        fault = f"not fetched: {refusal}"
                kind = config.format if config.format != "auto" else format_of(file["name"])
                name = f"{source.dataset}/{file['name']}"
                files.append(SourceFile(target, name, kind, repository.licence, url, fault))
    return repository, files


async def _repository(
    source: HubConfig, path: Path, headers: Mapping[str, str], transfer: Transfer
) -> _Repository:
    """The commit that the revision stood for when the stage began, and the files to take."""
    if path.exists():
        kept = json.loads(path.read_bytes())
        if kept["source"] == source.model_dump(mode="json"):
            return _Repository(kept["commit"], kept["modified"], kept["licence"], tuple(kept["files"]))
    revision = quote(source.revision, safe="")
    url = f"{source.endpoint}/api/datasets/{source.dataset}/revision/{revision}?blobs=true"
    try:
        answer = json.loads(await transfer.get(url, _MAX_LISTING_BYTES, headers))
        repository = _Repository(
            str(answer["sha"]),
            iso_date(answer.get("lastModified")),
            _licence(answer),
            _chosen(answer["siblings"], source),
        )
    except Refused as refusal:
        hint = " (private and gated ones need HF_TOKEN)" if refusal.status in (401, 403, 404) else ""
        raise BessemerError(
            f"the hub at {source.endpoint} has no data set {source.dataset!r} at {source.revision!r}: "
            f"{refusal}{hint}"
        ) from refusal
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise BessemerError(f"{url} did not answer as a hub does: {error!r}") from error
    if not repository.files:
        asked = f"that match {', '.join(source.files)}" if source.files else "that can be read"
        raise BessemerError(f"data set {source.dataset!r} holds no files {asked}; name some with files:")
    told = {
        "source": source.model_dump(mode="json"),
        "commit": repository.commit,
        "modified": repository.modified,
        "licence": repository.licence,
        "files": repository.files,
    }
    write_atomically(path, json.dumps(told).encode())
    return repository


def _licence(answer: dict[str, Any]) -> str | None:
    card = answer.get("cardData")
    licence = card.get("license") if isinstance(card, dict) else None
    if isinstance(licence, list):
        licence = ", ".join(map(str, licence))
    return licence if isinstance(licence, str) and licence else None


def _chosen(siblings: list[dict[str, Any]], source: HubConfig) -> tuple[dict[str, Any], ...]:
    """Files by pattern; without one all tables, or all documents where there is no table."""
    files = []
    for sibling in sorted(siblings, key=lambda sibling: str(sibling["rfilename"])):
        lfs = sibling.get("lfs")
        lfs = lfs if isinstance(lfs, dict) else {}
        size = sibling.get("size")
        files.append(
            {
                "name": str(sibling["rfilename"]),
                "num_bytes": size if isinstance(size, int) else None,
                "sha256": lfs.get("sha256") if isinstance(lfs.get("sha256"), str) else None,
            }
        )
    kinds = {file["name"]: format_of(file["name"]) for file in files}
    if source.files:
        wanted = [
            file for file in files if any(fnmatch.fnmatchcase(file["name"], each) for each in source.files)
        ]
    else:
        tables = [file for file in files if kinds[file["name"]] in _TABLES]
        documents = [
            file
            for file in files
            if kinds[file["name"]] not in ("auto", "code") and file["name"] != "README.md"
        ]
        wanted = tables or documents
    return tuple(wanted[: source.max_files])
