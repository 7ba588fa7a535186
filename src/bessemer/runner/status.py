"""How far runs are, from their manifests alone: quick, no checksums, no stage code imported."""

from dataclasses import asdict, dataclass
from typing import Any, Literal

import yaml

from bessemer.errors import BessemerError, DamagedArtifact
from bessemer.runner.cost import read_attempts
from bessemer.runner.layout import RunFolder
from bessemer.runner.locks import lock_holder
from bessemer.runner.manifest import read_manifest
from bessemer.runner.progress import data_size, duration

Status = Literal["done", "running", "cut short", "not begun", "damaged"]


@dataclass(frozen=True)
class StageStatus:
    """One stage of a run."""

    name: str
    kind: str
    status: Status
    wall_s: float
    """Seconds of all attempts so far."""
    digest: str | None = None
    size_bytes: int = 0
    attempts: int = 0


@dataclass(frozen=True)
class RunStatus:
    """One run."""

    name: str
    folder: str
    holder: str | None
    """The process that works in the folder now."""
    stages: tuple[StageStatus, ...]

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def run_status(run: RunFolder) -> RunStatus:
    """Read the state of every stage. Raises BessemerError when recipe.yaml cannot be read.

    Not to be called by the process that works in the folder (see `runner.locks`).
    """
    recipe = _read_recipe(run)
    holder = lock_holder(run.lock)
    stages = []
    for item in recipe["stages"]:
        ((kind, options),) = item.items()
        stages.append(_stage_status(run, options["name"], kind, is_held=holder is not None))
    return RunStatus(recipe["name"], str(run.root), holder, tuple(stages))


def describe_run(status: RunStatus) -> str:
    """A table for people."""
    lines = [f"{status.folder}" + (f"  (in use by {status.holder})" if status.holder else "")]
    width = max(len(stage.name) for stage in status.stages)
    for stage in status.stages:
        line = f"  {stage.name:{width}}  {stage.status:9}"
        if stage.wall_s:
            line += f"  {duration(stage.wall_s):>12}"
        if stage.digest:
            line += f"  {data_size(stage.size_bytes):>8}  {stage.digest[:12]}"
        if stage.attempts > 1:
            line += f"  ({stage.attempts} attempts)"
        lines.append(line.rstrip())
    return "\n".join(lines)


def _stage_status(run: RunFolder, name: str, kind: str, *, is_held: bool) -> StageStatus:
    partial = run.partial(name)
    if partial.root.exists():
        attempts = read_attempts(partial.attempts)
        wall_s = sum(attempt["wall_s"] for attempt in attempts)
        return StageStatus(name, kind, "running" if is_held else "cut short", wall_s, attempts=len(attempts))
    if not run.artifact(name).exists():
        return StageStatus(name, kind, "not begun", 0.0)
    try:
        manifest = read_manifest(run.artifact(name))
    except DamagedArtifact:
        return StageStatus(name, kind, "damaged", 0.0)
    return StageStatus(
        name,
        kind,
        "done",
        manifest.cost.wall_s,
        manifest.digest,
        sum(entry.size_bytes for entry in manifest.files),
        manifest.cost.attempts,
    )


def _read_recipe(run: RunFolder) -> dict[str, Any]:
    try:
        return yaml.safe_load(run.recipe.read_text(encoding="utf-8"))
    except (FileNotFoundError, yaml.YAMLError) as error:
        raise BessemerError(
            f"{run.recipe} cannot be read ({error}): run the recipe again, it is written anew"
        ) from error
