"""Writing the files of one shard, batch by batch, under names of this process until all are complete."""

import json
import os
import socket
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any

import pyarrow.parquet as pq

from bessemer.curate.judge import JUDGED_SCHEMA, Judged
from bessemer.curate.npy_appender import NpyAppender
from bessemer.runner.files import sha256_of


class ShardFiles:
    """`<stem>.parquet`, `<stem>.<name>.npy` for each array of the fingerprints, and the seal `<stem>.json`.

    Two processes may write the same shard at once (a cluster that takes a worker for dead), so each
    writes under names of its own and renames; both write the same bytes. Nothing is fsynced: a shard
    counts only while the checksums in its seal match, and what a power cut spoils is redone.
    """

    def __init__(self, folder: Path, stem: str) -> None:
        self._folder = folder
        self._stem = stem
        self._own = f".partial-{socket.gethostname()}-{os.getpid()}"
        self._names = [f"{stem}.parquet"]
        self._closing = ExitStack()
        # Statistics and dictionaries help queries; nobody queries a shard.
        self._table = pq.ParquetWriter(
            self._partial(self._names[0]),
            JUDGED_SCHEMA,
            compression="zstd",
            use_dictionary=False,
            write_statistics=False,
        )
        self._closing.callback(self._table.close)
        self._arrays: dict[str, NpyAppender] = {}

    def write(self, judged: Judged) -> None:
        """Append a batch."""
        self._table.write_table(judged.table, row_group_size=max(1, judged.table.num_rows))
        for name, array in judged.fingerprints.arrays.items():
            self._appender(name).append(array)

    def seal(self, facts: dict[str, Any]) -> None:
        """Complete the files and say so: from here on the shard counts."""
        self._table.close()
        for array in self._arrays.values():
            array.close()
        checksums = {name: sha256_of(self._partial(name)) for name in self._names}
        for name in self._names:
            os.replace(self._partial(name), self._folder / name)
        seal = f"{self._stem}.json"
        self._partial(seal).write_text(json.dumps(facts | {"files": checksums}))
        os.replace(self._partial(seal), self._folder / seal)

    def _appender(self, name: str) -> NpyAppender:
        if name not in self._arrays:
            file_name = f"{self._stem}.{name}.npy"
            self._names.append(file_name)
            self._arrays[name] = NpyAppender(self._partial(file_name))
            self._closing.callback(self._arrays[name].abandon)
        return self._arrays[name]

    def _partial(self, name: str) -> Path:
        return self._folder / f".{name}{self._own}"

    def __enter__(self) -> "ShardFiles":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closing.close()
        for name in self._names:
            self._partial(name).unlink(missing_ok=True)
