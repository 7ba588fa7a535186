"""What a stage will give and cost, predicted before it runs, and compared with what happened.

A forecast lies in `<stage>.forecast.json` of the run folder, apart from every artifact: it changes no byte of
them. When the stage it was made for is done, the outcome is added to the file.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from typing import Any

from bessemer.errors import BessemerError
from bessemer.runner.files import write_atomically
from bessemer.runner.layout import RunFolder
from bessemer.runner.manifest import Manifest
from bessemer.runner.progress import data_size, duration

COSTS = ("wall_s", "cpu_s", "peak_memory_bytes")
"""Quantities that depend on where and how the stage ran, which `conditions` say."""


@dataclass(frozen=True)
class Expected:
    """A quantity as predicted, with its 95 % interval."""

    value: float
    low: float
    high: float

    def holds(self, actual: float) -> bool:
        """Whether the interval does, with half a unit to spare: counts are whole."""
        return self.low - 0.5 <= actual <= self.high + 0.5

    def times(self, factor: float) -> "Expected":
        """The quantity in another unit."""
        return Expected(self.value * factor, self.low * factor, self.high * factor)

    def __add__(self, other: "Expected") -> "Expected":
        """The sum of two, errors of one for each of the other's (the widest there can be)."""
        return Expected(self.value + other.value, self.low + other.low, self.high + other.high)


@dataclass(frozen=True)
class Prediction:
    """What a stage's own forecast function finds out."""

    expected: Mapping[str, Expected]
    """By the name of a number among the stage's metrics, or `output_bytes`, or one of COSTS."""
    conditions: Mapping[str, Any]
    """What the costs were predicted for, such as `{"on": "local", "workers": 2}`."""
    basis: str
    """What was tried, in words."""


@dataclass(frozen=True)
class Actual:
    """What happened to one quantity."""

    value: float
    is_within: bool


@dataclass(frozen=True)
class Outcome:
    """What happened when the stage ran."""

    finished_at: str
    digest: str
    """Of the artifact."""
    actual: Mapping[str, Actual]
    remarks: tuple[str, ...] = ()
    """Why some of it cannot be held against the forecast."""


@dataclass(frozen=True)
class Forecast:
    """A prediction with what it was made for."""

    stage: str
    key: str
    """Identity of the artifact that was to be made."""
    made_at: str
    took_s: float
    prediction: Prediction
    outcome: Outcome | None = None

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def new_forecast(stage: str, key: str, took_s: float, prediction: Prediction) -> Forecast:
    """A forecast made now."""
    return Forecast(stage, key, _now(), round(took_s, 3), prediction)


def save_forecast(run: RunFolder, forecast: Forecast) -> None:
    """Write it into the run folder, over an earlier one of the stage."""
    content = json.dumps(forecast.to_json(), indent=2).encode() + b"\n"
    write_atomically(run.forecast(forecast.stage), content)


def read_forecast(run: RunFolder, stage: str) -> Forecast | None:
    """The stage's forecast; None where there is none. Raises BessemerError when it cannot be read."""
    path = run.forecast(stage)
    try:
        return _from_json(json.loads(path.read_bytes()))
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError) as error:
        raise BessemerError(f"{path} cannot be read ({error!r}): delete it, it is only a forecast") from error


def settle(run: RunFolder, manifest: Manifest, on: str) -> Forecast | None:
    """Add to a stage's forecast what happened, and save it. None where none was made for this artifact."""
    forecast = read_forecast(run, manifest.stage)
    if forecast is None or forecast.key != manifest.key:
        return None
    settled = replace(forecast, outcome=_outcome(forecast.prediction, manifest, on))
    save_forecast(run, settled)
    return settled


def _outcome(prediction: Prediction, manifest: Manifest, on: str) -> Outcome:
    numbers = actual_numbers(manifest)
    actual = {
        name: Actual(numbers[name], expected.holds(numbers[name]))
        for name, expected in prediction.expected.items()
        if name in numbers
    }
    happened = {**manifest.metrics, "on": on}
    remarks = [
        f"costs were predicted for {name} = {value}, it ran with {happened[name]}"
        for name, value in prediction.conditions.items()
        if name in happened and happened[name] != value
    ]
    if manifest.cost.attempts > 1:
        remarks.append(f"it took {manifest.cost.attempts} attempts, whose times are added up")
    return Outcome(_now(), manifest.digest, actual, tuple(remarks))


def actual_numbers(manifest: Manifest) -> dict[str, float]:
    """Everything about a finished stage that a forecast can name."""
    numbers = {
        name: float(value) for name, value in manifest.metrics.items() if isinstance(value, int | float)
    }
    numbers |= {name: float(getattr(manifest.cost, name)) for name in COSTS}
    return numbers | {"output_bytes": float(sum(entry.size_bytes for entry in manifest.files))}


def describe_forecast(forecast: Forecast) -> str:
    """A table for people: predicted, and what happened where that is known."""
    prediction, outcome = forecast.prediction, forecast.outcome
    conditions = ", ".join(f"{name} = {value}" for name, value in prediction.conditions.items())
    rows = [["", "predicted", "95 % interval", "", "happened" if outcome else ""]]
    for name, expected in prediction.expected.items():
        interval = f"{in_unit(name, expected.low)} to {in_unit(name, expected.high)}"
        row = [name, in_unit(name, expected.value), interval, "", ""]
        if outcome is not None and name in outcome.actual:
            actual = outcome.actual[name]
            row[3:] = ["within" if actual.is_within else "OUTSIDE", in_unit(name, actual.value)]
        rows.append(row)
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [
        f"{forecast.stage}: forecast from {prediction.basis}" + (f" ({conditions})" if conditions else "")
    ]
    lines += [
        "  ".join(["", row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]).rstrip()
        for row in rows
    ]
    return "\n".join([*lines, *(f"  {remark}" for remark in (outcome.remarks if outcome else ()))])


def in_unit(name: str, number: float) -> str:
    """A quantity in words; the end of its name tells the unit."""
    if name.endswith("_bytes"):
        return data_size(number)
    if name.endswith("_s"):
        return duration(number)
    return f"{number:,.0f}"


def _from_json(document: Mapping[str, Any]) -> Forecast:
    prediction, outcome = document["prediction"], document["outcome"]
    expected = {name: Expected(**numbers) for name, numbers in prediction["expected"].items()}
    if outcome is not None:
        actual = {name: Actual(**numbers) for name, numbers in outcome["actual"].items()}
        outcome = Outcome(outcome["finished_at"], outcome["digest"], actual, tuple(outcome["remarks"]))
    return Forecast(
        document["stage"],
        document["key"],
        document["made_at"],
        document["took_s"],
        Prediction(expected, prediction["conditions"], prediction["basis"]),
        outcome,
    )


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
