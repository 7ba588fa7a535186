"""Sections of the report that let others check it: cost, lineage, versions."""

from markupsafe import Markup

from bessemer.export.figures import cost_cells, total_cost
from bessemer.export.markup import Node, section, table, tag
from bessemer.export.view import RunView
from bessemer.runner.cost import WATTS_PER_CORE
from bessemer.runner.forecast import Forecast, in_unit
from bessemer.runner.lineage import describe_lineage, trace
from bessemer.runner.progress import data_size, duration


def cost_section(view: RunView) -> Markup | None:
    """Time, memory, operations and energy of every finished stage, and their sum."""
    if not view.artifacts:
        return None
    rows: list[list[Node]] = [
        [
            artifact.stage,
            duration(artifact.manifest.cost.wall_s),
            *cost_cells(artifact.manifest.cost),
            data_size(sum(entry.size_bytes for entry in artifact.manifest.files)),
        ]
        for artifact in view.artifacts
    ]
    total = total_cost(view)
    size_bytes = sum(entry.size_bytes for a in view.artifacts for entry in a.manifest.files)
    rows.append(
        [
            tag("strong", cell)
            for cell in ("all", duration(total.wall_s), *cost_cells(total), data_size(size_bytes))
        ]
    )
    return section(
        "cost",
        "Cost",
        table(
            ["stage", "wall time", "CPU time", "peak memory", "training and generation", "energy", "on disk"],
            rows,
            "figures",
        ),
        tag(
            "p",
            f"Measured where it ran. Energy is an estimate: CPU time at {WATTS_PER_CORE:g} W a core. "
            "Floating-point operations follow from the model's shape and the tokens seen.",
            class_="muted small",
        ),
    )


def forecast_section(view: RunView) -> Markup | None:
    """What dry runs predicted of stages, beside what happened."""
    if not view.forecasts:
        return None
    return section(
        "forecasts",
        "Forecasts",
        *(part for forecast in view.forecasts for part in _forecast(forecast)),
        lead="What run --dry-run predicted from a sample, with 95 % intervals, and what then happened.",
    )


def _forecast(forecast: Forecast) -> list[Markup]:
    outcome = forecast.outcome
    actual = outcome.actual if outcome is not None else {}
    rows = [
        [
            name,
            in_unit(name, expected.value),
            f"{in_unit(name, expected.low)} to {in_unit(name, expected.high)}",
            in_unit(name, actual[name].value) if name in actual else "–",
            ("within" if actual[name].is_within else "outside") if name in actual else "",
        ]
        for name, expected in forecast.prediction.expected.items()
    ]
    remarks = outcome.remarks if outcome is not None else ("It has not run since.",)
    return [
        tag("h3", forecast.stage),
        tag("p", f"From {forecast.prediction.basis}, {forecast.made_at}.", class_="muted small"),
        table(["quantity", "predicted", "interval", "happened", ""], rows, "figures"),
        *(tag("p", remark, class_="muted small") for remark in remarks),
    ]


def lineage_section(view: RunView) -> Markup | None:
    """The tree of the newest artifact with digests, every link checked."""
    if not view.artifacts:
        return None
    of_run = {artifact.stage: artifact for artifact in view.artifacts}
    last = next(
        (a for kind in ("export", "evaluation", "model") if (a := view.last(kind))), view.artifacts[-1]
    )
    tree = trace(last, of_run)
    verdict = "Every link matches." if tree.is_sound else "A link is broken: see the arrows."
    return section(
        "lineage",
        "Lineage",
        tag("pre", describe_lineage(tree), class_="tree"),
        tag("p", verdict, class_="muted small"),
        lead="What the final artifact was made from, with digests of the bytes; equal inputs, equal digests.",
    )


def versions_section(view: RunView) -> Markup | None:
    """Package versions; of several, all that took part."""
    versions: dict[str, list[str]] = {}
    for artifact in view.artifacts:
        for name, version in artifact.manifest.versions.items():
            if version not in versions.setdefault(name, []):
                versions[name].append(version)
    if not versions:
        return None
    listed = ", ".join(f"{name} {' and '.join(found)}" for name, found in versions.items())
    seeds = ", ".join(f"{a.stage} {a.manifest.seed}" for a in view.artifacts)
    return section(
        "versions",
        "Environment",
        tag("p", listed),
        tag("p", f"Seeds by stage: {seeds}.", class_="muted small"),
    )
