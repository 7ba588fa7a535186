"""The parallel part: ranges of WARC files, each to a shard of rows on disk, independent of all others.

A shard is some files in the scratch folder and a seal (`shard-00007.json`) with their checksums, written
last. A shard whose seal is missing, made by another config or input, or does not match is redone.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from bessemer.curate.config import CurateConfig
from bessemer.curate.dedup.fingerprints import FingerprintFiles
from bessemer.curate.judge import is_kept, judge
from bessemer.curate.ranges import ByteRange, RangeReader, cut
from bessemer.curate.records import Candidate, is_page, read_candidate
from bessemer.curate.shard_files import ShardFiles
from bessemer.errors import BessemerError
from bessemer.formats.warc import WarcDamage, WarcRecord
from bessemer.runner.files import sha256_of
from bessemer.runner.manifest import digest_of_json

SHARD_VERSION = 4
"""Raise when the content of a shard changes for the same config and input."""
_MIN_SHARD_BYTES, _MAX_SHARD_BYTES = 512 << 10, 8 << 20
_SHARDS_WANTED = 64
_BATCH_CHARACTERS = 4 << 20
_BATCH_ROWS = 1000


@dataclass(frozen=True)
class ShardTask:
    """A range of records to turn into the shard of this number."""

    number: int
    range: ByteRange
    fingerprint: str
    """Digest of all that the shard's content depends on."""

    def __str__(self) -> str:
        return str(self.range)


@dataclass(frozen=True)
class Shard:
    """A finished shard."""

    folder: Path
    number: int
    num_rows: int
    num_other_records: int
    first: int | None
    """Offset of the first record or damaged stretch; None when the range holds none."""
    following: int | None
    """Offset of the first record of a later range; None at the end of the file."""

    def _path(self, suffix: str) -> Path:
        return self.folder / f"{_stem(self.number)}.{suffix}"

    def table(self, columns: list[str] | None = None) -> pa.Table:
        return pq.read_table(self._path("parquet"), columns=columns)

    def batches(self, columns: list[str] | None = None) -> Iterator[pa.Table]:
        """The table in parts of bounded size, in row order; the parts depend on nothing but the input."""
        with pq.ParquetFile(self._path("parquet")) as file:
            for group in range(file.num_row_groups):
                # Groups are small: handing their hundred columns to threads takes longer than reading them.
                yield file.read_row_group(group, columns=columns, use_threads=False)

    def kept(self, columns: list[str]) -> Iterator[pa.Table]:
        """Some columns of the rows that no rule dropped, in parts of bounded size."""
        for batch in self.batches(list({"verdict", *columns})):
            yield batch.select(columns).filter(is_kept(batch))

    def fingerprints(self) -> FingerprintFiles:
        """Of the rows that no rule dropped."""
        return FingerprintFiles(self.folder, _stem(self.number))


def plan_shards(files: Mapping[str, Path], config: CurateConfig, inputs_digest: str) -> list[ShardTask]:
    """A task for every range of at most `config.shard_bytes`. `files`: name in the ledger → path."""
    settings = config.model_dump(mode="json")
    total_bytes = sum(path.stat().st_size for path in files.values())
    tasks = []
    for number, range_ in enumerate(cut(files, config.shard_bytes or default_shard_bytes(total_bytes))):
        place = {"file": range_.name, "start": range_.start, "end": range_.end, "number": number}
        identity = {"version": SHARD_VERSION, "config": settings, "inputs": inputs_digest, **place}
        tasks.append(ShardTask(number, range_, digest_of_json(identity)))
    return tasks


def default_shard_bytes(total_bytes: int) -> int:
    """A size that gives even small inputs enough shards to share out, and large ones bounded memory."""
    return min(max(total_bytes // _SHARDS_WANTED, _MIN_SHARD_BYTES), _MAX_SHARD_BYTES)


def is_sealed(task: ShardTask, scratch: Path) -> bool:
    """Whether an earlier attempt says that it completed the task's shard; a look at its seal alone."""
    seal = _read_seal(task, scratch)
    return seal is not None and seal["fingerprint"] == task.fingerprint


def finished_shard(task: ShardTask, scratch: Path) -> Shard | None:
    """The shard of a task when an earlier attempt completed it and its files are intact."""
    seal = _read_seal(task, scratch)
    if seal is None or seal["fingerprint"] != task.fingerprint:
        return None
    try:
        if any(sha256_of(scratch / name) != digest for name, digest in seal["files"].items()):
            return None
    except FileNotFoundError:
        return None
    return Shard(scratch, task.number, **seal["shard"])


def _read_seal(task: ShardTask, scratch: Path) -> dict[str, Any] | None:
    try:
        return json.loads((scratch / f"{_stem(task.number)}.json").read_bytes())
    except (FileNotFoundError, ValueError):
        return None


def make_shard(task: ShardTask, config: CurateConfig, scratch: Path) -> Shard:
    """Read, extract, identify, edit, measure and judge a range of records; write the shard and its seal.

    Holds one batch of documents at a time, however large the range is. Raises BessemerError when this
    process does not see the scratch folder.
    """
    if not scratch.is_dir():
        raise BessemerError(
            f"{scratch} is not there for the worker that should write to it: on a cluster, run folder and "
            "pages must lie on a file system that every node mounts at the same path"
        )
    reader = RangeReader(task.range)
    num_rows = 0
    with ShardFiles(scratch, _stem(task.number)) as files:
        for candidates in _batches(reader, config):
            files.write(judge(candidates, config))
            num_rows += len(candidates)
        num_others = reader.num_items - num_rows
        shard = Shard(scratch, task.number, num_rows, num_others, reader.first, reader.following)
        facts = asdict(shard)
        del facts["folder"], facts["number"]
        files.seal({"fingerprint": task.fingerprint, "shard": facts})
    return shard


def _batches(items: Iterable[WarcRecord | WarcDamage], config: CurateConfig) -> Iterator[list[Candidate]]:
    """Candidates in lists of about `_BATCH_CHARACTERS` of text; one empty list when there are none."""
    batch: list[Candidate] = []
    num_characters = 0
    is_first = True
    for item in items:
        if not is_page(item):
            continue
        candidate = read_candidate(item, config)
        batch.append(candidate)
        num_characters += len(candidate.text)
        if num_characters >= _BATCH_CHARACTERS or len(batch) >= _BATCH_ROWS:
            yield batch
            batch, num_characters, is_first = [], 0, False
    if batch or is_first:
        yield batch


def _stem(number: int) -> str:
    return f"shard-{number:05}"
