"""Documents of a Parquet file as a shard of deduplication, and their fingerprints."""

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from bessemer.curate.dedup.config import DuplicateConfig
from bessemer.curate.dedup.fingerprints import FingerprintFiles, Subject, fingerprint
from bessemer.curate.dedup.parts import Parts
from bessemer.curate.measure import split
from bessemer.curate.npy_appender import NpyAppender

_BATCH_ROWS = 512


@dataclass(frozen=True)
class FileShard:
    """The documents of one Parquet file, and where their fingerprints lie."""

    file: Path
    folder: Path
    stem: str

    def __str__(self) -> str:
        return str(self.file)

    def fingerprints(self) -> FingerprintFiles:
        return FingerprintFiles(self.folder, self.stem)

    def kept(self, columns: list[str]) -> Iterator[pa.Table]:
        """Some columns of all rows; nulls where the file has no such column."""
        with pq.ParquetFile(self.file) as file:
            present = [name for name in columns if name in file.schema_arrow.names]
            # Handing the few columns of so few rows to threads takes longer than reading them.
            for batch in file.iter_batches(_BATCH_ROWS, columns=present, use_threads=False):
                table = pa.Table.from_batches([batch])
                for name in columns:
                    if name not in present:
                        table = table.append_column(name, pa.nulls(table.num_rows, pa.string()))
                yield table.select(columns)


def fingerprint_file(shard: FileShard, config: DuplicateConfig, identity: str) -> None:
    """Write the fingerprints of a file, batch by batch."""
    parts = Parts(shard.folder, identity)
    appenders: dict[str, NpyAppender] = {}
    with ExitStack() as closing:
        for texts, urls in _texts(shard):
            subjects = [Subject(url, text) for url, text in zip(urls, texts, strict=True)]
            for name, array in fingerprint(subjects, split(*texts), config).arrays.items():
                if name not in appenders:
                    appenders[name] = NpyAppender(parts.partial_path(f"{shard.stem}.{name}.npy"))
                    closing.callback(appenders[name].abandon)
                appenders[name].append(array)
        for name, appender in appenders.items():
            appender.close()
            parts.complete(f"{shard.stem}.{name}.npy")


def _texts(shard: FileShard) -> Iterator[tuple[list[str], list[str | None]]]:
    """Texts and URLs by batch; one empty batch when there are no rows, so that the arrays have a shape."""
    is_empty = True
    for batch in shard.kept(["text", "url"]):
        yield [text or "" for text in batch["text"].to_pylist()], batch["url"].to_pylist()
        is_empty = False
    if is_empty:
        yield [], []
