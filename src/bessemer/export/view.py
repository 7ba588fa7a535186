"""A run as the report, the card and the summary see it: from its folder, or from inside its export stage."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml

from bessemer.errors import BessemerError
from bessemer.evaluation.statistics import Estimate
from bessemer.formats.jsonl import read_jsonl
from bessemer.runner.context import StageContext
from bessemer.runner.forecast import Forecast, read_forecast
from bessemer.runner.layout import RunFolder
from bessemer.runner.manifest import Artifact, read_manifest
from bessemer.runner.status import run_status

RESULTS = "results.json"


@dataclass(frozen=True)
class StageView:
    """One stage of a run, finished or not."""

    name: str
    kind: str
    status: str
    """`done`, `running`, `cut short`, `not begun` or `damaged`."""
    wall_s: float
    artifact: Artifact | None
    metrics_path: Path | None
    """metrics.jsonl, also of a stage that is still at work."""

    @property
    def digest(self) -> str | None:
        return self.artifact.manifest.digest if self.artifact else None

    @property
    def metrics(self) -> Mapping[str, Any]:
        """What the stage returned; empty until it is done."""
        return self.artifact.manifest.metrics if self.artifact else {}


@dataclass(frozen=True)
class RunView:
    """A run: its stages in recipe order, and what its evaluation found."""

    name: str
    stages: tuple[StageView, ...]
    results: Mapping[str, Mapping[str, Estimate]] = field(default_factory=dict)
    """Model → figure → estimate; empty when nothing was evaluated."""
    key_definition: str = ""
    """When an answer counts as right."""
    answers: Mapping[str, Sequence[Mapping[str, Any]]] = field(default_factory=dict)
    """Model → judged answers, in the order of the questions."""
    forecasts: Sequence[Forecast] = ()
    """Of stages that were tried on a sample before they ran, in recipe order."""

    @property
    def artifacts(self) -> list[Artifact]:
        """Finished artifacts in recipe order."""
        return [stage.artifact for stage in self.stages if stage.artifact]

    def of_kind(self, kind: str) -> list[Artifact]:
        """Finished artifacts of a kind, in recipe order."""
        return [artifact for artifact in self.artifacts if artifact.kind == kind]

    def last(self, kind: str) -> Artifact | None:
        """The last finished artifact of a kind."""
        return (self.of_kind(kind) or [None])[-1]

    def of_stage_kind(self, *kinds: str) -> list[StageView]:
        """Stages of these kinds, in recipe order."""
        return [stage for stage in self.stages if stage.kind in kinds]


def view_of_folder(run_folder: Path) -> RunView:
    """A run from its folder, finished or not. Quick: no checksums. Raises BessemerError."""
    run = RunFolder(run_folder)
    status = run_status(run)
    stages = []
    for each in status.stages:
        artifact = None
        metrics_path = run.partial(each.name).metrics
        if each.is_finished:
            artifact = Artifact(run.artifact(each.name), read_manifest(run.artifact(each.name)))
            metrics_path = artifact.metrics_path
        stages.append(StageView(each.name, each.kind, each.status, each.wall_s, artifact, metrics_path))
    forecasts = [found for each in stages if (found := read_forecast(run, each.name)) is not None]
    return replace(_with_evaluation(status.name, stages), forecasts=forecasts)


def view_of_context(context: StageContext) -> RunView:
    """The run that the export stage belongs to, from the stage's inputs alone.

    The order is the recipe's where `context.run` has it, else the order of completion.
    """
    artifacts = {artifact.stage: artifact for group in context.inputs.values() for artifact in group}
    stages = [
        _stage_of(name, kind, artifacts.get(name), context)
        for name, kind in _recipe_stages(context.run.get("recipe", ""))
        if name in artifacts or name == context.stage
    ]
    if not stages:
        ordered = sorted(artifacts.values(), key=lambda artifact: artifact.manifest.created_at)
        stages = [_stage_of(each.stage, each.manifest.stage_kind, each, context) for each in ordered]
    return _with_evaluation(str(context.run.get("name", context.stage)), stages)


def _stage_of(name: str, kind: str, artifact: Artifact | None, context: StageContext) -> StageView:
    if artifact is None:
        return StageView(name, kind, "running", 0.0, None, context.metrics_path)
    return StageView(name, kind, "done", artifact.manifest.cost.wall_s, artifact, artifact.metrics_path)


def _recipe_stages(recipe: str) -> list[tuple[str, str]]:
    """(name, kind) of every stage of a resolved recipe."""
    items = (yaml.safe_load(recipe) or {}).get("stages", [])
    pairs = [next(iter(item.items())) for item in items]
    return [(options["name"], kind) for kind, options in pairs]


def _with_evaluation(name: str, stages: Sequence[StageView]) -> RunView:
    """The view, with results and answers of the last finished evaluation."""
    plain = RunView(name, tuple(stages))
    evaluation = plain.last("evaluation")
    if evaluation is None:
        return plain
    path = evaluation.folder / RESULTS
    try:
        document = json.loads(path.read_bytes())
    except (FileNotFoundError, ValueError) as error:
        raise BessemerError(
            f"{path} cannot be read ({error}): run with --from {evaluation.stage}, it is made again"
        ) from error
    results = {
        model: {figure: _estimate(value) for figure, value in row.items()}
        for model, row in document["models"].items()
    }
    answers = {
        model: list(read_jsonl(path, required=("text", "group", "answer", "verdict")))
        for model in results
        if (path := evaluation.folder / f"answers-{model}.jsonl").is_file()
    }
    return RunView(name, plain.stages, results, document.get("key_definition", ""), answers)


def _estimate(value: Mapping[str, Any]) -> Estimate:
    """An estimate from JSON, where a figure that rests on nothing may be null."""
    numbers = {name: math.nan if value[name] is None else value[name] for name in ("value", "low", "high")}
    return Estimate(**numbers, n=value["n"])
