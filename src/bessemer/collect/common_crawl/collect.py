"""Collecting from Common Crawl: whole files, or single pages."""

import asyncio
from pathlib import Path
from urllib.parse import urlsplit

from bessemer.collect.common_crawl.captures import collect_captures
from bessemer.collect.common_crawl.config import CommonCrawlConfig
from bessemer.collect.config import CollectConfig
from bessemer.collect.download import download
from bessemer.collect.files import SourceFile
from bessemer.collect.local import collect_source_files
from bessemer.collect.readers.compressed import DamagedFile, read_bounded
from bessemer.collect.transfer import Pause, Refused, Transfer, TransferLimits
from bessemer.errors import BessemerError
from bessemer.formats.warc_writer import WarcHead
from bessemer.runner.context import StageContext

_MAX_LIST_BYTES = 64 << 20


def collect_common_crawl(
    config: CollectConfig, context: StageContext, head: WarcHead, pause: Pause = asyncio.sleep
) -> int:
    """Write the pages that `config.common_crawl` names to the output. Returns how many there are.

    Continues an earlier attempt: whole files are kept in scratch, parts of files are continued.
    """
    source = config.common_crawl
    assert source is not None, "the config was validated"
    if source.urls:
        return asyncio.run(_collect_pages(config, source, context, head, pause))
    files = asyncio.run(_download_files(config, source, context, pause))
    return collect_source_files(files, config, context, head)


def _transfer(config: CollectConfig, source: CommonCrawlConfig, seed: int, pause: Pause) -> Transfer:
    limits = TransferLimits(
        source.max_retries, source.retry_delay_s, source.max_retry_delay_s, source.read_timeout_s
    )
    return Transfer(config.crawl, limits, seed, pause)


async def _collect_pages(
    config: CollectConfig, source: CommonCrawlConfig, context: StageContext, head: WarcHead, pause: Pause
) -> int:
    async with _transfer(config, source, context.seed, pause) as transfer:
        return await collect_captures(config, source, context, head, transfer)


async def _download_files(
    config: CollectConfig, source: CommonCrawlConfig, context: StageContext, pause: Pause
) -> list[SourceFile]:
    """The files on disk, in the order of the crawl's list; one that cannot be had carries the reason."""
    folder = context.scratch / "downloads"
    folder.mkdir(exist_ok=True)
    async with _transfer(config, source, context.seed, pause) as transfer:
        paths = source.paths or await _listed_paths(source, folder, transfer)
        files = []
        with context.progress("download", total=None, unit="MB") as progress:
            for number, path in enumerate(paths):
                url = f"{source.base_url}/{path}"
                # A folder for each, because files of different crawls may share their last name.
                target = folder / f"{number:05d}" / Path(urlsplit(url).path).name
                target.parent.mkdir(exist_ok=True)
                fault = None
                if not target.exists():
                    try:
                        await download(
                            transfer,
                            url,
                            target,
                            source.max_download_bytes,
                            advance=lambda num_bytes: progress.advance(num_bytes / 1e6),
                        )
                    except Refused as refusal:
                        fault = f"not fetched: {refusal}"
                files.append(SourceFile(target, path, "warc", url=url, fault=fault))
    return files


async def _listed_paths(source: CommonCrawlConfig, folder: Path, transfer: Transfer) -> tuple[str, ...]:
    """The first `files` paths of the crawl's own list. Raises BessemerError when there is no such crawl."""
    url = f"{source.base_url}/crawl-data/{source.crawl}/{source.kind}.paths.gz"
    target = folder / f"{source.kind}.paths.gz"
    try:
        if not target.exists():
            await download(transfer, url, target, _MAX_LIST_BYTES)
        content = read_bounded(target, 8 * _MAX_LIST_BYTES)
    except (Refused, DamagedFile) as error:
        raise BessemerError(
            f"the list of files of crawl {source.crawl!r} is not at {url} ({error}); "
            "all crawl ids are at https://index.commoncrawl.org/collinfo.json"
        ) from error
    paths = [line.strip() for line in (content or b"").decode("ascii", "replace").splitlines()]
    try:
        checked = CommonCrawlConfig(crawl=source.crawl, paths=tuple(filter(None, paths))[: source.files])
    except ValueError as error:
        raise BessemerError(f"{url} is not a list of paths: {str(error).splitlines()[-1]}") from error
    return checked.paths
