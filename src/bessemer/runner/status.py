"""How far runs are, from their manifests alone: quick, no checksums, no stage code imported."""

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import yaml

from bessemer.errors import BessemerError, DamagedArtifact
from bessemer.runner.cost import read_attempts
from bessemer.runner.freshness import stale_reasons
from bessemer.runner.layout import RunFolder
from bessemer.runner.locks import lock_holder
from bessemer.runner.manifest import MANIFEST_NAME, Manifest, read_manifest
from bessemer.runner.progress import data_size, duration

Status = Literal["done", "stale", "running", "cut short", "not begun", "damaged"]
"""`stale`: finished, but not from what the recipe and the stages before it would give now."""


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
    detail: str = ""
    """Why it is stale or damaged."""

    @property
    def is_finished(self) -> bool:
        """Whether there is an artifact to look at, up to date or not."""
        return self.status in ("done", "stale")


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
    options: dict[str, dict[str, Any]] = {}
    stages, manifests = [], {}
    for item in recipe["stages"]:
        ((kind, given),) = item.items()
        options[given["name"]] = given
        status, manifest = _stage_status(run, given["name"], kind, is_held=holder is not None)
        stages.append(status)
        if manifest is not None:
            manifests[given["name"]] = manifest
    stale = stale_reasons(options, manifests)
    marked = [
        replace(stage, status="stale", detail=stale[stage.name])
        if stage.status == "done" and stage.name in stale
        else stage
        for stage in stages
    ]
    return RunStatus(recipe["name"], str(run.root), holder, tuple(marked))


def stale_note(folder: Path) -> str | None:
    """A line about the artifact that a folder lies in when it is out of date; None when all is well.

    Folders that belong to no run are always well.
    """
    for artifact in (folder, folder.parent):
        run = RunFolder(artifact.parent)
        if (artifact / MANIFEST_NAME).is_file() and run.recipe.is_file():
            for stage in run_status(run).stages:
                if stage.name == artifact.name and stage.status == "stale":
                    return f"{artifact} is out of date ({stage.detail}); run the recipe again to renew it"
    return None


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
        if stage.detail:
            line += f"  {stage.detail}"
        lines.append(line.rstrip())
    return "\n".join(lines)


def _stage_status(
    run: RunFolder, name: str, kind: str, *, is_held: bool
) -> tuple[StageStatus, Manifest | None]:
    """The state of one stage by itself, and the manifest of its artifact when there is one."""
    manifest, fault = None, ""
    if run.artifact(name).exists():
        try:
            manifest = read_manifest(run.artifact(name))
        except DamagedArtifact as error:
            fault = str(error)
    partial = run.partial(name)
    if partial.root.exists():
        attempts = read_attempts(partial.attempts)
        wall_s = sum(attempt["wall_s"] for attempt in attempts)
        state: Status = "running" if is_held else "cut short"
        return StageStatus(name, kind, state, wall_s, attempts=len(attempts)), manifest
    if manifest is None:
        state = "damaged" if fault else "not begun"
        return StageStatus(name, kind, state, 0.0, detail=fault), None
    size_bytes = sum(entry.size_bytes for entry in manifest.files)
    cost = manifest.cost
    return StageStatus(name, kind, "done", cost.wall_s, manifest.digest, size_bytes, cost.attempts), manifest


def _read_recipe(run: RunFolder) -> dict[str, Any]:
    try:
        return yaml.safe_load(run.recipe.read_text(encoding="utf-8"))
    except (FileNotFoundError, yaml.YAMLError) as error:
        raise BessemerError(
            f"{run.recipe} cannot be read ({error}): run the recipe again, it is written anew"
        ) from error
