"""Skipping, redoing, verifying: what a run does with what is there."""

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import tiny_stages
from tiny_stages import RECIPE, TABLE, Quiet, digests_of, run_tiny, tiny_recipe

from bessemer.errors import BessemerError, ConfigError, DamagedArtifact
from bessemer.runner.identity import stage_seed
from bessemer.runner.layout import RunFolder
from bessemer.runner.locks import hold_lock
from bessemer.runner.manifest import open_artifact
from bessemer.runner.references import artifacts_in_order, find_artifact
from bessemer.runner.run import dry_run, is_disk_full, run_recipe
from bessemer.stages import Stage, stage_table


@pytest.fixture
def run_folder(tmp_path: Path) -> Path:
    folder = tmp_path / "runs" / "tiny"
    run_tiny(folder)
    return folder


def states(folder: Path, *overrides: str, text: str = RECIPE, **selection: str | None) -> dict[str, str]:
    """Run and return stage → what was done with it."""
    results = run_recipe(tiny_recipe(text, *overrides), folder, Quiet(), **selection)
    return {result.stage: result.state for result in results}


def test_a_run_leaves_artifacts_recipe_and_log_and_nothing_half_done(run_folder: Path) -> None:
    names = sorted(path.name for path in run_folder.iterdir())
    assert names == [".lock", "compare", "letters", "log.txt", "recipe.yaml", "words"]
    assert "words: runs (never ran)" in (run_folder / "log.txt").read_text()


def test_two_runs_in_different_folders_have_equal_digests(run_folder: Path, tmp_path: Path) -> None:
    assert run_tiny(tmp_path / "other") == digests_of(run_folder)


def test_measured_files_differ_between_runs_without_changing_the_digest(run_folder: Path) -> None:
    before = (run_folder / "compare/timing.txt").read_text()
    digest = digests_of(run_folder)["compare"]
    states(run_folder, from_stage="compare")
    assert (run_folder / "compare/timing.txt").read_text() != before
    assert digests_of(run_folder)["compare"] == digest


def test_a_second_run_skips_everything_and_says_so(run_folder: Path) -> None:
    reporter = Quiet()
    assert set(states(run_folder).values()) == {"up to date"}
    run_tiny(run_folder, reporter=reporter)
    assert reporter.said == ["words: up to date", "letters: up to date", "compare: up to date"]


def test_a_changed_config_redoes_the_stage_and_those_whose_inputs_change(run_folder: Path) -> None:
    assert states(run_folder, "letters.style.case=upper") == {
        "words": "up to date",
        "letters": "done",
        "compare": "done",
    }


def test_a_stage_whose_redone_input_has_the_same_content_is_up_to_date(run_folder: Path) -> None:
    """`pause_s` belongs to the config of `words` but not to its output."""
    assert states(run_folder, "words.pause_s=0.001") == {
        "words": "done",
        "letters": "up to date",
        "compare": "up to date",
    }


def test_another_seed_redoes_every_stage_since_each_seed_comes_from_it(run_folder: Path) -> None:
    assert set(states(run_folder, "seed=2").values()) == {"done"}


def test_a_changed_file_outside_the_run_redoes_the_stage_that_reads_it(tmp_path: Path) -> None:
    source = tmp_path / "source.txt"
    source.write_text("one")
    folder = tmp_path / "run"
    states(folder, f"words.path={source}")
    assert states(folder, f"words.path={source}")["words"] == "up to date"
    source.write_text("two")
    reporter = Quiet()
    run_tiny(folder, f"words.path={source}", reporter=reporter)
    assert reporter.said[0] == "words: runs (the files that the config names have changed)"
    assert (folder / "words/added.txt").read_text() == "two"


def test_a_higher_format_version_redoes_the_stage(run_folder: Path) -> None:
    newer = Stage("words", tiny_stages.WordsConfig, (), "words", tiny_stages.words, format_version=2)
    recipe = tiny_stages.parse_recipe(RECIPE, "tiny.yaml", (), {**TABLE, "words": newer})
    assert dry_run(recipe, run_folder)[0].reasons == ("format version changed: 1 → 2",)


def test_from_redoes_a_stage_and_all_after_it(run_folder: Path) -> None:
    assert states(run_folder, from_stage="letters") == {
        "words": "up to date",
        "letters": "done",
        "compare": "done",
    }


def test_until_stops_after_a_stage_and_keeps_later_artifacts(run_folder: Path) -> None:
    assert states(run_folder, until="words") == {"words": "up to date"}
    assert (run_folder / "compare/manifest.json").exists()


def test_from_with_until_discards_what_comes_after_until(run_folder: Path) -> None:
    states(run_folder, from_stage="letters", until="letters")
    assert sorted(digests_of(run_folder)) == ["letters", "words"]


@pytest.mark.parametrize(
    ("selection", "message"),
    [
        ({"from_stage": "leters"}, "did you mean 'letters'"),
        ({"until": "xyz"}, "known: words, letters, compare"),
        ({"from_stage": "compare", "until": "words"}, "comes before"),
    ],
)
def test_a_wrong_selection_is_refused(run_folder: Path, selection: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        states(run_folder, **selection)


def test_the_manifest_records_what_the_artifact_came_from_and_cost(run_folder: Path) -> None:
    words, letters = (open_artifact(run_folder / name).manifest for name in ("words", "letters"))
    assert letters.inputs == {"words": [words.digest]}
    assert letters.input_stages == {"words": ["words"]}
    assert letters.config == {"style": {"case": "lower"}}
    assert words.seed == stage_seed(1, "words") != letters.seed
    assert words.cost.flops == 1e6
    assert words.cost.attempts == 1
    assert words.cost.wall_s > 0
    assert words.cost.peak_memory_bytes > 5e6
    assert {"python", "bessemer", "torch", "numpy"} <= words.versions.keys()
    rows = (run_folder / "words/metrics.jsonl").read_text().splitlines()
    assert [json.loads(row)["step"] for row in rows] == list(range(6))


@pytest.mark.parametrize("harm", ["change", "truncate", "delete"])
def test_a_damaged_input_stops_the_run_naming_the_file_and_the_mend(run_folder: Path, harm: str) -> None:
    victim = run_folder / "words/word-3.txt"
    original = victim.read_bytes()
    if harm == "delete":
        victim.unlink()
    else:
        victim.write_bytes(original[:-1] if harm == "truncate" else b"x" + original[1:])
    with pytest.raises(DamagedArtifact, match=r"(?s)word-3\.txt.*--from words") as error:
        run_tiny(run_folder, "letters.style.case=upper")
    assert "letters" not in str(error.value).replace(str(run_folder), "")
    victim.write_bytes(original)
    assert set(states(run_folder).values()) == {"up to date"}, "nothing else was lost"


def test_a_damaged_artifact_is_mended_by_from_and_gives_the_same_digests(run_folder: Path) -> None:
    before = digests_of(run_folder)
    (run_folder / "words/manifest.json").write_text("{")
    with pytest.raises(DamagedArtifact, match=r"manifest\.json cannot be read.*--from words"):
        run_tiny(run_folder)
    states(run_folder, from_stage="words")
    assert digests_of(run_folder) == before


def test_a_dry_run_says_what_and_why_and_changes_nothing(run_folder: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in run_folder.rglob("*")}
    verdicts = dry_run(tiny_recipe(RECIPE, "letters.style.case=upper"), run_folder)
    assert [(verdict.stage, verdict.state) for verdict in verdicts] == [
        ("words", "up to date"),
        ("letters", "would run"),
        ("compare", "would run"),
    ]
    assert verdicts[1].reasons == ("config changed: style.case 'lower' → 'upper'",)
    assert verdicts[2].reasons == ("after letters",)
    assert {path: path.stat().st_mtime_ns for path in run_folder.rglob("*")} == before


def test_a_dry_run_of_a_recipe_that_never_ran_makes_no_folder(tmp_path: Path) -> None:
    verdicts = dry_run(tiny_recipe(), tmp_path / "none")
    reasons = [verdict.reasons for verdict in verdicts]
    assert reasons == [("never ran",), ("after words",), ("after letters, words",)]
    assert not (tmp_path / "none").exists()


def test_a_dry_run_shows_damage_and_what_depends_on_it(run_folder: Path) -> None:
    (run_folder / "words/word-0.txt").unlink()
    verdicts = dry_run(tiny_recipe(), run_folder)
    assert [verdict.state for verdict in verdicts] == ["damaged", "would run", "would run"]


def failing_table(fault: Exception) -> dict[str, Stage]:
    def letters(config: tiny_stages.LettersConfig, context: object) -> dict[str, float]:
        raise fault

    stage = TABLE["letters"]
    return {**TABLE, "letters": Stage("letters", stage.config, stage.needs, stage.makes, letters)}


def test_a_failing_stage_keeps_finished_stages_and_its_partial_folder(tmp_path: Path) -> None:
    broken = tiny_stages.parse_recipe(RECIPE, "tiny.yaml", (), failing_table(RuntimeError("no luck")))
    with pytest.raises(RuntimeError, match="no luck"):
        run_recipe(broken, tmp_path / "run", Quiet())
    assert list(digests_of(tmp_path / "run")) == ["words"]
    assert "no luck" in (tmp_path / "run/log.txt").read_text()
    assert dry_run(tiny_recipe(), tmp_path / "run")[1].state == "would continue"
    run_tiny(tmp_path / "run")
    assert open_artifact(tmp_path / "run/letters").manifest.cost.attempts == 2


def test_a_partial_folder_of_another_config_is_not_continued(tmp_path: Path) -> None:
    broken = tiny_stages.parse_recipe(RECIPE, "tiny.yaml", (), failing_table(RuntimeError("no luck")))
    with pytest.raises(RuntimeError):
        run_recipe(broken, tmp_path / "run", Quiet())
    (tmp_path / "run/.letters.partial/output/stray.txt").write_text("of the old config")
    run_tiny(tmp_path / "run", "letters.style.case=upper")
    assert not (tmp_path / "run/letters/stray.txt").exists()


def test_what_a_stage_says_of_a_full_disk_itself_is_not_replaced(tmp_path: Path) -> None:
    fault = BessemerError("the disk is full: the checkpoint of step 40 takes 19 MB")
    fault.__cause__ = OSError(errno.ENOSPC, "No space left on device")
    broken = tiny_stages.parse_recipe(RECIPE, "tiny.yaml", (), failing_table(fault))
    with pytest.raises(BessemerError, match="the checkpoint of step 40 takes 19 MB"):
        run_recipe(broken, tmp_path / "run", Quiet())


def test_a_full_disk_is_explained_and_nothing_is_lost(tmp_path: Path) -> None:
    def fill(config: tiny_stages.LettersConfig, context: object) -> dict[str, float]:
        with open("/dev/full", "w") as file:
            file.write("x")
        return {}

    if not Path("/dev/full").exists():
        pytest.skip("needs /dev/full")
    stage = TABLE["letters"]
    table = {**TABLE, "letters": Stage("letters", stage.config, stage.needs, stage.makes, fill)}
    with pytest.raises(BessemerError, match=r"disk is full.*same command"):
        run_recipe(tiny_stages.parse_recipe(RECIPE, "tiny.yaml", (), table), tmp_path / "run", Quiet())
    assert list(digests_of(tmp_path / "run")) == ["words"]


def test_a_full_disk_is_recognised_behind_another_error() -> None:
    outer = RuntimeError("could not write shard")
    outer.__cause__ = OSError(errno.EDQUOT, "Disk quota exceeded")
    assert is_disk_full(outer)
    assert is_disk_full(RuntimeError("I/O error: No space left on device (os error 28)"))
    assert not is_disk_full(OSError(errno.EACCES, "Permission denied"))


def test_metrics_that_are_not_json_are_refused_with_the_stage_named(tmp_path: Path) -> None:
    def odd(config: object, context: object) -> dict[str, object]:
        return {"where": Path("x")}

    table = stage_table([Stage("words", tiny_stages.WordsConfig, (), "words", odd)])
    recipe = tiny_stages.parse_recipe("name: odd\nstages: [words]", "odd.yaml", (), table)
    with pytest.raises(BessemerError, match="'words' returned metrics"):
        run_recipe(recipe, tmp_path, Quiet())


def test_two_processes_cannot_work_in_one_run_folder(run_folder: Path) -> None:
    script = Path(tiny_stages.__file__)
    with hold_lock(RunFolder(run_folder).lock):
        done = subprocess.run(
            [sys.executable, str(script), str(run_folder)], capture_output=True, text=True, check=False
        )
    assert done.returncode == 1
    assert f"in use by process {os.getpid()}" in done.stderr
    run_tiny(run_folder)


def test_every_earlier_artifact_reaches_a_stage_that_takes_every_one(tmp_path: Path) -> None:
    text = """
name: two
stages:
  - words
  - letters: {name: lower}
  - letters: {name: upper, style: {case: upper}}
  - compare
"""
    run_recipe(tiny_recipe(text), tmp_path, Quiet())
    digests = digests_of(tmp_path)
    assert (tmp_path / "compare/digests.txt").read_text() == f"{digests['lower']}\n{digests['upper']}"
    order = [artifact.stage for artifact in artifacts_in_order(RunFolder(tmp_path))]
    assert order.index("words") < min(order.index("lower"), order.index("upper"))
    assert order[-1] == "compare"
    assert find_artifact(str(tmp_path), ("letters",)).stage in ("lower", "upper")
