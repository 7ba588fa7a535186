"""The parallel part: ranges of records, each to a shard of rows on disk, independent of all others.

A shard is four files in the scratch folder and a seal (`shard-00007.json`) with their checksums, written
last. A shard whose seal is missing, made by another config or input, or does not match is redone.
"""

import hashlib
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice, pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from bessemer.curate.config import CurateConfig
from bessemer.curate.judge import judge
from bessemer.curate.records import is_page, read_candidate
from bessemer.formats.parquet_shards import parquet_bytes
from bessemer.formats.warc import WarcRecord, read_warc
from bessemer.runner.files import sha256_of, write_atomically
from bessemer.runner.manifest import digest_of_json

SHARD_VERSION = 1
"""Raise when the content of a shard changes for the same config and input."""


@dataclass(frozen=True)
class ShardTask:
    """`num_items` records and damaged stretches of one file, from a record's offset on."""

    number: int
    path: Path
    offset: int
    num_items: int
    fingerprint: str

    def seal_path(self, scratch: Path) -> Path:
        return scratch / f"shard-{self.number:05}.json"


@dataclass(frozen=True)
class Shard:
    """A finished shard."""

    folder: Path
    number: int
    num_rows: int
    num_other_records: int

    def _path(self, suffix: str) -> Path:
        return self.folder / f"shard-{self.number:05}.{suffix}"

    def table(self, columns: list[str] | None = None) -> pa.Table:
        return pq.read_table(self._path("parquet"), columns=columns)

    def signatures(self) -> NDArray[np.uint32]:
        """[rows that no rule dropped, hashes], in row order."""
        return np.load(self._path("signatures.npy"), allow_pickle=False)

    def shingle_sets(self) -> list[NDArray[np.uint64]]:
        """One sorted set per row that no rule dropped: views of a memory-mapped file."""
        offsets = np.load(self._path("offsets.npy"), allow_pickle=False)
        shingles = np.load(self._path("shingles.npy"), mmap_mode="r", allow_pickle=False)
        return [shingles[start:end] for start, end in pairwise(offsets)]


def plan_shards(paths: Sequence[Path], config: CurateConfig, inputs_digest: str) -> list[ShardTask]:
    """Cut every file into ranges of about `config.records_per_shard` items, each starting at a record.

    A range starts where reading can start: at a record that opens its own gzip member. Reads every
    file once without looking into the records.
    """
    settings = config.model_dump(mode="json")
    tasks: list[ShardTask] = []

    def add(path: Path, offset: int, num_items: int) -> None:
        place = {"file": path.name, "offset": offset, "num_items": num_items, "number": len(tasks)}
        identity = {"version": SHARD_VERSION, "config": settings, "inputs": inputs_digest, **place}
        tasks.append(ShardTask(len(tasks), path, offset, num_items, digest_of_json(identity)))

    for path in paths:
        start, num_items, greatest_offset = 0, 0, -1
        for item in read_warc(path):
            is_start = isinstance(item, WarcRecord) and item.offset > greatest_offset
            if num_items >= config.records_per_shard and is_start:
                add(path, start, num_items)
                start, num_items = item.offset, 0
            greatest_offset = max(greatest_offset, item.offset)
            num_items += 1
        if num_items:
            add(path, start, num_items)
    return tasks


def finished_shard(task: ShardTask, scratch: Path) -> Shard | None:
    """The shard of a task when an earlier attempt completed it and its files are intact."""
    try:
        seal = json.loads(task.seal_path(scratch).read_bytes())
        if seal["fingerprint"] != task.fingerprint:
            return None
        if any(sha256_of(scratch / name) != digest for name, digest in seal["files"].items()):
            return None
    except (FileNotFoundError, json.JSONDecodeError):
        return None
    return Shard(scratch, task.number, seal["num_rows"], task.num_items - seal["num_rows"])


def make_shard(task: ShardTask, config: CurateConfig, scratch: Path) -> Shard:
    """Read, extract, identify, edit, measure and judge a range of records; write the shard and its seal."""
    items = islice(read_warc(task.path, task.offset), task.num_items)
    candidates = [
        read_candidate(item, config.max_page_bytes, config.max_nesting, config.max_undecodable)
        for item in items
        if is_page(item)
    ]
    judged = judge(candidates, config)
    stem = f"shard-{task.number:05}"
    contents = {
        f"{stem}.parquet": parquet_bytes(judged.table),
        f"{stem}.signatures.npy": _npy_bytes(judged.signatures),
        f"{stem}.shingles.npy": _npy_bytes(judged.shingles),
        f"{stem}.offsets.npy": _npy_bytes(judged.shingle_offsets),
    }
    for name, content in contents.items():
        write_atomically(scratch / name, content)
    seal = {
        "fingerprint": task.fingerprint,
        "files": {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()},
        "num_rows": len(candidates),
    }
    write_atomically(task.seal_path(scratch), json.dumps(seal).encode())
    return Shard(scratch, task.number, len(candidates), task.num_items - len(candidates))


def _npy_bytes(array: NDArray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return buffer.getvalue()
