"""Parquet files `stem-00000.parquet`, `stem-00001.parquet`, … of bounded size, each written atomically."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from bessemer.errors import BessemerError
from bessemer.runner.files import written_atomically


@dataclass(frozen=True)
class ParquetEncoding:
    """How columns are written. Never changes what is read."""

    repetitive_columns: Sequence[str] | None = None
    """Columns that are written through a dictionary of their values; None for all."""
    compression_level: int | None = None
    """Of zstd; None for its default."""


class ShardedParquetWriter:
    """Collects tables and writes a shard whenever about `max_shard_bytes` (in memory) have come together.

    Bytes depend only on the rows, the order of the tables and the bound. Use as a context manager:
    leaving it without an error writes the rest; at least one shard is written, so that a reader always
    finds the schema. Files of the same stem that an earlier attempt left are deleted first.
    """

    def __init__(
        self,
        folder: Path,
        stem: str,
        schema: pa.Schema,
        max_shard_bytes: int,
        encoding: ParquetEncoding = ParquetEncoding(),
    ) -> None:
        self._folder = folder
        self._encoding = encoding
        self._stem = stem
        self._schema = schema
        self._max_shard_bytes = max_shard_bytes
        self._waiting: list[pa.Table] = []
        self._waiting_bytes = 0
        self._num_shards = 0
        folder.mkdir(parents=True, exist_ok=True)
        for pattern in (f"{stem}-*.parquet", f".{stem}-*.parquet.partial"):
            for leftover in sorted(folder.glob(pattern)):
                leftover.unlink()

    def write(self, table: pa.Table) -> None:
        """Append rows. The columns must be those of the schema, in any order."""
        table = table.select(self._schema.names)
        self._waiting.append(table if table.schema.equals(self._schema) else table.cast(self._schema))
        self._waiting_bytes += table.nbytes
        if self._waiting_bytes >= self._max_shard_bytes:
            self._write_shard()

    def _write_shard(self) -> None:
        # One chunk per column: row groups must not depend on how the rows were batched.
        table = pa.concat_tables([self._schema.empty_table(), *self._waiting]).combine_chunks()
        table = table.replace_schema_metadata(self._schema.metadata)
        # Given up before the file is made: rows are held twice for a moment, not three times.
        self._waiting, self._waiting_bytes = [], 0
        path = self._folder / shard_name(self._stem, self._num_shards)
        with written_atomically(path) as file:
            _write_parquet(table, file, self._encoding)
        self._num_shards += 1

    def finish(self) -> None:
        """Write the rows that wait; what leaving the context does, too."""
        if self._waiting or self._num_shards == 0:
            self._write_shard()

    def __enter__(self) -> "ShardedParquetWriter":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self.finish()


def finish_together(writers: Sequence[ShardedParquetWriter]) -> None:
    """Finish writers side by side: compression runs outside of Python's lock."""
    with ThreadPoolExecutor(len(writers)) as pool:
        for _ in pool.map(ShardedParquetWriter.finish, writers):
            pass


def shard_name(stem: str, number: int) -> str:
    """`documents-00003.parquet`."""
    return f"{stem}-{number:05}.parquet"


def shard_paths(folder: Path, stem: str) -> list[Path]:
    """The shards of a stem in order. Raises BessemerError when there are none."""
    paths = sorted(folder.glob(f"{stem}-*.parquet"))
    if not paths:
        raise BessemerError(
            f"{folder} holds no {stem}-*.parquet: give the folder of an artifact that has {stem}"
        )
    return paths


def _write_parquet(table: pa.Table, file: BinaryIO, encoding: ParquetEncoding) -> None:
    """A table as a Parquet file with zstd compression."""
    columns = encoding.repetitive_columns
    pq.write_table(
        table,
        file,
        compression="zstd",
        compression_level=encoding.compression_level,
        use_dictionary=True if columns is None else list(columns),  # pyright: ignore[reportArgumentType]
    )
