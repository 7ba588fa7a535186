"""The report of a run: one self-contained page, and the same numbers as JSON."""

import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from markupsafe import Markup

from bessemer.evaluation.statistics import Estimate
from bessemer.export.figures import estimate_text, total_cost
from bessemer.export.markup import tag
from bessemer.export.page import page
from bessemer.export.report_data import curation_section, documents_section, flow_section
from bessemer.export.report_models import answers_section, evaluation_section, training_section
from bessemer.export.report_proof import cost_section, forecast_section, lineage_section, versions_section
from bessemer.export.view import RunView, view_of_folder
from bessemer.runner.files import write_atomically
from bessemer.runner.progress import compact, duration

REPORT_NAME = "report.html"

_SECTIONS: tuple[tuple[str, str, Callable[[RunView], Markup | None]], ...] = (
    ("flow", "Flow", flow_section),
    ("evaluation", "Evaluation", evaluation_section),
    ("answers", "Answers", answers_section),
    ("training", "Training", training_section),
    ("curation", "Curation", curation_section),
    ("documents", "Pages", documents_section),
    ("cost", "Cost", cost_section),
    ("forecasts", "Forecasts", forecast_section),
    ("lineage", "Lineage", lineage_section),
    ("versions", "Environment", versions_section),
)
"""(id, name in the contents, builder that gives None where the run has nothing to show)."""


def write_report(run_folder: Path) -> Path:
    """Write `report.html` into a run folder, finished or not; returns its path. Raises BessemerError."""
    return _write(run_folder, render_report(view_of_folder(run_folder)))


def follow_report(run_folder: Path, every_s: float, sleep: Callable[[float], None] = time.sleep) -> Path:
    """Write the page anew every so many seconds until nothing is at work in the run any more.

    The page reloads itself as often, but for the last one. Raises BessemerError.
    """
    num_idle = 0
    while num_idle < 2:  # between two stages nothing is at work for a moment
        view = view_of_folder(run_folder)
        is_running = any(stage.status == "running" for stage in view.stages)
        num_idle = 0 if is_running else num_idle + 1
        if num_idle < 2:
            _write(run_folder, render_report(view, refresh_s=every_s))
            sleep(every_s)
    return write_report(run_folder)


def _write(run_folder: Path, text: str) -> Path:
    path = run_folder / REPORT_NAME
    write_atomically(path, text.encode("utf-8", "replace"))
    return path


def render_report(view: RunView, refresh_s: float | None = None) -> str:
    """The page as text. Sections for which the run holds nothing yet are left out."""
    built = [(id, name, part) for id, name, build in _SECTIONS if (part := build(view)) is not None]
    links = [(id, name) for id, name, _ in built]
    return page(
        view.name, _subtitle(view), links, [headline(view), *(part for _, _, part in built)], refresh_s
    )


def report_json(run_folder: Path) -> dict[str, Any]:
    """The run's numbers as plain data.

    `stages`: name, kind, status, wall_s, digest, in recipe order. `models`: by name of the stage, every
    figure as value, low, high (95 % interval) and n; what rests on nothing is null. `forecasts`: what
    `run --dry-run` predicted of stages, with what happened.
    """
    view = view_of_folder(run_folder)
    return {
        "name": view.name,
        "stages": [
            {
                "name": stage.name,
                "kind": stage.kind,
                "status": stage.status,
                "wall_s": stage.wall_s,
                "digest": stage.digest,
            }
            for stage in view.stages
        ],
        "models": {
            model: {figure: _plain(estimate) for figure, estimate in row.items()}
            for model, row in view.results.items()
        },
        "forecasts": [forecast.to_json() for forecast in view.forecasts],
    }


def headline(view: RunView) -> Markup | None:
    """The few figures that matter most, as tiles."""
    tiles = [tile for tile in (*_model_tiles(view), *_data_tiles(view), *_cost_tiles(view)) if tile[1]]
    if not tiles:
        return None
    return tag(
        "dl",
        *(
            tag("div", tag("dt", name), tag("dd", value), tag("dd", note, class_="note") if note else None)
            for name, value, note in tiles
        ),
        class_="tiles",
    )


Tile = tuple[str, str, str]
"""Name, value, note."""


def _model_tiles(view: RunView) -> list[Tile]:
    tiles: list[Tile] = []
    model = view.last("model")
    if model is not None and "parameters" in model.manifest.metrics:
        tiles.append(("parameters", compact(model.manifest.metrics["parameters"]), model.stage))
    final = list(view.results.values())[-1:]
    for row in final:
        for figure, name, form in (
            ("answer_accuracy", "answers right", "{:.1%}"),
            ("made_up_rate", "made up", "{:.1%}"),
            ("bits_per_byte", "bits per byte", "{:.3f}"),
        ):
            value, interval = estimate_text(row.get(figure), form)
            tiles.append((name, value, interval))
    return tiles


def _data_tiles(view: RunView) -> list[Tile]:
    documents, tokens = view.last("documents"), view.last("tokens")
    tiles: list[Tile] = []
    if documents is not None and "documents" in documents.manifest.metrics:
        metrics = documents.manifest.metrics
        note = f"of {metrics['records']:,} pages" if "records" in metrics else ""
        tiles.append(("documents", f"{metrics['documents']:,}", note))
    if tokens is not None and "train_tokens" in tokens.manifest.metrics:
        tiles.append(("training tokens", compact(tokens.manifest.metrics["train_tokens"]), "in the corpus"))
    return tiles


def _cost_tiles(view: RunView) -> list[Tile]:
    total = total_cost(view)
    if not total.wall_s:
        return []
    return [("time", duration(total.wall_s), f"about {total.energy_wh:.1f} Wh")]


def _subtitle(view: RunView) -> str:
    num_done = sum(stage.status == "done" for stage in view.stages)
    newest = max((artifact.manifest.created_at for artifact in view.artifacts), default="")
    when = f", last on {newest[:10]}" if newest else ""
    is_whole = num_done == len(view.stages)
    num_stale = sum(stage.status == "stale" for stage in view.stages)
    stale = f", {num_stale} out of date" if num_stale else ""
    return f"{num_done} {'' if is_whole else f'of {len(view.stages)} '}stages done{stale}{when}"


def _plain(estimate: Estimate) -> dict[str, float | int | None]:
    """JSON has no NaN and no infinity."""
    numbers = {"value": estimate.value, "low": estimate.low, "high": estimate.high}
    return {name: value if math.isfinite(value) else None for name, value in numbers.items()} | {
        "n": estimate.n
    }
