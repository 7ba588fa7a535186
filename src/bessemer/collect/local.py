"""Collecting from local files: WARC files are taken as they are, everything else becomes records."""

import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from bessemer.collect.clock import file_epoch, warc_date
from bessemer.collect.config import CollectConfig, Format
from bessemer.collect.failures import FailureLog
from bessemer.collect.files import SourceFile, find_source_files
from bessemer.collect.rows import BadRow, Row, read_jsonl, read_parquet
from bessemer.formats.warc import WarcDamage, read_warc
from bessemer.formats.warc_writer import WarcHead, WarcPosition, WarcWriter
from bessemer.runner.context import StageContext
from bessemer.runner.files import write_atomically
from bessemer.runner.manifest import digest_of_json

_CONTENT_TYPES: dict[Format, str] = {"text": "text/plain", "html": "text/html", "markdown": "text/markdown"}
_PAGE_TYPES = {"response", "resource", "conversion"}
_STATE_NAME = "local.json"


def collect_files(config: CollectConfig, context: StageContext, head: WarcHead) -> int:
    """Write every file's pages to the output. Returns how many pages there are.

    Done files are remembered in scratch, each with the offsets that the output had reached; a file
    that was interrupted is done again from its start.
    """
    files = find_source_files(config.paths, config.format)
    state_path = context.scratch / _STATE_NAME
    listing = digest_of_json([(file.name, file.path.stat().st_size) for file in files])
    state = _load_state(state_path, listing)
    num_pages: int = state["num_pages"]
    collected = _LocalCollector(config, context.output, warc_date(file_epoch()))
    position = WarcPosition(**state["position"])
    with (
        FailureLog(context.output, state["failures_offset"]) as failures,
        WarcWriter(context.output, head, config.max_file_bytes, position) as writer,
        context.progress("collect", total=len(files), unit="files") as progress,
    ):
        for number in range(state["num_files"], len(files)):
            num_pages += collected.add(files[number], number, writer, failures)
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
    """Adds one file after another; each kind of file has a method."""

    def __init__(self, config: CollectConfig, output: Path, date: str) -> None:
        self._config = config
        self._output = output
        self._date = date

    def add(self, file: SourceFile, number: int, writer: WarcWriter, failures: FailureLog) -> int:
        """Write the pages of one file. Returns how many there were."""
        if file.format == "auto":
            failures.add(file.uri, "unknown kind: the extension says nothing; use format: to say what it is")
            return 0
        if file.format == "warc":
            return self._add_warc(file, number, failures)
        if file.format in _CONTENT_TYPES:
            return self._add_document(file, writer, failures)
        return self._add_rows(file, writer, failures)

    def _add_warc(self, file: SourceFile, number: int, failures: FailureLog) -> int:
        target = self._output / f"{number:05d}-{file.path.name}"
        _link_or_copy(file.path, target)
        num_pages = 0
        for item in read_warc(target):
            if isinstance(item, WarcDamage):
                failures.add(f"{file.uri}#offset={item.offset}", f"damaged WARC: {item.reason}")
            else:
                num_pages += item.type in _PAGE_TYPES
        return num_pages

    def _add_document(self, file: SourceFile, writer: WarcWriter, failures: FailureLog) -> int:
        if file.path.stat().st_size > self._config.max_document_bytes:
            failures.add(file.uri, f"too long: more than {self._config.max_document_bytes} bytes")
            return 0
        body = file.path.read_bytes()
        content_type = _CONTENT_TYPES[file.format] + ("; charset=utf-8" if _is_utf8(body) else "")
        writer.write_resource(file.uri, self._date, content_type, body)
        return 1

    def _add_rows(self, file: SourceFile, writer: WarcWriter, failures: FailureLog) -> int:
        num_pages = 0
        for row in self._read_rows(file):
            if isinstance(row, BadRow):
                where = f"{file.uri}:{row.number}" if row.number else file.uri
                failures.add(where, row.reason)
            else:
                uri = row.url or f"{file.uri}#{row.number}"
                writer.write_resource(uri, self._date, "application/json", row.body)
                num_pages += 1
        return num_pages

    def _read_rows(self, file: SourceFile) -> Iterator[Row | BadRow]:
        read = read_jsonl if file.format == "jsonl" else read_parquet
        return read(file.path, self._config)


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


def _is_utf8(content: bytes) -> bool:
    try:
        content.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True
