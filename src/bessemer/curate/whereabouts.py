"""Where a document of a curated artifact ended: its row among the documents, its range among the tokens."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow.parquet as pq

from bessemer.errors import BessemerError
from bessemer.formats.documents import DOCUMENTS_STEM
from bessemer.formats.parquet_shards import shard_paths
from bessemer.runner.layout import RunFolder
from bessemer.runner.manifest import MANIFEST_NAME, Artifact, read_manifest

ASSUMED_CHARACTERS_PER_TOKEN = 4.0
"""Of English text and a vocabulary of some ten thousand tokens; used where the run has no tokens yet."""


@dataclass(frozen=True)
class TokenRate:
    """How many tokens a character of text becomes."""

    tokens_per_character: float
    is_measured: bool
    """From the run's own tokens; else assumed."""


def curate_config(folder: Path) -> Mapping[str, Any]:
    """The config that an artifact's manifest records; empty where there is no manifest."""
    return read_manifest(folder).config if (folder / MANIFEST_NAME).is_file() else {}


def sources_of(folder: Path, kind: str) -> list[Artifact]:
    """Artifacts of a kind, in the same run, that this one was made from."""
    if not (folder / MANIFEST_NAME).is_file():
        return []
    manifest = read_manifest(folder)
    found = [folder.parent / stage for stage in manifest.input_stages.get(kind, [])]
    artifacts = [Artifact(path, read_manifest(path)) for path in found if (path / MANIFEST_NAME).is_file()]
    return [each for each in artifacts if each.manifest.digest in manifest.inputs.get(kind, [])]


def made_from(folder: Path, kind: str) -> list[Artifact]:
    """Artifacts of a kind, in the same run, that were made from this one as it is now."""
    if not (folder / MANIFEST_NAME).is_file():
        return []
    own = read_manifest(folder)
    artifacts = [Artifact(path, read_manifest(path)) for path in RunFolder(folder.parent).artifacts()]
    return [
        each
        for each in artifacts
        if each.kind == kind and own.digest in each.manifest.inputs.get(own.kind, [])
    ]


def token_rate(folder: Path) -> TokenRate:
    """Tokens per character of these documents, measured where the run has encoded them."""
    characters = read_manifest(folder).metrics.get("characters") if curate_config(folder) else None
    for artifact in made_from(folder, "tokens"):
        metrics = artifact.manifest.metrics
        num_tokens = metrics.get("train_tokens", 0) + metrics.get("validation_tokens", 0)
        if characters and num_tokens:
            return TokenRate(num_tokens / characters, True)
    return TokenRate(1 / ASSUMED_CHARACTERS_PER_TOKEN, False)


def document_rows(folder: Path, ids: Sequence[str]) -> dict[str, list[dict[str, Any]]]:
    """Id → its places among the documents: `file`, and `row` from 0. Ids that are not there are left out."""
    wanted = set(ids)
    found: dict[str, list[dict[str, Any]]] = {}
    for path in shard_paths(folder, DOCUMENTS_STEM):
        column = pl.Series(pq.read_table(path, columns=["id"])["id"])
        for row in column.is_in(list(wanted)).arg_true():
            found.setdefault(column[row], []).append({"file": path.name, "row": row})
    return found


def token_ranges(folder: Path, id: str) -> list[dict[str, Any]]:
    """Where a document's tokens lie, in every `tokens` artifact of the run that was made from this folder.

    Entries hold `stage`, `split`, `file`, `start` and `end` (in tokens from the file's beginning, the end
    not included, the end-of-text token included).
    """
    ranges = []
    for artifact in made_from(folder, "tokens"):
        for path in sorted(artifact.folder.glob("*.index.parquet")):
            index = pl.read_parquet(path).filter(pl.col("document_id") == id)
            bin_name = path.name.removesuffix(".index.parquet") + ".bin"
            for row in index.iter_rows(named=True):
                ranges.append(
                    {
                        "stage": artifact.stage,
                        "split": bin_name.rpartition("-")[0],
                        "file": bin_name,
                        "start": row["offset"],
                        "end": row["offset"] + row["num_tokens"],
                    }
                )
    return ranges


def document_texts(folder: Path, ids: Sequence[str], max_characters: int | None = None) -> dict[str, str]:
    """Id → text (its head) of kept documents, each read once; ids that are not there are left out."""
    try:
        paths = shard_paths(folder, DOCUMENTS_STEM)
    except BessemerError:
        return {}
    text = pl.col("text") if max_characters is None else pl.col("text").str.head(max_characters)
    rows = pl.scan_parquet(paths).filter(pl.col("id").is_in(list(ids))).select("id", text).collect()
    return dict(rows.rows())
