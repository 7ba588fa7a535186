"""Documents: curated text as Parquet (zstd), one row a document, in input order.

`documents-00000.parquet`, … open in polars, duckdb, pandas and `datasets`.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq

from bessemer.formats.parquet_shards import ShardedParquetWriter, shard_paths

if TYPE_CHECKING:
    import polars as pl

DOCUMENTS_STEM = "documents"
DEFAULT_SHARD_BYTES = 256 << 20

DOCUMENT_SCHEMA = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),
        pa.field("text", pa.large_string(), nullable=False),
        ("url", pa.string()),
        ("source", pa.string()),
        ("fetched_at", pa.string()),
        ("title", pa.string()),
        ("language", pa.string()),
        ("language_score", pa.float64()),
        ("metadata", pa.string()),
    ]
)
"""`id`: digest of URL and content, 32 hexadecimal digits. `text`: newlines are `\\n`. `source`: the
corpus, or the host it came from. `fetched_at`: ISO 8601, UTC. `language`: ISO 639 code with the
identifier's probability in `language_score`. `metadata`: a JSON object."""


class DocumentWriter(ShardedParquetWriter):
    """Writes documents into shards of at most about `max_shard_bytes`; see `ShardedParquetWriter`."""

    def __init__(self, folder: Path, max_shard_bytes: int = DEFAULT_SHARD_BYTES) -> None:
        super().__init__(folder, DOCUMENTS_STEM, DOCUMENT_SCHEMA, max_shard_bytes)


def read_documents(
    folder: Path, columns: list[str] | None = None, batch_rows: int = 1024
) -> Iterator[pa.RecordBatch]:
    """Batches of documents in order, with bounded memory. Raises BessemerError when there are none."""
    for path in shard_paths(folder, DOCUMENTS_STEM):
        with pq.ParquetFile(path) as file:
            yield from file.iter_batches(batch_size=batch_rows, columns=columns)


def scan_documents(folder: Path) -> "pl.LazyFrame":
    """The documents as a lazy frame. Raises BessemerError when there are none."""
    import polars as pl  # takes longer to import than a writer takes to write

    return pl.scan_parquet(shard_paths(folder, DOCUMENTS_STEM))


def count_documents(folder: Path) -> int:
    """Number of documents, from the files' footers alone."""
    return sum(pq.read_metadata(path).num_rows for path in shard_paths(folder, DOCUMENTS_STEM))
