"""Deduplication of documents in Parquet files, without the rest of curation: `deduplicate`."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from bessemer.curate.dedup.config import DuplicateConfig
from bessemer.curate.dedup.cutting import cut_lines
from bessemer.curate.dedup.file_shards import FileShard, fingerprint_file
from bessemer.curate.dedup.fingerprints import array_names
from bessemer.curate.dedup.marks import Marker
from bessemer.curate.dedup.parts import Parts
from bessemer.curate.dedup.resolve import STAYS, VERSION, Duplicates, find_duplicates
from bessemer.errors import BessemerError
from bessemer.formats.documents import DEFAULT_SHARD_BYTES, DOCUMENTS_STEM
from bessemer.formats.parquet_shards import ShardedParquetWriter, finish_together
from bessemer.runner.ahead import taken_ahead
from bessemer.runner.context import Metrics
from bessemer.runner.executors import available_cpus, open_executor
from bessemer.runner.manifest import digest_of_json

DROPPED_STEM = "dropped"
DROPPED_SCHEMA = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),
        pa.field("dropped_rule", pa.string(), nullable=False),
        ("duplicate_survivor", pa.string()),
        ("duplicate_partner", pa.string()),
        ("duplicate_similarity", pa.float64()),
    ]
)
"""Columns as in the ledger."""
_OPTIONAL = ("url", "source", "fetched_at")


def deduplicate(
    files: Sequence[Path],
    output: Path,
    scratch: Path,
    config: DuplicateConfig,
    num_workers: int | None = None,
    say: Callable[[str], None] = print,
) -> Metrics:
    """Write the documents of `files` that stay, and the evidence, to `output`.

    Each file is Parquet with string columns `id` (unique) and `text`, and `url`, `source` and `fetched_at`
    if it has them; all files have the same columns, which `documents-*.parquet` has as well.
    `dropped-*.parquet` names every document that went with its rule, survivor, partner and similarity,
    `duplicate_pairs-*.parquet` every confirmed pair. A file is fingerprinted by one of `num_workers`
    processes (by default one a CPU). Bytes depend on the input alone. `scratch` keeps what is finished for
    the same files after a kill; delete it at the end. Raises BessemerError for wrong files, and when too
    much would go.
    """
    schema = _common_schema(files, config)
    settings = config.model_dump(mode="json")
    states = [[str(path), path.stat().st_size, path.stat().st_mtime_ns] for path in files]
    identity = digest_of_json({"version": VERSION, "config": settings, "files": states})
    folder = scratch / "fingerprints"
    parts = Parts(folder, identity)
    shards = [FileShard(path, folder, f"file-{number:05}") for number, path in enumerate(files)]
    names = array_names(config)
    waiting = [
        shard for shard in shards if not all(parts.is_done(f"{shard.stem}.{name}.npy") for name in names)
    ]
    # Compiled code on numbers: nothing in it can bring this process down.
    with open_executor(num_workers=num_workers, num_tasks=len(waiting), takes_part=True) as executor:
        for _ in executor.map(partial(fingerprint_file, config=config, identity=identity), waiting):
            pass
    num_threads = num_workers or available_cpus()
    found = find_duplicates(shards, config, scratch / "duplicates", num_threads, say, identity)
    num_kept = _write(shards, found, config, schema, output)
    return {"records": len(found.rule), "documents": num_kept} | found.metrics


def _common_schema(files: Sequence[Path], config: DuplicateConfig) -> pa.Schema:
    if not files:
        raise BessemerError("no files to deduplicate: give at least one Parquet file")
    schemas = [pq.read_schema(path).remove_metadata() for path in files]
    wanted = {"newest": "fetched_at", "oldest": "fetched_at"}.get(config.survivor, config.survivor_value)
    faults = []
    for path, schema in zip(files, schemas, strict=True):
        for name in ("id", "text"):
            if name not in schema.names or not _is_string(schema.field(name).type):
                faults.append(f"{path} has no column {name!r} of strings")
        faults += [
            f"{path}: column {name!r} holds no strings"
            for name in _OPTIONAL
            if name in schema.names and not _is_string(schema.field(name).type)
        ]
        if wanted is not None and wanted not in schema.names:
            faults.append(f"{path} has no column {wanted!r}, by which survivor: {config.survivor} chooses")
        if schema != schemas[0]:
            faults.append(f"{path} has other columns than {files[0]}: give files of one kind at a time")
    if faults:
        raise BessemerError("; ".join(faults))
    return schemas[0]


def _is_string(kind: pa.DataType) -> bool:
    return pa.types.is_string(kind) or pa.types.is_large_string(kind)


def _write(
    shards: Sequence[FileShard],
    duplicates: Duplicates,
    config: DuplicateConfig,
    schema: pa.Schema,
    output: Path,
) -> int:
    """Write what stays and the evidence; returns the number of documents that stay."""
    marker = Marker(shards, duplicates, config.min_similarity)
    num_kept = at = 0
    with (
        ShardedParquetWriter(output, DOCUMENTS_STEM, schema, DEFAULT_SHARD_BYTES) as documents,
        ShardedParquetWriter(output, DROPPED_STEM, DROPPED_SCHEMA, DEFAULT_SHARD_BYTES) as dropped,
    ):
        for batch in taken_ahead(batch for shard in shards for batch in shard.kept(schema.names)):
            rows = np.arange(at, at + batch.num_rows)
            at += batch.num_rows
            table, evidence = _part(batch, rows, duplicates, marker)
            documents.write(table)
            dropped.write(evidence)
            num_kept += table.num_rows
        finish_together([documents, dropped])
    marker.write_pairs(output, DEFAULT_SHARD_BYTES)
    return num_kept


def _part(
    batch: pa.Table, rows: NDArray[np.int64], duplicates: Duplicates, marker: Marker
) -> tuple[pa.Table, pa.Table]:
    """The rows of a batch that stay, cut, and the evidence of those that go."""
    goes = duplicates.rule[rows] != STAYS
    verdicts = marker.verdicts(rows[goes])
    columns = {name: verdicts.get(name) for name in DROPPED_SCHEMA.names}
    columns["id"] = batch["id"].filter(pa.array(goes)).cast(pa.string())
    evidence = pa.table(columns, schema=DROPPED_SCHEMA)
    staying = batch.filter(pa.array(~goes))
    if not np.isin(rows, duplicates.cuts.rows).any():
        return staying, evidence
    lines = [duplicates.cuts.of_row(int(row)) for row in rows[~goes]]
    texts = [
        cut_lines(text or "", some)[0] if some else text
        for text, some in zip(staying["text"].to_pylist(), lines, strict=True)
    ]
    place = staying.schema.get_field_index("text")
    field = staying.schema.field(place)
    staying = staying.set_column(place, field, pa.array(texts, field.type))
    is_empty = np.array([bool(some) and not text for text, some in zip(texts, lines, strict=True)], np.bool_)
    rules = [lines[i][0][1] for i in np.flatnonzero(is_empty)]
    emptied = {"id": staying["id"].filter(pa.array(is_empty)).cast(pa.string()), "dropped_rule": rules}
    nothing = [None] * len(rules)
    others = {name: nothing for name in DROPPED_SCHEMA.names if name not in emptied}
    evidence = pa.concat_tables([evidence, pa.table(emptied | others, schema=DROPPED_SCHEMA)])
    return staying.filter(pa.array(~is_empty)), evidence
