"""Rows of JSONL and Parquet files, one JSON object each, with faults named by file and line.

Columns are renamed to `text`, `id` and `url`, so that whoever reads the pages need not know what
the source called them. Other columns stay as they are.
"""

import gzip
import io
import json
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from bessemer.collect.config import CollectConfig

_ROWS_PER_BATCH = 256


@dataclass(frozen=True)
class Row:
    """One row as UTF-8 JSON."""

    number: int
    """Line of a JSONL file or row of a Parquet file, from 1."""
    url: str | None
    body: bytes


@dataclass(frozen=True)
class BadRow:
    """A row that could not be read; `number` is 0 when the file as a whole is meant."""

    number: int
    reason: str


def read_jsonl(path: Path, config: CollectConfig) -> Iterator[Row | BadRow]:
    """Rows of a .jsonl or .jsonl.gz file. Blank lines are skipped, bad ones reported.

    Lines longer than `max_document_bytes` are passed over without being held in memory.
    """
    with _open_plain_or_gzip(path) as file:
        lines = _read_lines(file, config.max_document_bytes)
        number = 0
        while True:
            number += 1
            try:
                line = next(lines, None)
            except (EOFError, zlib.error, gzip.BadGzipFile) as error:
                yield BadRow(number, f"damaged gzip file: the rest is lost ({error})")
                return
            if line is None:
                return
            if len(line) > config.max_document_bytes:
                yield BadRow(number, f"too long: a line of more than {config.max_document_bytes} bytes")
            elif line.strip():
                yield _parse(line, number, config)


def read_parquet(path: Path, config: CollectConfig) -> Iterator[Row | BadRow]:
    """Rows of a Parquet file. A file that is damaged is reported from the damage on."""
    number = 0
    try:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=_ROWS_PER_BATCH):
                for row in batch.to_pylist():
                    number += 1
                    yield _row(row, number, config)
    except (pa.ArrowException, OSError) as error:
        where = f"after row {number}" if number else "at its start"
        yield BadRow(0, f"damaged Parquet file: unreadable {where} ({' '.join(str(error).split())})")


def _open_plain_or_gzip(path: Path) -> io.BufferedIOBase:
    with path.open("rb") as file:
        is_gzip = file.read(2) == b"\x1f\x8b"
    return gzip.open(path, "rb") if is_gzip else path.open("rb")


def _read_lines(file: io.BufferedIOBase, max_bytes: int) -> Iterator[bytes]:
    """Lines; of one longer than `max_bytes`, only that many bytes and one more."""
    while line := file.readline(max_bytes + 1):
        rest = line
        while not rest.endswith(b"\n") and (rest := file.readline(1 << 20)):
            pass
        yield line


def _parse(line: bytes, number: int, config: CollectConfig) -> Row | BadRow:
    try:
        value = json.loads(line.decode("utf-8"), parse_constant=_null)
    except UnicodeDecodeError as error:
        return BadRow(number, f"invalid UTF-8: byte {error.start} of the line")
    except (ValueError, RecursionError) as error:
        return BadRow(number, f"bad JSON: {error}")
    return _row(value, number, config)


def _to_json(row: dict[str, Any]) -> str:
    try:
        return json.dumps(row, ensure_ascii=False, default=str, allow_nan=False)
    except ValueError:  # a Parquet column holds NaN or infinity
        finite = json.loads(json.dumps(row, default=str), parse_constant=_null)
        return json.dumps(finite, ensure_ascii=False)


def _null(constant: str) -> None:
    """NaN and Infinity, which JSON does not have (RFC 8259, section 6)."""


def _row(value: Any, number: int, config: CollectConfig) -> Row | BadRow:
    if not isinstance(value, dict):
        return BadRow(number, f"bad row: expected an object, found {type(value).__name__}")
    if not isinstance(value.get(config.text_column), str):
        columns = ", ".join(sorted(map(str, value)))[:200]
        fault = f"no text: column {config.text_column!r} holds no string"
        return BadRow(number, f"{fault} (columns: {columns}); set text_column")
    row = _with_standard_names(value, config)
    try:
        body = _to_json(row).encode("utf-8")
    except UnicodeEncodeError:
        return BadRow(number, "invalid Unicode: half of a surrogate pair")
    if len(body) > config.max_document_bytes:
        return BadRow(number, f"too long: a row of {len(body)} bytes")
    url = row.get("url") if config.url_column else None
    return Row(number, url if isinstance(url, str) and url else None, body)


def _with_standard_names(row: dict[str, Any], config: CollectConfig) -> dict[str, Any]:
    renamed = {"text": config.text_column, "id": config.id_column, "url": config.url_column}
    standard = {name: row[column] for name, column in renamed.items() if column is not None and column in row}
    others = {key: value for key, value in row.items() if key not in renamed.values() and key not in standard}
    return {**standard, **others}
