"""Bring a run folder up to date with a recipe: skip what is done, continue what was cut short."""

import shutil
import time
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from bessemer.errors import BessemerError, RaisedElsewhere
from bessemer.recipe import Recipe, StagePlan
from bessemer.runner.assess import Verdict, assess, assess_all, inputs_of
from bessemer.runner.context import Reporter
from bessemer.runner.execute import discard, execute
from bessemer.runner.executors import LOCAL, check_place
from bessemer.runner.files import is_disk_full, remove_folder, write_atomically
from bessemer.runner.forecast import describe_forecast, settle
from bessemer.runner.identity import identify
from bessemer.runner.layout import RunFolder
from bessemer.runner.locks import hold_lock
from bessemer.runner.manifest import Artifact
from bessemer.runner.progress import PlainReporter, TeeReporter, duration
from bessemer.runner.selection import Selection


@dataclass(frozen=True)
class StageResult:
    """What a run did with one stage."""

    stage: str
    kind: str
    state: Literal["done", "up to date"]
    wall_s: float
    """Seconds that this run spent on the stage, with checksums."""
    artifact: Artifact

    def to_json(self) -> dict[str, Any]:
        """What was done with it, and the artifact's digest and folder."""
        return {
            "stage": self.stage,
            "kind": self.kind,
            "state": self.state,
            "wall_s": round(self.wall_s, 3),
            "digest": self.artifact.manifest.digest,
            "folder": str(self.artifact.folder),
        }


def run_recipe(
    recipe: Recipe,
    run_folder: Path,
    reporter: Reporter,
    from_stage: str | None = None,
    until: str | None = None,
    on: str = LOCAL,
) -> list[StageResult]:
    """Make every artifact of the recipe in `run_folder`; what is up to date is verified and kept.

    `from_stage` is redone with everything after it; nothing after `until` is run. `on` says where the
    parallel parts of stages run (see `runner.executors`), which changes no byte. Every artifact
    is verified against its checksums once, before it is used. Raises ConfigError for unknown names,
    DamagedArtifact when a file is not as recorded, BessemerError when another process works in the
    folder or the disk is full. Finished stages are kept in every case.
    """
    selection = Selection(from_stage, until)
    selection.check(recipe)
    check_place(on)
    run = RunFolder(run_folder)
    run.root.mkdir(parents=True, exist_ok=True)
    with _full_disk_explained(run.root), hold_lock(run.lock), _logged(run, reporter) as logged:
        for leftover in sorted(run.root.glob(".*.old")):
            shutil.rmtree(leftover)
        for stage in selection.discarded(recipe):
            discard(run, stage)
        write_atomically(run.recipe, recipe.to_yaml().encode())
        facts = {
            "name": recipe.name,
            "started_at": datetime.now(UTC).isoformat(timespec="seconds"),
            "recipe": recipe.to_yaml(),
        }
        results: list[StageResult] = []
        for plan in selection.stages(recipe):
            finished = {result.stage: result.artifact for result in results}
            results.append(_bring_up_to_date(plan, recipe, finished, run, logged, facts, on))
        return results


def dry_run(
    recipe: Recipe, run_folder: Path, from_stage: str | None = None, until: str | None = None
) -> list[Verdict]:
    """What `run_recipe` would do with each stage, and why. Changes nothing.

    `runner.predict` then tells what the stages would give and cost.
    """
    selection = Selection(from_stage, until)
    selection.check(recipe)
    return assess_all(recipe, RunFolder(run_folder), selection)


def _bring_up_to_date(
    plan: StagePlan,
    recipe: Recipe,
    finished: Mapping[str, Artifact],
    run: RunFolder,
    reporter: Reporter,
    facts: Mapping[str, Any],
    on: str,
) -> StageResult:
    start_s = time.monotonic()
    inputs = inputs_of(plan, finished)
    identity = identify(plan, recipe.seed, inputs)
    verdict = assess(plan, identity, run)
    if verdict.artifact is not None:
        reporter.say(f"{plan.name}: up to date")
        remove_folder(run.partial(plan.name).root)
        return StageResult(plan.name, plan.kind, "up to date", time.monotonic() - start_s, verdict.artifact)
    verb = "continues" if verdict.state == "would continue" else "runs"
    reporter.say(f"{plan.name}: {verb} ({'; '.join(verdict.reasons)})")
    artifact = execute(plan, identity, inputs, run, reporter, facts, on)
    wall_s = time.monotonic() - start_s
    reporter.say(f"{plan.name}: done in {duration(wall_s)}, digest {artifact.manifest.digest[:12]}")
    if (forecast := settle(run, artifact.manifest, on)) is not None:
        reporter.say(describe_forecast(forecast))
    return StageResult(plan.name, plan.kind, "done", wall_s, artifact)


@contextmanager
def _logged(run: RunFolder, reporter: Reporter) -> Iterator[Reporter]:
    """A reporter that also writes log.txt, which gets the traceback of what goes wrong, too."""
    file = run.log.open("a", encoding="utf-8")
    log = PlainReporter(file, is_stamped=True)
    try:
        yield TeeReporter(reporter, log)
    except BaseException as error:
        with suppress(OSError):  # where the disk is full, that is the error to show, not this one
            log.say(_stopped(error))
        raise
    finally:
        with suppress(OSError):  # the same: closing writes what could not be written before
            file.close()


def _stopped(error: BaseException) -> str:
    """What the log says of what ended a run."""
    if isinstance(error, RaisedElsewhere):
        return f"stopped: {error}"
    is_expected = isinstance(error, (BessemerError, KeyboardInterrupt))
    return f"stopped: {error!r}" if is_expected else "".join(traceback.format_exception(error))


@contextmanager
def _full_disk_explained(folder: Path) -> Iterator[None]:
    """Turn a full disk into an error that says so, whatever library met it."""
    try:
        yield
    except Exception as error:
        if isinstance(error, BessemerError) or not is_disk_full(error):
            raise  # what it says for itself is nearer to the cause
        raise BessemerError(
            f"the disk is full: could not write to {folder}. Free some space and give the same command "
            "again: finished work is kept, and it continues from there."
        ) from error
