"""`run --dry-run`: beside the verdicts, a forecast of each stage that would run and can be tried on a sample.

Only a stage whose inputs are finished can be tried. The trial writes into a folder that is deleted; what
stays is the forecast (see `runner.forecast`).
"""

import shutil
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from bessemer.recipe import Recipe, StagePlan
from bessemer.runner.assess import Verdict, inputs_of, suppliers
from bessemer.runner.context import Reporter, StageContext
from bessemer.runner.executors import LOCAL, check_place
from bessemer.runner.forecast import Forecast, new_forecast, save_forecast
from bessemer.runner.identity import identify
from bessemer.runner.layout import RunFolder
from bessemer.runner.locks import hold_lock, lock_holder
from bessemer.runner.manifest import Artifact


@dataclass(frozen=True)
class DryRun:
    """What a run would do, and what it would give and cost as far as that can be told."""

    verdicts: Sequence[Verdict]
    forecasts: Sequence[Forecast]
    notes: Sequence[str]
    """Why a stage could not be tried."""

    @property
    def is_damaged(self) -> bool:
        return any(verdict.state == "damaged" for verdict in self.verdicts)

    def to_json(self) -> dict[str, Any]:
        """`stages`: name, kind, state, reasons; `forecasts` as in the run folder; `notes`."""
        return {
            "stages": [
                {"name": each.stage, "kind": each.kind, "state": each.state, "reasons": list(each.reasons)}
                for each in self.verdicts
            ],
            "forecasts": [forecast.to_json() for forecast in self.forecasts],
            "notes": list(self.notes),
        }


def predict(
    recipe: Recipe, run_folder: Path, verdicts: Sequence[Verdict], reporter: Reporter, on: str = LOCAL
) -> DryRun:
    """Try the stages that would run on samples; `verdicts` are those of `run.dry_run`.

    What a trial raises passes through: the run itself would stop in the same way.
    """
    check_place(on)
    run = RunFolder(run_folder)
    plans = {plan.name: plan for plan in recipe.stages}
    finished = {each.stage: each.artifact for each in verdicts if each.artifact is not None}
    forecasts, notes = [], []
    for verdict in verdicts:
        plan = plans[verdict.stage]
        if verdict.state not in ("would run", "would continue") or plan.stage.forecast is None:
            continue
        unfinished = [name for name in suppliers(plan) if name not in finished]
        if unfinished:
            waits = ", ".join(unfinished)
            notes.append(
                f"{plan.name}: no forecast before {waits} has run: bessemer run … --until {unfinished[-1]}"
            )
        elif (holder := lock_holder(run.lock)) is not None:
            notes.append(f"{plan.name}: no forecast while {holder} works in {run.root}")
        else:
            with hold_lock(run.lock):
                forecasts.append(_try(plan, recipe, finished, run, reporter, on))
    return DryRun(verdicts, forecasts, notes)


def _try(
    plan: StagePlan,
    recipe: Recipe,
    finished: Mapping[str, Artifact],
    run: RunFolder,
    reporter: Reporter,
    on: str,
) -> Forecast:
    start_s = time.monotonic()
    inputs = inputs_of(plan, finished)
    identity = identify(plan, recipe.seed, inputs)
    # On the disk of the run, and named so that the next run deletes what a kill leaves.
    work = Path(tempfile.mkdtemp(prefix=f".{plan.name}-forecast-", suffix=".old", dir=run.root))
    try:
        context = StageContext(
            stage=plan.name,
            seed=identity.seed,
            output=work / "output",
            scratch=work / "scratch",
            inputs=inputs,
            reporter=reporter,
            metrics_path=work / "metrics.jsonl",
            on=on,
        )
        context.output.mkdir()
        context.scratch.mkdir()
        prediction = plan.stage.forecast_function()(plan.config, context)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    conditions = {"on": on, **prediction.conditions}
    forecast = new_forecast(
        plan.name, identity.key, time.monotonic() - start_s, replace(prediction, conditions=conditions)
    )
    save_forecast(run, forecast)
    return forecast
