"""JSON lines, plain or compressed."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from bessemer.collect.config import CollectConfig
from bessemer.collect.readers.compressed import DamagedFile, open_decompressed
from bessemer.collect.readers.pages import Fault, Page
from bessemer.collect.readers.rows import RowReader, null

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


def read_jsonl(path: Path, config: CollectConfig) -> Iterator[Page | Fault]:
    """A page for each line. Blank lines are skipped, bad ones reported by number.

    Lines longer than `max_document_bytes` are passed over without being held in memory.
    """
    rows = RowReader(config)
    with open_decompressed(path) as file:
        lines = _lines(file, config.max_document_bytes)
        number = 0
        while True:
            number += 1
            try:
                line = next(lines, None)
            except DamagedFile as damage:
                yield Fault(str(number), str(damage))
                return
            if line is None:
                return
            if number == 1:
                line = line.removeprefix(_BYTE_ORDER_MARK)
            if len(line) > config.max_document_bytes:
                yield Fault(str(number), f"too long: a line of more than {config.max_document_bytes} bytes")
            elif line.strip():
                yield from _parse(line, number, rows)


def _lines(file: BinaryIO, max_bytes: int) -> Iterator[bytes]:
    """Lines; of one longer than `max_bytes`, only that many bytes and one more."""
    while line := file.readline(max_bytes + 1):
        rest = line
        while not rest.endswith(b"\n") and (rest := file.readline(1 << 20)):
            pass
        yield line


def _parse(line: bytes, number: int, rows: RowReader) -> Iterator[Page | Fault]:
    try:
        value = json.loads(line.decode("utf-8"), parse_constant=null)
    except UnicodeDecodeError as error:
        yield Fault(str(number), f"invalid UTF-8: byte {error.start} of the line")
    except (ValueError, RecursionError) as error:
        yield Fault(str(number), f"bad JSON: {error}")
    else:
        yield from rows.read(value, number)
