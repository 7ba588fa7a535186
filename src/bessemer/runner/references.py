"""What a user types for a run, an artifact or a model → a folder.

A run is a name in the runs folder or a path; `RUN:STAGE` is one of its artifacts. A model may also
be any model folder.
"""

from collections.abc import Iterable
from pathlib import Path

from bessemer.errors import BessemerError
from bessemer.recipe import nearest
from bessemer.runner.layout import RunFolder
from bessemer.runner.manifest import MANIFEST_NAME, Artifact, open_artifact, read_manifest

RUNS_FOLDER = Path("runs")
_MODEL_CONFIG = "config.json"
_INSIDE_ARTIFACT = ("", "model")
"""Where a model folder lies inside an artifact: itself, or its folder `model`."""


def find_run(text: str, runs_folder: Path = RUNS_FOLDER) -> RunFolder:
    """`quickstart` or `runs/quickstart` → the run folder. Raises BessemerError with the nearest name."""
    for root in (Path(text), runs_folder / text):
        if RunFolder(root).recipe.is_file():
            return RunFolder(root)
    known = [run.root.name for run in all_runs(runs_folder)]
    raise BessemerError(f"{text!r} is not a run folder{nearest(Path(text).name, known)} (in {runs_folder})")


def all_runs(runs_folder: Path = RUNS_FOLDER) -> list[RunFolder]:
    """Every run in a folder of runs, sorted by name."""
    if not runs_folder.is_dir():
        return []
    return [RunFolder(path.parent) for path in sorted(runs_folder.glob("*/recipe.yaml"))]


def find_artifact(
    text: str, kinds: Iterable[str] = (), runs_folder: Path = RUNS_FOLDER, *, verify: bool = True
) -> Artifact:
    """`RUN:STAGE`, or `RUN` for its newest artifact of the first of `kinds` that it has (or of any kind).

    Raises BessemerError when there is none, and DamagedArtifact when `verify` finds its files changed.
    """
    run_text, _, stage = text.partition(":")
    run = find_run(run_text, runs_folder)
    found = artifacts_in_order(run)
    if stage:
        chosen = [artifact for artifact in found if artifact.folder.name == stage]
        hint = nearest(stage, [artifact.folder.name for artifact in found])
        problem = f"{run.root} has no finished stage {stage!r}{hint}"
    else:
        chosen = found if not kinds else []
        for kind in kinds:
            chosen = chosen or [artifact for artifact in found if artifact.kind == kind]
        problem = f"{run.root} has no finished artifact of kind {' or '.join(kinds) or 'any'}"
    if not chosen:
        raise BessemerError(f"{problem}; `bessemer status {run.root}` shows how far it is")
    return open_artifact(chosen[-1].folder) if verify else chosen[-1]


def artifacts_in_order(run: RunFolder) -> list[Artifact]:
    """Finished artifacts of a run, not verified, each after those it was made from."""
    waiting = {artifact.stage: artifact for artifact in (_unverified(path) for path in run.artifacts())}
    ordered: dict[str, Artifact] = {}

    def place(artifact: Artifact) -> None:
        if artifact.stage in ordered or waiting.pop(artifact.stage, None) is None:
            return
        for stages in artifact.manifest.input_stages.values():
            for stage in stages:
                if stage in waiting:
                    place(waiting[stage])
        ordered[artifact.stage] = artifact

    for artifact in sorted(waiting.values(), key=lambda artifact: artifact.manifest.created_at):
        place(artifact)
    return list(ordered.values())


def find_model(text: str, runs_folder: Path = RUNS_FOLDER) -> Path:
    """A model folder, `RUN:STAGE`, or `RUN` (its export, else its last model) → a model folder.

    Artifacts are verified. Raises BessemerError that says what was looked for.
    """
    if (Path(text) / _MODEL_CONFIG).is_file() and not (Path(text) / MANIFEST_NAME).is_file():
        return Path(text)
    if (Path(text) / MANIFEST_NAME).is_file():
        artifact = open_artifact(Path(text))
    else:
        artifact = find_artifact(text, ("export", "model"), runs_folder)
    for inside in _INSIDE_ARTIFACT:
        if (artifact.folder / inside / _MODEL_CONFIG).is_file():
            return artifact.folder / inside
    raise BessemerError(f"{artifact.folder} holds {artifact.kind!r}, not a model: it has no {_MODEL_CONFIG}")


def _unverified(folder: Path) -> Artifact:
    return Artifact(folder, read_manifest(folder))
