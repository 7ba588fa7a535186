"""Looking at runs: references, status, lineage; and the small parts of the runner."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import tiny_stages
from tiny_stages import Quiet, digests_of, run_tiny, tiny_recipe

from bessemer.errors import BessemerError, DamagedArtifact
from bessemer.runner.cost import CostMeter, resident_bytes
from bessemer.runner.files import remove_folder
from bessemer.runner.identity import checksums, stage_seed
from bessemer.runner.layout import RunFolder
from bessemer.runner.lineage import Node, describe_lineage, trace
from bessemer.runner.locks import lock_holder
from bessemer.runner.manifest import FileEntry, digest_of_files
from bessemer.runner.metrics_log import drop_repeats, drop_torn_line
from bessemer.runner.references import all_runs, artifacts_in_order, find_artifact, find_model, find_run
from bessemer.runner.run import run_recipe
from bessemer.runner.status import describe_run, run_status, stale_note


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    run_tiny(tmp_path / "tiny")
    return tmp_path


def test_a_run_is_found_by_name_and_by_path(runs: Path) -> None:
    assert find_run("tiny", runs) == find_run(str(runs / "tiny"), runs) == RunFolder(runs / "tiny")
    assert all_runs(runs) == [RunFolder(runs / "tiny")]
    with pytest.raises(BessemerError, match="did you mean 'tiny'"):
        find_run("tine", runs)


def test_an_artifact_is_found_by_stage_and_by_kind(runs: Path) -> None:
    assert find_artifact("tiny:letters", (), runs).kind == "letters"
    assert find_artifact("tiny", ("nothing", "words"), runs).stage == "words"
    assert find_artifact("tiny", (), runs).stage == "compare"
    with pytest.raises(BessemerError, match="did you mean 'letters'"):
        find_artifact("tiny:leters", (), runs)
    with pytest.raises(BessemerError, match="no finished artifact of kind model"):
        find_artifact("tiny", ("model",), runs)


def test_a_found_artifact_is_verified(runs: Path) -> None:
    (runs / "tiny/letters/word-0.txt").write_text("z")
    with pytest.raises(DamagedArtifact, match=r"word-0\.txt"):
        find_artifact("tiny:letters", (), runs)


def test_a_model_is_a_folder_with_a_config_or_an_artifact_that_has_one(runs: Path) -> None:
    plain = runs / "plain"
    plain.mkdir()
    (plain / "config.json").write_text("{}")
    assert find_model(str(plain), runs) == plain
    with pytest.raises(BessemerError, match="not a model"):
        find_model("tiny:words", runs)
    with pytest.raises(BessemerError, match="not a model"):
        find_model(str(runs / "tiny/words"), runs)


def test_status_tells_done_not_begun_and_cut_short_apart(runs: Path) -> None:
    run = RunFolder(runs / "tiny")
    remove_folder(run.artifact("compare"))
    run.artifact("letters").rename(run.partial("letters").root)
    status = run_status(run)
    assert [(stage.name, stage.status) for stage in status.stages] == [
        ("words", "done"),
        ("letters", "cut short"),
        ("compare", "not begun"),
    ]
    document = json.loads(json.dumps(status.to_json()))
    assert document["stages"][0]["digest"] == digests_of(run.root)["words"]
    assert {"name", "kind", "status", "wall_s", "digest"} <= document["stages"][0].keys()
    assert "cut short" in describe_run(status)


def test_status_marks_what_a_changed_recipe_or_input_has_outdated(runs: Path) -> None:
    run = RunFolder(runs / "tiny")
    assert {stage.status for stage in run_status(run).stages} == {"done"}
    assert stale_note(run.artifact("compare")) is None
    run_recipe(tiny_recipe(tiny_stages.RECIPE, "words.count=5"), run.root, Quiet(), until="words")
    stages = {stage.name: (stage.status, stage.detail) for stage in run_status(run).stages}
    assert stages == {
        "words": ("done", ""),
        "letters": ("stale", "made from an earlier 'words'"),
        "compare": ("stale", "made from 'letters', which is out of date"),
    }
    note = str(stale_note(run.artifact("compare")))
    assert "compare is out of date (made from 'letters', which is out of date)" in note
    run_recipe(
        tiny_recipe(tiny_stages.RECIPE, "words.count=5", "letters.style.case=upper"),
        run.root,
        Quiet(),
        until="words",
    )
    stages = {stage.name: stage.detail for stage in run_status(run).stages}
    assert stages["letters"] == "the recipe has changed since"
    run_recipe(tiny_recipe(tiny_stages.RECIPE, "words.count=5"), run.root, Quiet())
    assert {stage.status for stage in run_status(run).stages} == {"done"}
    remove_folder(run.artifact("words"))
    assert run_status(run).stages[1].detail == "made from 'words', which is gone"


def test_status_shows_the_process_that_works_in_the_folder(runs: Path) -> None:
    command = [sys.executable, tiny_stages.__file__, str(runs / "busy"), "words.pause_s=600"]
    with subprocess.Popen(command) as process:
        busy = RunFolder(runs / "busy")
        deadline_s = time.monotonic() + 300
        while not busy.partial("words").attempts.exists() and time.monotonic() < deadline_s:
            time.sleep(0.02)
        status = run_status(busy)
        process.kill()
    assert f"process {process.pid} " in str(status.holder)
    assert status.stages[0].status == "running"
    assert lock_holder(busy.lock) is None, "a killed process holds no lock"


def test_lineage_finds_a_damaged_file_anywhere_on_the_way(runs: Path) -> None:
    run = RunFolder(runs / "tiny")
    (run.artifact("words") / "word-0.txt").write_text("z")
    artifacts = {artifact.stage: artifact for artifact in artifacts_in_order(run)}
    tree = trace(artifacts["letters"], artifacts)
    assert (tree.link, tree.inputs[0].link, tree.is_sound) == ("matches", "damaged", False)
    assert "damaged: run again with --from this stage" in describe_lineage(tree)


def test_lineage_shows_every_link_and_finds_what_changed_since(runs: Path) -> None:
    run = RunFolder(runs / "tiny")

    def tree(stage: str) -> Node:
        artifacts = {artifact.stage: artifact for artifact in artifacts_in_order(run)}
        return trace(artifacts[stage], artifacts)

    assert tree("compare").is_sound
    lines = describe_lineage(tree("compare")).splitlines()
    digests = {stage: digest[:12] for stage, digest in digests_of(run.root).items()}
    assert lines == [
        f"compare  comparison  {digests['compare']}",
        f"├─ letters  letters  {digests['letters']}",
        f"│  └─ words  words  {digests['words']}",
        f"└─ words  words  {digests['words']}",
    ]
    run_recipe(tiny_recipe(tiny_stages.RECIPE, "seed=9"), run.root, Quiet(), until="words")
    changed = tree("letters")
    assert not changed.is_sound
    assert changed.inputs[0].link == "changed since"
    remove_folder(run.artifact("words"))
    assert tree("letters").inputs[0].link == "missing"


def test_a_line_torn_by_a_kill_is_dropped_and_whole_ones_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 0}\n{"step": 1}\n{"st')
    drop_torn_line(path)
    assert path.read_text() == '{"step": 0}\n{"step": 1}\n'
    drop_torn_line(tmp_path / "absent")


def test_rows_logged_again_replace_the_first_ones_but_other_rows_of_the_step_stay(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    rows = [
        {"step": 1, "loss": 3.0, "tokens_per_s": 10.0},
        {"step": 1, "validation": 2.9},
        {"step": 2, "loss": 2.0, "tokens_per_s": 10.0},
        {"step": 2, "loss": 2.0, "tokens_per_s": 12.0},
        {"step": 2, "loss": 9.0, "tokens_per_s": 12.0, "model": "base"},
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    drop_repeats(path)
    kept = [json.loads(line) for line in path.read_text().splitlines()]
    assert kept == [*rows[:2], *rows[3:]]


def test_costs_add_up_over_attempts_and_memory_is_the_largest(tmp_path: Path) -> None:
    path = tmp_path / "attempts.json"
    path.write_text(json.dumps([{"wall_s": 100.0, "cpu_s": 50.0, "peak_memory_bytes": 2**50}]))
    with CostMeter(path) as meter:
        pass
    cost = meter.total(flops=7.0)
    assert cost.attempts == 2
    assert 100.0 <= cost.wall_s < 200
    assert cost.peak_memory_bytes == 2**50
    assert cost.flops == 7.0
    assert cost.energy_wh == pytest.approx(cost.cpu_s * 10 / 3600, abs=1e-5)
    assert len(json.loads(path.read_text())) == 2


def test_memory_includes_child_processes() -> None:
    alone = resident_bytes()
    code = "x = bytearray(200_000_000); print(flush=True); input()"
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", code], **pipes) as child:
        assert child.stdout is not None
        child.stdout.readline()
        together = resident_bytes()
        child.kill()
    # Other children of this process, such as workers of an earlier test, may end meanwhile.
    assert together - alone > 100_000_000


def test_the_digest_leaves_measured_files_out_and_does_not_depend_on_order() -> None:
    one = FileEntry(path="a", size_bytes=1, sha256="1")
    two = FileEntry(path="b", size_bytes=1, sha256="2")
    timed = FileEntry(path="c", size_bytes=1, sha256="3", measured=True)
    assert digest_of_files([one, two]) == digest_of_files([two, timed, one])
    assert digest_of_files([one, two]) != digest_of_files([one])


def test_stage_seeds_differ_by_stage_and_by_recipe_seed_and_fit_every_library() -> None:
    seeds = {stage_seed(seed, stage) for seed in range(20) for stage in ("pretrain", "sft", "dpo")}
    assert len(seeds) == 60
    assert max(seeds) < 2**32


def test_outside_files_are_found_by_name_folder_and_glob(tmp_path: Path) -> None:
    (tmp_path / "deep/er").mkdir(parents=True)
    for name in ("a.txt", "b.md", "deep/er/c.txt"):
        (tmp_path / name).write_text(name)
    by_glob = checksums([str(tmp_path / "*.txt"), str(tmp_path / "deep"), str(tmp_path / "absent")])
    assert [os.path.relpath(name, tmp_path) for name in by_glob] == ["a.txt", "deep/er/c.txt"]
