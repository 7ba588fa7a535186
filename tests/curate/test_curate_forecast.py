"""`run --dry-run` on curation: what a few shards predict, held against the whole by the run itself."""

import json
import random
from pathlib import Path
from typing import Any

import pytest
from curate_helpers import prose
from typer.testing import CliRunner

from bessemer.cli import app
from bessemer.errors import BessemerError

NUM_PAGES, NUM_KINDS = 240, 160
RECIPE = """
name: forecast
stages:
  - collect: {{path: {pages}}}
  - curate: {{workers: 1, shard_bytes: 4000}}
"""


def invoke(*arguments: object) -> str:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if isinstance(result.exception, BessemerError):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.stdout


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that has collected pages: some short, some copies of one another, in no order."""
    folder = tmp_path_factory.mktemp("forecast")
    chance = random.Random(1)
    rows = [
        {"text": "\n".join(prose(kind, 4 + kind % 30)), "url": f"https://a.org/{number}"}
        for number, kind in enumerate(chance.randrange(NUM_KINDS) for _ in range(NUM_PAGES))
    ]
    pages = folder / "pages.jsonl"
    pages.write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "recipe.yaml").write_text(RECIPE.format(pages=pages))
    invoke("run", folder / "recipe.yaml", "--until", "collect", "--runs-folder", folder)
    return folder


@pytest.fixture(scope="module")
def predicted(runs: Path) -> dict[str, Any]:
    return json.loads(invoke("run", runs / "recipe.yaml", "--dry-run", "--json", "--runs-folder", runs))


def test_a_dry_run_is_one_json_document_with_intervals_and_leaves_nothing_but_the_forecast(
    runs: Path, predicted: dict[str, Any]
):
    [forecast] = predicted["forecasts"]
    assert [stage["state"] for stage in predicted["stages"]] == ["up to date", "would run"]
    expected = forecast["prediction"]["expected"]
    assert list(expected) == [
        "records",
        "duplicates",
        "documents",
        "characters",
        "text_bytes",
        "output_bytes",
        "wall_s",
        "peak_memory_bytes",
    ]
    for each in expected.values():
        assert 0 <= each["low"] <= each["value"] <= each["high"]
    assert "8 of " in forecast["prediction"]["basis"]
    assert forecast["prediction"]["conditions"] == {"on": "local", "workers": 1}
    names = {path.name for path in (runs / "forecast").iterdir()}
    assert names == {".lock", "collect", "curate.forecast.json", "log.txt", "recipe.yaml"}


def test_the_run_holds_the_forecast_against_what_happened(runs: Path, predicted: dict[str, Any]):
    said = invoke("run", runs / "recipe.yaml", "--runs-folder", runs)
    report = json.loads(invoke("report", "forecast", "--json", "--runs-folder", runs))
    [forecast] = report["forecasts"]
    assert forecast["prediction"] == predicted["forecasts"][0]["prediction"]
    actual = forecast["outcome"]["actual"]
    assert actual["records"]["value"] == NUM_PAGES
    assert actual["duplicates"]["value"] > 0
    for name in ("records", "duplicates", "documents", "characters", "text_bytes", "output_bytes"):
        assert actual[name]["is_within"], name
    assert forecast["outcome"]["remarks"] == []
    [line] = [line for line in said.splitlines() if line.startswith("  documents")]
    assert line.split()[-2:] == ["within", f"{actual['documents']['value']:,.0f}"]
    page = Path(invoke("report", "forecast", "--runs-folder", runs).strip()).read_text()
    assert 'id="forecasts"' in page


def test_a_dry_run_of_what_is_done_has_nothing_to_predict(runs: Path, predicted: dict[str, Any]):
    again = json.loads(invoke("run", runs / "recipe.yaml", "--dry-run", "--json", "--runs-folder", runs))
    assert again["forecasts"] == []
