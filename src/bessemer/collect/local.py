"""Collecting from local files: WARC files are taken as they are, everything else becomes records."""

import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

from bessemer.collect.clock import fixed_epoch, warc_date
from bessemer.collect.config import CollectConfig
from bessemer.collect.failures import FailureLog
from bessemer.collect.files import SourceFile, find_source_files
from bessemer.collect.readers.columnar import read_arrow, read_parquet
from bessemer.collect.readers.guarded import GuardedReader
from bessemer.collect.readers.jsonl import read_jsonl
from bessemer.collect.readers.pages import Fault, Page, bounded_facts
from bessemer.collect.readers.rows import iso_date
from bessemer.collect.readers.text import CONTENT_TYPES, read_document
from bessemer.collect.readers.transcripts import read_transcript
from bessemer.collect.verification import wrong_digest
from bessemer.errors import ConfigError
from bessemer.formats.warc import WarcDamage, read_warc
from bessemer.formats.warc_writer import WarcHead, WarcPosition, WarcWriter
from bessemer.runner.context import StageContext
from bessemer.runner.files import write_atomically
from bessemer.runner.manifest import digest_of_json

_PAGE_TYPES = {"response", "resource", "conversion"}
_KNOWN_TYPES = _PAGE_TYPES | {"warcinfo", "request", "metadata", "revisit", "continuation"}
_EMPTY = "empty: the file holds no record"
_STATE_NAME = "local.json"
_ROW_READERS = {"jsonl": read_jsonl, "parquet": read_parquet, "arrow": read_arrow}
_FRAGMENT_SAFE = "/?:@!$&'()*+,;=-._~"
"""RFC 3986, section 3.5."""
_LAST_EPOCH_S = datetime(9999, 12, 31, tzinfo=UTC).timestamp()


def collect_files(config: CollectConfig, context: StageContext, head: WarcHead) -> int:
    """Write the pages of every file that `config.path` names. Returns how many pages there are."""
    files = find_source_files(config.paths, config.format)
    if any(file.format == "warc" for file in files) and (config.licence or config.source_name):
        context.say(
            "WARC files are kept byte for byte: licence: and source_name: do not reach the pages in them"
        )
    return collect_source_files(files, config, context, head)


def collect_source_files(
    files: list[SourceFile],
    config: CollectConfig,
    context: StageContext,
    head: WarcHead,
    present: Callable[[SourceFile], AbstractContextManager[SourceFile]] = nullcontext,
) -> int:
    """Write every file's pages to the output, until there are `config.max_pages`. Returns how many there are.

    Done files are remembered in scratch, each with the offsets that the output had reached; a file
    that was interrupted is done again from its start. `present` sees to it that a file is there, and is
    left when what was read of it is safe.
    """
    if any(file.format == "pdf" for file in files):
        _require_pypdf()
    state_path = context.scratch / _STATE_NAME
    listing = digest_of_json([_state_of(file) for file in files])
    state = _load_state(state_path, listing)
    num_pages: int = state["num_pages"]
    position = WarcPosition(**state["position"])
    with (
        GuardedReader(config) as guarded,
        FailureLog(context.output, state["failures_offset"]) as failures,
        WarcWriter(context.output, head, config.max_file_bytes, position) as writer,
        context.progress("collect", total=len(files), unit="files") as progress,
    ):
        collector = _LocalCollector(config, context.output, guarded)
        for number in range(state["num_files"], len(files)):
            if config.max_pages is not None and num_pages >= config.max_pages:
                left = len(files) - number
                context.say(f"stopped at max_pages = {config.max_pages:,}; {left:,} files were not opened")
                break
            with present(files[number]) as file:
                most = None if config.max_pages is None else config.max_pages - num_pages
                num_pages += collector.add(file, number, writer, failures, most)
                done = {
                    "listing": listing,
                    "num_files": number + 1,
                    "num_pages": num_pages,
                    "failures_offset": failures.sync(),
                    "position": asdict(writer.sync()),
                }
                write_atomically(state_path, json.dumps(done).encode())
            progress.set(number + 1, pages=num_pages)
    return num_pages


class _LocalCollector:
    """Adds one file after another."""

    def __init__(self, config: CollectConfig, output: Path, guarded: GuardedReader) -> None:
        self._config = config
        self._output = output
        self._guarded = guarded

    def add(
        self, file: SourceFile, number: int, writer: WarcWriter, failures: FailureLog, most: int | None
    ) -> int:
        """Write the pages of one file, at most so many. Returns how many there were."""
        if file.fault is not None:
            failures.add(file.uri, file.fault)
            return 0
        try:
            if file.format == "warc":
                return self._add_warc(file, number, failures)
            return self._add_pages(file, writer, failures, most)
        except OSError as error:
            failures.add(file.uri, f"unreadable: {error.strerror or error}")
            return 0

    def _add_warc(self, file: SourceFile, number: int, failures: FailureLog) -> int:
        target = self._output / f"{number:05d}-{file.path.name}"
        _link_or_copy(file.path, target)
        return count_pages(target, file.uri, failures)

    def _add_pages(self, file: SourceFile, writer: WarcWriter, failures: FailureLog, most: int | None) -> int:
        file_date = self._date_of(file.path)
        facts = {
            "source": self._config.source_name or file.name.partition("/")[0],
            "licence": self._config.licence or file.licence or "",
        }
        num_pages, num_faults = 0, 0
        for item in self._read(file):
            if isinstance(item, Fault):
                num_faults += 1
                place = f"{file.uri}:{item.place}" if item.place else file.uri
                failures.add(place, item.reason, item.is_kept)
                continue
            place = f"#{quote(item.place, safe=_FRAGMENT_SAFE)}" if item.place else ""
            uri = item.uri or file.uri + place
            write = writer.write_conversion if item.is_converted else writer.write_resource
            about = bounded_facts(facts | dict(item.about))
            write(uri, item.date or file_date, item.content_type, item.body, about)
            num_pages += 1
            if num_pages == most:
                break
        if num_pages + num_faults == 0:
            failures.add(file.uri, _EMPTY)
        return num_pages

    def _read(self, file: SourceFile) -> Iterator[Page | Fault]:
        """Pages and faults of a file, by its kind."""
        if file.format == "auto":
            reason = "unknown kind: the extension says nothing; use format: to say what it is"
            return iter([Fault("", reason)])
        if file.format in CONTENT_TYPES:
            return read_document(file.path, file.format, self._config)
        if file.format in _ROW_READERS:
            return _ROW_READERS[file.format](file.path, self._config)
        if file.format == "transcript":
            return read_transcript(file.path, self._config)
        return self._guarded.read(file.path, file.format)

    def _date_of(self, path: Path) -> str:
        """When a file's pages are said to be from: its last change, unless config or environment say."""
        if self._config.fetched_at is not None and (date := iso_date(self._config.fetched_at)):
            return date
        epoch_s = fixed_epoch()
        modified_s = path.stat().st_mtime if epoch_s is None else epoch_s
        return warc_date(min(max(modified_s, 0.0), _LAST_EPOCH_S))


def count_pages(path: Path, uri: str, failures: FailureLog) -> int:
    """Pages of a WARC file. Damaged stretches, records of unknown type (WARC 1.1, section 6.1: they are to be
    skipped), and records whose digest is wrong are reported."""
    num_pages, num_items = 0, 0
    for item in read_warc(path):
        num_items += 1
        if isinstance(item, WarcDamage):
            failures.add(f"{uri}#offset={item.offset}", f"damaged WARC: {item.reason}")
            continue
        num_pages += item.type in _PAGE_TYPES
        if item.type not in _KNOWN_TYPES:
            failures.add(
                f"{uri}#offset={item.offset}", f"unknown record type: {item.type[:40]!r} is not read"
            )
        if fault := wrong_digest(item):
            failures.add(f"{uri}#offset={item.offset}", fault, is_kept=True)
    if num_items == 0:
        failures.add(uri, _EMPTY)
    return num_pages


def _require_pypdf() -> None:
    import importlib.util

    if importlib.util.find_spec("pypdf") is None:
        raise ConfigError(
            "PDF files are read by pypdf, which is not installed: pip install 'bessemer[pdf]', "
            "or leave them out of path:"
        )


def _state_of(file: SourceFile) -> list[object]:
    """What tells whether a file is still the one that an earlier attempt read."""
    if file.fault is not None or file.digest is not None:
        return [file.name, file.fault, file.digest]
    facts = file.path.stat()
    return [file.name, facts.st_size, facts.st_mtime_ns]


def _load_state(path: Path, listing: str) -> dict[str, Any]:
    """Where an earlier attempt at the same files got to, or the beginning."""
    if path.exists():
        state = json.loads(path.read_bytes())
        if state["listing"] == listing:
            return state
    return {"num_files": 0, "num_pages": 0, "failures_offset": 0, "position": asdict(WarcPosition())}


def _link_or_copy(source: Path, target: Path) -> None:
    target.unlink(missing_ok=True)
    try:
        os.link(source.resolve(), target)
    except OSError:  # another file system, or one without hard links
        shutil.copyfile(source, target)
