"""What decides an artifact: equal identity, equal bytes, nothing to do."""

import glob
import hashlib
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from bessemer.config import deciding
from bessemer.recipe import StagePlan
from bessemer.runner.files import sha256_of
from bessemer.runner.manifest import Artifact, Manifest, digest_of_json


@dataclass(frozen=True)
class Identity:
    """Everything that the content of an artifact depends on."""

    stage_kind: str
    format_version: int
    config: dict[str, Any]
    seed: int
    inputs: dict[str, list[str]]
    """Artifact kind → digests, in recipe order."""
    outside_files: dict[str, str]
    """Path → checksum of what the stage reads besides its inputs."""

    @cached_property
    def key(self) -> str:
        return digest_of_json(asdict(self))


def identify(plan: StagePlan, recipe_seed: int, inputs: Mapping[str, Sequence[Artifact]]) -> Identity:
    """The identity of a stage, given its finished inputs."""
    return Identity(
        stage_kind=plan.kind,
        format_version=plan.stage.format_version,
        config=deciding(plan.config.model_dump(mode="json")),
        seed=stage_seed(recipe_seed, plan.name),
        inputs={kind: [artifact.manifest.digest for artifact in inputs[kind]] for kind in plan.inputs},
        outside_files=checksums(plan.stage.outside_files(plan.config)),
    )


def checksums(patterns: Iterable[str]) -> dict[str, str]:
    """Path → SHA-256 of every file that is named, lies in a named folder or matches a named glob."""
    files: set[str] = set()
    for pattern in patterns:
        pattern = os.path.expanduser(pattern)
        for name in glob.glob(pattern, recursive=True) or [pattern]:
            path = Path(name)
            if path.is_dir():
                inside = [file for file in path.rglob("*") if not _is_hidden(file.relative_to(path))]
            else:
                inside = [path]
            files |= {str(file) for file in inside if file.is_file()}
    return {name: sha256_of(Path(name)) for name in sorted(files)}


def _is_hidden(path: Path) -> bool:
    """Hidden files and what lies in hidden folders are not read by collect either."""
    return any(part.startswith(".") for part in path.parts)


def stage_seed(recipe_seed: int, stage: str) -> int:
    """A seed in [0, 2**32) (what every library takes), different for every stage of a recipe."""
    return int.from_bytes(hashlib.sha256(f"{recipe_seed}/{stage}".encode()).digest()[:4], "big")


def differences(identity: Identity, manifest: Manifest) -> list[str]:
    """In words, why an artifact with this manifest is not what `identity` asks for; empty if it is."""
    if manifest.key == identity.key:
        return []
    found = []
    if manifest.stage_kind != identity.stage_kind:
        found.append(f"kind changed: {manifest.stage_kind} → {identity.stage_kind}")
    if manifest.format_version != identity.format_version:
        found.append(f"format version changed: {manifest.format_version} → {identity.format_version}")
    old, new = dict(flatten(manifest.config)), dict(flatten(identity.config))
    for name in sorted(old.keys() | new.keys()):
        if old.get(name) != new.get(name):
            found.append(f"config changed: {name} {_shown(old, name)} → {_shown(new, name)}")
    for kind in sorted(manifest.inputs.keys() | identity.inputs.keys()):
        if manifest.inputs.get(kind) != identity.inputs.get(kind):
            found.append(f"inputs changed: {kind}")
    if manifest.seed != identity.seed:
        found.append(f"seed changed: {manifest.seed} → {identity.seed}")
    return found or ["the files that the config names have changed"]


def flatten(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """`{"a": {"b": 1}}` → ("a.b", 1). Lists and empty mappings stay whole."""
    if isinstance(value, Mapping) and value:
        for key, part in value.items():
            yield from flatten(part, f"{name}.{key}" if name else str(key))
    else:
        yield name, value


def _shown(values: Mapping[str, Any], name: str) -> str:
    if name not in values:
        return "(absent)"
    text = repr(values[name])
    return text if len(text) <= 60 else text[:57] + "…"
