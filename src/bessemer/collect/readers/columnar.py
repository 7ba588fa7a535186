"""Parquet and Arrow IPC files (what `datasets.save_to_disk` writes)."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from bessemer.collect.config import CollectConfig
from bessemer.collect.readers.pages import Fault, Page
from bessemer.collect.readers.rows import RowReader

_ROWS_PER_BATCH = 64
"""Small: a dictionary page of one long text can stand for every row of a batch."""
_UNREADABLE = (pa.ArrowException, OSError, ValueError, OverflowError, MemoryError)


def read_parquet(path: Path, config: CollectConfig) -> Iterator[Page | Fault]:
    """A page for each row. A file that is damaged is reported from the damage on."""
    return _read(path, config, "Parquet", _parquet_batches)


def read_arrow(path: Path, config: CollectConfig) -> Iterator[Page | Fault]:
    """A page for each row of an Arrow IPC stream or file. Damage is reported from where it begins."""
    return _read(path, config, "Arrow", _arrow_batches)


def _read(
    path: Path, config: CollectConfig, kind: str, batches: Callable[[Path], Iterator[pa.RecordBatch]]
) -> Iterator[Page | Fault]:
    rows = RowReader(config)
    number = 0
    try:
        for batch in batches(path):
            for value in _values(batch):
                number += 1
                if isinstance(value, str):
                    yield Fault(str(number), value)
                else:
                    yield from rows.read(value, number)
    except _UNREADABLE as error:
        where = f"after row {number}" if number else "at its start"
        yield Fault("", f"damaged {kind} file: unreadable {where} ({_one_line(error)})")


def _parquet_batches(path: Path) -> Iterator[pa.RecordBatch]:
    with pq.ParquetFile(path) as file:
        yield from file.iter_batches(batch_size=_ROWS_PER_BATCH)


def _arrow_batches(path: Path) -> Iterator[pa.RecordBatch]:
    with pa.OSFile(str(path), "rb") as file:
        is_file = file.read(6) == b"ARROW1"
        file.seek(0)
        if is_file:
            reader = pa.ipc.open_file(file)
            batches = (reader.get_batch(index) for index in range(reader.num_record_batches))
        else:
            batches = iter(pa.ipc.open_stream(file))
        for batch in batches:
            # The format is read without checks: an offset beyond the buffer would crash the process.
            batch.validate(full=True)
            for start in range(0, batch.num_rows, _ROWS_PER_BATCH):
                yield batch.slice(start, _ROWS_PER_BATCH)


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
