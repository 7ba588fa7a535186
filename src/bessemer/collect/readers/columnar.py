"""Parquet and Arrow IPC files (what `datasets.save_to_disk` writes)."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from bessemer.collect.config import CollectConfig
from bessemer.collect.readers.compressed import BOMB_REASON, max_inflated_bytes
from bessemer.collect.readers.pages import Fault, Page
from bessemer.collect.readers.rows import RowReader

_ROWS_PER_BATCH = 64
"""Small: a dictionary page of one long text can stand for every row of a batch."""
_ROW_BYTES = 16
"""What a row counts beside its text: a few bytes can stand for a billion empty rows."""
_UNREADABLE = (pa.ArrowException, OSError, ValueError, OverflowError, MemoryError)


def read_parquet(path: Path, config: CollectConfig) -> Iterator[Page | Fault]:
    """A page for each row. Of a damaged row group, the rest is reported; the other groups are read."""
    return _read(path, config, "Parquet", _parquet_groups)


def read_arrow(path: Path, config: CollectConfig) -> Iterator[Page | Fault]:
    """A page for each row of an Arrow IPC stream or file. A damaged batch is reported, the others are read;
    of a stream, those before it."""
    return _read(path, config, "Arrow", _arrow_batches)


@dataclass(frozen=True)
class _Lost:
    """Rows that cannot be read."""

    what: str
    reason: str
    num_rows: int
    """0 where it is not known."""


_Batches = Iterator[pa.RecordBatch | _Lost]


def _read(
    path: Path, config: CollectConfig, kind: str, batches: Callable[[Path], _Batches]
) -> Iterator[Page | Fault]:
    rows = RowReader(config)
    number, budget = 0, max_inflated_bytes(path.stat().st_size)
    try:
        for batch in batches(path):
            if isinstance(batch, _Lost):
                yield Fault(str(number + 1), f"damaged {kind} file: {batch.what} ({batch.reason})")
                number += batch.num_rows
                continue
            for value in _values(batch):
                number += 1
                budget -= _ROW_BYTES
                items = [Fault(str(number), value)] if isinstance(value, str) else rows.read(value, number)
                for item in items:
                    budget -= len(item.body) if isinstance(item, Page) else 0
                    yield item
                if budget < 0:
                    yield Fault(str(number + 1), f"decompression bomb: {BOMB_REASON}")
                    return
    except _UNREADABLE as error:
        where = f"after row {number}" if number else "at its start"
        yield Fault("", f"damaged {kind} file: unreadable {where} ({_one_line(error)})")


def _parquet_groups(path: Path) -> _Batches:
    with pq.ParquetFile(path, page_checksum_verification=True) as file:
        for group in range(file.num_row_groups):
            num_rows = max(0, file.metadata.row_group(group).num_rows)
            num_read = 0
            try:
                for batch in file.iter_batches(batch_size=_ROWS_PER_BATCH, row_groups=[group]):
                    num_read += batch.num_rows
                    yield batch
                reason = "it ends too early" if num_read < num_rows else None
            except _UNREADABLE as error:
                reason = _one_line(error)
            if reason is not None:
                num_lost = num_rows - num_read
                yield _Lost(f"{num_lost} rows of row group {group} are unreadable", reason, num_lost)


def _arrow_batches(path: Path) -> _Batches:
    with pa.OSFile(str(path), "rb") as file:
        is_file = file.read(6) == b"ARROW1"
        file.seek(0)
        if not is_file:
            for batch in pa.ipc.open_stream(file):
                yield from _checked(batch)
            return
        reader = pa.ipc.open_file(file)
        for index in range(reader.num_record_batches):
            try:
                batch = reader.get_batch(index)
            except _UNREADABLE as error:
                yield _Lost(f"record batch {index} is unreadable", _one_line(error), 0)
            else:
                yield from _checked(batch)


def _checked(batch: pa.RecordBatch) -> _Batches:
    """A batch in parts.

    Arrow reads the format without checks: an offset beyond its buffer would crash the process. A batch
    whose buffers are all there is checked row by row, so that one bad row costs itself alone.
    """
    try:
        batch.validate()
    except _UNREADABLE as error:
        yield _Lost("a record batch is unreadable", _one_line(error), 0)
        return
    for start in range(0, batch.num_rows, _ROWS_PER_BATCH):
        part = batch.slice(start, _ROWS_PER_BATCH)
        if _invalidity(part) is None:
            yield part
            continue
        for row in range(part.num_rows):
            single = part.slice(row, 1)
            reason = _invalidity(single)
            yield single if reason is None else _Lost("the row is unreadable", reason, 1)


def _invalidity(batch: pa.RecordBatch) -> str | None:
    try:
        batch.validate(full=True)
    except _UNREADABLE as error:
        return _one_line(error)
    return None


def _values(batch: pa.RecordBatch) -> Iterator[dict[str, Any] | str]:
    """Rows as Python values, or why a row has none."""
    try:
        yield from batch.to_pylist()
        return
    except (pa.ArrowException, ValueError, OverflowError):  # one value is enough: find it
        pass
    for index in range(batch.num_rows):
        try:
            (value,) = batch.slice(index, 1).to_pylist()
        except (pa.ArrowException, ValueError, OverflowError) as error:
            kind = "invalid UTF-8" if isinstance(error, UnicodeDecodeError) else "bad row"
            yield f"{kind}: {_one_line(error)}"
        else:
            yield value


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:300]
