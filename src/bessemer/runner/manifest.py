"""Manifests: what an artifact is, what it came from, and the checksums that prove its bytes.

`manifest.json` lies in every artifact folder. Its `digest` covers the names and checksums of the
files that the stage's inputs decide; files that hold measurements of this very run (times, rates)
are listed with checksums too, but marked `measured` and left out of the digest, so that the digest
of two runs with equal inputs is equal.
"""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from bessemer.errors import DamagedArtifact
from bessemer.runner.files import sha256_of, write_atomically

MANIFEST_NAME = "manifest.json"
METRICS_NAME = "metrics.jsonl"


class FileEntry(BaseModel):
    """One file of an artifact."""

    path: str
    """Relative to the artifact folder, with forward slashes."""
    size_bytes: int
    sha256: str
    measured: bool = False
    """True when the content depends on how long things took; left out of the digest."""


class Cost(BaseModel):
    """What a stage cost on this machine, summed over every attempt that contributed."""

    wall_s: float = 0.0
    cpu_s: float = 0.0
    peak_memory_bytes: int = 0
    flops: float = 0.0
    """Floating-point operations of training and generation, by formula, zero elsewhere."""
    energy_wh: float = 0.0
    """Estimated watt hours: CPU seconds at an assumed 10 W a core."""
    attempts: int = 1


class Manifest(BaseModel):
    """Everything needed to trust an artifact and to trace it."""

    model_config = ConfigDict(protected_namespaces=())

    kind: str
    stage: str
    stage_kind: str
    format_version: int
    digest: str
    key: str
    """Digest of inputs, config, seed and format version: equal key, nothing to do."""
    inputs: dict[str, list[str]]
    """Artifact kind → digests, in recipe order."""
    input_stages: dict[str, list[str]]
    config: dict[str, Any]
    seed: int
    versions: dict[str, str]
    files: list[FileEntry]
    metrics: dict[str, Any]
    cost: Cost
    created_at: str
    """ISO 8601, UTC."""


def digest_of_files(files: Iterable[FileEntry]) -> str:
    """SHA-256 over the sorted (path, checksum) pairs of the files that inputs decide."""
    digest = hashlib.sha256()
    for entry in sorted(files, key=lambda entry: entry.path):
        if not entry.measured:
            digest.update(f"{entry.path}\0{entry.sha256}\n".encode())
    return digest.hexdigest()


def digest_of_json(value: Any) -> str:
    """SHA-256 of a JSON value in canonical form (sorted keys, no spaces)."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


@dataclass(frozen=True)
class Artifact:
    """A finished artifact on disk."""

    folder: Path
    manifest: Manifest

    @property
    def kind(self) -> str:
        return self.manifest.kind

    @property
    def stage(self) -> str:
        return self.manifest.stage

    @property
    def metrics_path(self) -> Path:
        return self.folder / METRICS_NAME

    def files(self, pattern: str) -> list[Path]:
        """Files of the artifact that match a glob, sorted by name."""
        return sorted(self.folder.glob(pattern))


def list_files(folder: Path, measured: Iterable[str] = ()) -> list[FileEntry]:
    """Entries for every file under `folder` but the manifest and the metrics, sorted by path.

    Files whose path matches one of the `measured` patterns (as in a shell) are marked so.
    """
    patterns = tuple(measured)
    entries = []
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_file() and name not in (MANIFEST_NAME, METRICS_NAME):
            entries.append(
                FileEntry(
                    path=name,
                    size_bytes=path.stat().st_size,
                    sha256=sha256_of(path),
                    measured=any(fnmatch(name, pattern) for pattern in patterns),
                )
            )
    return entries


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write manifest.json so that it is either whole or absent."""
    write_atomically(folder / MANIFEST_NAME, manifest.model_dump_json(indent=2).encode() + b"\n")


def read_manifest(folder: Path) -> Manifest:
    """Read manifest.json without checking the files. Raises DamagedArtifact."""
    path = folder / MANIFEST_NAME
    try:
        return Manifest.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        raise DamagedArtifact(
            f"{path} is missing: {folder} is not a finished artifact. {how_to_redo(folder)}"
        ) from None
    except ValidationError as error:
        raise DamagedArtifact(
            f"{path} cannot be read ({error.error_count()} faults, first: {error.errors()[0]['msg']}). "
            f"{how_to_redo(folder)}"
        ) from error


def open_artifact(folder: Path) -> Artifact:
    """Open an artifact after comparing every file with its recorded size and checksum.

    Raises DamagedArtifact that names every file that is missing, cut short or changed.
    """
    manifest = read_manifest(folder)
    faults = [fault for entry in manifest.files if (fault := _fault_of(folder, entry))]
    if faults:
        raise DamagedArtifact(
            f"artifact {folder} is damaged:\n  " + "\n  ".join(faults) + f"\n{how_to_redo(folder)}"
        )
    return Artifact(folder, manifest)


def how_to_redo(folder: Path) -> str:
    """How a user mends an artifact that cannot be used."""
    return f"Delete the folder {folder}, or run with --from {folder.name}: the stage will be redone."


def _fault_of(folder: Path, entry: FileEntry) -> str | None:
    path = folder / entry.path
    if not path.is_file():
        return f"{entry.path}: missing"
    size_bytes = path.stat().st_size
    if size_bytes != entry.size_bytes:
        return f"{entry.path}: {size_bytes} bytes, expected {entry.size_bytes}"
    if sha256_of(path) != entry.sha256:
        return f"{entry.path}: checksum differs from the one recorded when it was written"
    return None
