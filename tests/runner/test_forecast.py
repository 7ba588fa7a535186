"""A dry run tries what it can, changes nothing but the forecast, and is held against what happens."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import tiny_stages
from tiny_stages import RECIPE, TABLE, Quiet, run_tiny

from bessemer.errors import BessemerError
from bessemer.recipe import Recipe, parse_recipe
from bessemer.runner.context import StageContext
from bessemer.runner.forecast import Expected, Forecast, Prediction, describe_forecast, read_forecast
from bessemer.runner.layout import RunFolder
from bessemer.runner.predict import DryRun, predict
from bessemer.runner.run import dry_run, run_recipe
from bessemer.stages import Stage


def try_letters(config: tiny_stages.LettersConfig, context: StageContext) -> Prediction:
    """Half of the words, as it were."""
    files = context.input("words").files("word-*.txt")
    (context.output / "sample.txt").write_text(files[0].read_text())
    expected = {
        "files": Expected(len(files), len(files) - 1, len(files) + 1),
        "output_bytes": Expected(1e6, 9e5, 2e6),
        "wall_s": Expected(1.0, 0.0, 1e4),
    }
    return Prediction(expected, {}, "1 of 2 parts")


def refuse(config: tiny_stages.LettersConfig, context: StageContext) -> Prediction:
    raise BessemerError("too many duplicates")


def recipe(*overrides: str, forecast: object = try_letters) -> Recipe:
    stage = TABLE["letters"]
    letters = Stage("letters", stage.config, stage.needs, stage.makes, stage.run, forecast=forecast)  # type: ignore[arg-type]
    return parse_recipe(RECIPE, "tiny.yaml", overrides, {**TABLE, "letters": letters})


def tried(plan: Recipe, folder: Path, on: str = "local") -> DryRun:
    return predict(plan, folder, dry_run(plan, folder), Quiet(), on)


@pytest.fixture
def run_folder(tmp_path: Path) -> Path:
    """A run whose words are there and whose letters are not."""
    folder = tmp_path / "tiny"
    run_recipe(recipe(), folder, Quiet(), until="words")
    return folder


def only(dry: DryRun) -> Forecast:
    [forecast] = dry.forecasts
    return forecast


def test_a_stage_whose_inputs_are_there_is_tried_and_only_the_forecast_stays(run_folder: Path) -> None:
    before = sorted(path.name for path in run_folder.iterdir())
    dry = tried(recipe(), run_folder)
    assert only(dry).prediction.expected["files"] == Expected(6, 5, 7)
    assert sorted(path.name for path in run_folder.iterdir()) == sorted([*before, "letters.forecast.json"])
    assert read_forecast(RunFolder(run_folder), "letters") == only(dry)
    document = json.loads(json.dumps(dry.to_json()))
    assert [stage["state"] for stage in document["stages"]] == ["up to date", "would run", "would run"]
    assert document["forecasts"][0]["prediction"]["expected"]["files"] == {"value": 6, "low": 5, "high": 7}


def test_before_its_inputs_are_there_nothing_is_tried_and_the_way_is_told(tmp_path: Path) -> None:
    dry = tried(recipe(), tmp_path / "none")
    assert not dry.forecasts
    assert dry.notes == ["letters: no forecast before words has run: bessemer run … --until words"]
    assert not (tmp_path / "none").exists()


def test_a_stage_that_is_up_to_date_is_not_tried(run_folder: Path) -> None:
    run_recipe(recipe(), run_folder, Quiet())
    assert not tried(recipe(), run_folder).forecasts
    assert not tried(recipe(forecast=None), run_folder).forecasts


def test_a_run_says_how_its_forecast_did_and_changes_no_artifact(run_folder: Path, tmp_path: Path) -> None:
    tried(recipe(), run_folder)
    reporter = Quiet()
    results = run_recipe(recipe(), run_folder, reporter)
    settled = read_forecast(RunFolder(run_folder), "letters")
    assert settled is not None
    assert settled.outcome is not None
    assert {name: actual.is_within for name, actual in settled.outcome.actual.items()} == {
        "files": True,
        "output_bytes": False,
        "wall_s": True,
    }
    assert settled.outcome.actual["files"].value == 6
    assert settled.outcome.remarks == ()
    assert describe_forecast(settled) in reporter.said
    [line] = [line for line in describe_forecast(settled).splitlines() if "output_bytes" in line]
    assert "900 kB to 2 MB" in line
    assert "OUTSIDE" in line
    digests = {result.stage: result.artifact.manifest.digest for result in results}
    assert digests == run_tiny(tmp_path / "without a forecast")


def test_a_run_elsewhere_says_that_its_costs_were_predicted_for_another_place(run_folder: Path) -> None:
    plan = recipe()
    predict(plan, run_folder, dry_run(plan, run_folder), Quiet(), "ray")
    run_recipe(plan, run_folder, Quiet())
    settled = read_forecast(RunFolder(run_folder), "letters")
    assert settled is not None
    assert settled.outcome is not None
    assert settled.outcome.remarks == ("costs were predicted for on = ray, it ran with local",)


def test_a_forecast_for_another_config_is_left_alone(run_folder: Path) -> None:
    tried(recipe("letters.style.case=upper"), run_folder)
    run_recipe(recipe(), run_folder, Quiet())
    left = read_forecast(RunFolder(run_folder), "letters")
    assert left is not None
    assert left.outcome is None


def test_a_trial_that_fails_as_the_run_would_leaves_nothing_behind(run_folder: Path) -> None:
    before = sorted(path.name for path in run_folder.iterdir())
    with pytest.raises(BessemerError, match="too many duplicates"):
        tried(recipe(forecast=refuse), run_folder)
    assert sorted(path.name for path in run_folder.iterdir()) == before


def test_while_another_process_works_in_the_folder_nothing_is_tried(run_folder: Path) -> None:
    holder = (
        "import sys, pathlib; from bessemer.runner.locks import hold_lock\n"
        f"with hold_lock(pathlib.Path({str(RunFolder(run_folder).lock)!r})):\n"
        "    print('held', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", holder], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        dry = tried(recipe(), run_folder)
        process.communicate("")
    assert not dry.forecasts
    assert f"process {process.pid} on" in dry.notes[0]


def test_a_forecast_that_cannot_be_read_says_that_it_may_be_deleted(run_folder: Path) -> None:
    (run_folder / "letters.forecast.json").write_text("{")
    with pytest.raises(BessemerError, match=r"letters\.forecast\.json cannot be read.*delete it"):
        read_forecast(RunFolder(run_folder), "letters")
