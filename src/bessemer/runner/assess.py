"""What a run would do with each stage, and why. Reads only."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from bessemer.errors import DamagedArtifact
from bessemer.recipe import Recipe, StagePlan
from bessemer.runner.cost import read_attempts
from bessemer.runner.identity import Identity, differences, identify
from bessemer.runner.layout import RunFolder
from bessemer.runner.manifest import Artifact, open_artifact, read_manifest
from bessemer.runner.selection import Selection

State = Literal["up to date", "would run", "would continue", "damaged"]


@dataclass(frozen=True)
class Verdict:
    """What a run would do with one stage."""

    stage: str
    kind: str
    state: State
    reasons: tuple[str, ...] = ()
    artifact: Artifact | None = None
    """The verified artifact, when it is up to date."""


def assess(plan: StagePlan, identity: Identity, run: RunFolder) -> Verdict:
    """Judge a stage whose inputs are finished.

    Raises DamagedArtifact when its artifact is what is wanted but its files are not as recorded.
    """
    folder = run.artifact(plan.name)
    reasons = ["never ran"]
    if folder.exists():
        manifest = read_manifest(folder)
        reasons = differences(identity, manifest)
        if not reasons:
            return Verdict(plan.name, plan.kind, "up to date", artifact=open_artifact(folder))
    partial = run.partial(plan.name)
    if partial.read_key() == identity.key:
        attempts = len(read_attempts(partial.attempts))
        begun = f"an earlier attempt was cut short ({attempts} so far)"
        return Verdict(plan.name, plan.kind, "would continue", (begun,))
    return Verdict(plan.name, plan.kind, "would run", tuple(reasons))


def assess_all(recipe: Recipe, run: RunFolder, selection: Selection) -> list[Verdict]:
    """Judge every selected stage, as `run --dry-run` shows it.

    What a stage downstream of one that would run will find is not known; it is listed as would run.
    """
    verdicts: list[Verdict] = []
    finished: dict[str, Artifact] = {}
    for plan in selection.stages(recipe):
        unfinished = [name for name in suppliers(plan) if name not in finished]
        if plan.name in selection.discarded(recipe):
            verdict = Verdict(plan.name, plan.kind, "would run", ("--from asks for it",))
        elif unfinished:
            verdict = Verdict(plan.name, plan.kind, "would run", (f"after {', '.join(unfinished)}",))
        else:
            try:
                verdict = assess(plan, identify(plan, recipe.seed, inputs_of(plan, finished)), run)
            except DamagedArtifact as error:
                verdict = Verdict(plan.name, plan.kind, "damaged", (str(error),))
        if verdict.artifact is not None:
            finished[plan.name] = verdict.artifact
        verdicts.append(verdict)
    return verdicts


def suppliers(plan: StagePlan) -> list[str]:
    """Names of the stages that a stage reads from, each once."""
    return list(dict.fromkeys(name for names in plan.inputs.values() for name in names))


def inputs_of(plan: StagePlan, finished: Mapping[str, Artifact]) -> dict[str, Sequence[Artifact]]:
    """The artifacts that a stage reads, by kind."""
    return {kind: [finished[name] for name in names] for kind, names in plan.inputs.items()}
