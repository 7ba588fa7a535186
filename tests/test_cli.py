"""The command line: exit codes, messages without tracebacks, JSON."""

import json
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from bessemer.cli import app
from bessemer.config import Config
from bessemer.errors import BessemerError
from bessemer.recipe import parse_recipe
from bessemer.runner.context import Metrics, StageContext
from bessemer.runner.progress import PlainReporter
from bessemer.runner.run import run_recipe
from bessemer.stages import Need, Stage, stage_table


class PlainConfig(Config):
    """Nothing to choose."""


def _write(config: PlainConfig, context: StageContext) -> Metrics:
    (context.output / "content.txt").write_text(context.stage)
    (context.output / "summary.txt").write_text("")
    return {}


TABLE = stage_table(
    [
        Stage("collect", PlainConfig, (), "pages", _write),
        Stage("curate", PlainConfig, (Need("pages"),), "documents", _write),
    ]
)


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """A folder of runs with one that is finished."""
    recipe = parse_recipe("stages: [collect, curate]", "demo.yaml", (), TABLE)
    run_recipe(recipe, tmp_path / "runs/demo", PlainReporter(sys.stderr))
    return tmp_path / "runs"


def bessemer(*arguments: object) -> subprocess.CompletedProcess[str]:
    """The real command in a process of its own."""
    command = [sys.executable, "-m", "bessemer", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)


def invoke(*arguments: object) -> tuple[int, str]:
    """The command in this process: exit code and output. Errors for the user are raised."""
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if isinstance(result.exception, BessemerError):
        raise result.exception
    return result.exit_code, result.output


def test_a_wrong_recipe_is_exit_code_2_with_every_fault_and_no_traceback(tmp_path: Path) -> None:
    recipe = tmp_path / "wrong.yaml"
    recipe.write_text("name: wrong\nstages:\n  - colect\n  - curat\n")
    done = bessemer("run", recipe)
    assert done.returncode == 2
    assert f"{recipe}:3: unknown stage kind 'colect'; did you mean 'collect'?" in done.stderr
    assert f"{recipe}:4: unknown stage kind 'curat'; did you mean 'curate'?" in done.stderr
    assert "Traceback" not in done.stderr


def test_wrong_usage_is_exit_code_2() -> None:
    assert bessemer("run").returncode == 2
    assert invoke("frobnicate")[0] == 2


def test_a_failure_is_exit_code_1_with_a_message_on_stderr(runs: Path) -> None:
    done = bessemer("status", "dem", "--runs-folder", runs)
    assert done.returncode == 1
    assert done.stderr == f"bessemer: 'dem' is not a run folder; did you mean 'demo'? (in {runs})\n"
    assert done.stdout == ""


def test_looking_at_runs_does_not_import_torch(runs: Path) -> None:
    code = (
        "import sys; from bessemer.cli import app; "
        f"app(['status', '--runs-folder', {str(runs)!r}], standalone_mode=False); "
        "assert not {'torch', 'polars', 'numpy'} & sys.modules.keys()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_status_and_lineage_print_json(runs: Path) -> None:
    code, output = invoke("status", "demo", "--json", "--runs-folder", runs)
    assert code == 0
    assert [stage["status"] for stage in json.loads(output)["stages"]] == ["done", "done"]
    code, output = invoke("lineage", "demo", "--json", "--runs-folder", runs)
    tree = json.loads(output)
    assert code == 0
    assert (tree["stage"], tree["inputs"][0]["stage"], tree["is_sound"]) == ("curate", "collect", True)


def test_a_broken_lineage_is_exit_code_1(runs: Path) -> None:
    manifest = runs / "demo/collect/manifest.json"
    document = json.loads(manifest.read_text())
    manifest.write_text(json.dumps(document | {"digest": "0" * 64}))
    code, output = invoke("lineage", "demo:curate", "--runs-folder", runs)
    assert code == 1
    assert "changed since" in output


def collecting(folder: Path) -> tuple[Path, Path]:
    """A recipe of one stage, and the folder of one page that it collects."""
    pages, recipe = folder / "pages", folder / "small.yaml"
    pages.mkdir()
    (pages / "one.html").write_text("<html><body><p>" + "A page about steel. " * 30 + "</p></body></html>")
    recipe.write_text(f"name: small\nstages:\n  - collect: {{source: path, path: {pages}}}\n")
    return recipe, pages


def test_a_run_prints_results_and_next_commands_and_a_dry_run_the_verdicts(tmp_path: Path) -> None:
    recipe, pages = collecting(tmp_path)
    runs = tmp_path / "runs"
    assert invoke("run", recipe, "--dry-run", "--runs-folder", runs) == (0, "collect  would run: never ran\n")
    done = bessemer("run", recipe, "--runs-folder", runs)
    assert done.returncode == 0, done.stderr
    assert f"bessemer status {runs}/small" in done.stdout
    assert invoke("run", recipe, "--dry-run", "--runs-folder", runs) == (0, "collect  up to date\n")
    (pages / "two.html").write_text("<html><body><p>Another.</p></body></html>")
    reason = "collect  would run: the files that the config names have changed\n"
    assert invoke("run", recipe, "--dry-run", "--runs-folder", runs) == (0, reason)


@pytest.mark.parametrize("options", [[], ["--dry-run"]], ids=["run", "dry run"])
def test_under_torchrun_the_other_processes_are_let_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: list[str]
) -> None:
    """They wait for training stages for a month, and torchrun for them."""
    recipe, _ = collecting(tmp_path)
    let_go: list[bool] = []
    monkeypatch.setattr("bessemer.training.parallel.torchrun.dismiss", lambda: let_go.append(True))
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "x")
    monkeypatch.setenv("RANK", "0")
    assert invoke("run", recipe, *options, "--runs-folder", str(tmp_path / "runs"))[0] == 0
    assert let_go == [True]


def test_an_interrupted_run_says_that_the_same_command_continues(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:  # takes connections, never answers
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/"
        recipe = tmp_path / "long.yaml"
        recipe.write_text(
            f"name: long\nstages:\n  - collect: {{urls: ['{url}'], crawl: {{allow_private_hosts: true}}}}\n"
        )
        command = [sys.executable, "-m", "bessemer", "run", recipe, "--runs-folder", tmp_path / "runs"]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        silent.settimeout(600)
        with silent.accept()[0]:  # the crawler is at work, and waits for an answer
            process.send_signal(signal.SIGINT)
            _, errors = process.communicate(timeout=600)
    assert process.returncode == 1
    assert "the same command continues from here" in errors
    assert "Traceback" not in errors


def test_doctor_examines_the_machine_in_json(tmp_path: Path) -> None:
    code, output = invoke("doctor", "--json", "--runs-folder", tmp_path)
    checks = json.loads(output)
    names = {check["name"] for check in checks}
    assert {"python", "packages", "processor", "devices", "memory", "disk"} <= names
    assert code == (1 if any(check["outcome"] == "fail" for check in checks) else 0)


def test_what_is_allowed_and_perhaps_not_meant_is_said_before_a_run(tmp_path: Path) -> None:
    recipe = tmp_path / "mine.yaml"
    recipe.write_text(
        "stages: [collect, curate, tokenizer, tokens, pretrain: {schedule: {shape: linear, decay: 0.2}}]"
    )
    code, output = invoke("run", recipe, "--dry-run", "--runs-folder", tmp_path)
    assert code == 0
    assert "note: stage 'pretrain': schedule.decay" in output
