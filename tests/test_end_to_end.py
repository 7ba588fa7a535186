"""The whole flow through the command line: every stage, killed in every stage, on damaged inputs."""

import gzip
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import polars as pl
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from bessemer.model.folder import load_model
from bessemer.runner.manifest import Manifest, open_artifact, read_manifest
from bessemer.tokenization.chat import render_prompt
from bessemer.tokenization.tokenizer import load_tokenizer

ROOT = Path(__file__).parent.parent
TINY = ROOT / "recipes/tiny.yaml"
STAGES = [
    *("collect", "curate", "tokenizer", "tokens", "base", "synthesize"),
    *("sft", "prefer", "dpo", "evaluate", "export"),
]
"""In the recipe's order."""

# One thread: two test workers on two cores would otherwise spin against each other.
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}


def start(*arguments: object) -> subprocess.Popen[str]:
    """The real command, in a process group of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "bessemer", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=ENVIRONMENT,
        start_new_session=True,
    )


def bessemer(*arguments: object, code: int = 0) -> str:
    """Run the command to its end; its output. Fails on another exit code than `code`."""
    process = start(*arguments)
    output, _ = process.communicate(timeout=1800)
    assert process.returncode == code, output
    return output


def manifests(run: Path) -> dict[str, Manifest]:
    return {stage: read_manifest(run / stage) for stage in STAGES}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The runs folder of a tiny run that nobody disturbed."""
    folder = tmp_path_factory.mktemp("undisturbed")
    output = bessemer("run", TINY, "--runs-folder", folder)
    assert "bessemer chat" in output
    return folder


def test_a_run_killed_in_every_stage_ends_with_the_same_bytes(undisturbed: Path, tmp_path: Path) -> None:
    expected = manifests(undisturbed / "tiny")
    chance = random.Random(20)
    killed = 0
    for stage in STAGES:
        process = start("run", TINY, "--runs-folder", tmp_path)
        finished, partial = tmp_path / "tiny" / stage, tmp_path / "tiny" / f".{stage}.partial"
        deadline_s = time.monotonic() + 900
        while not partial.exists() and not finished.exists() and process.poll() is None:
            assert time.monotonic() < deadline_s, f"{stage} did not start"
            time.sleep(0.002)
        # The undisturbed run may have been the slower one: never wait beyond the stage's own end, or the
        # kill would come when later stages, even the last one, are done.
        moment_s = time.monotonic() + chance.uniform(0, 0.9) * expected[stage].cost.wall_s
        while time.monotonic() < moment_s and not finished.exists():
            time.sleep(0.002)
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        killed += process.returncode == -signal.SIGKILL
    assert killed >= len(STAGES) - 1, "only in the last stage may the process end before it is killed"
    bessemer("run", TINY, "--runs-folder", tmp_path)
    for stage, manifest in manifests(tmp_path / "tiny").items():
        files = {f.path: f.sha256 for f in manifest.files if not f.measured}
        assert files == {f.path: f.sha256 for f in expected[stage].files if not f.measured}, stage
        assert manifest.digest == expected[stage].digest


def test_a_second_run_has_nothing_to_do(undisturbed: Path) -> None:
    output = bessemer("run", TINY, "--runs-folder", undisturbed)
    assert output.count(": up to date") == len(STAGES)


def test_the_exported_folder_is_a_transformers_model(undisturbed: Path) -> None:
    folder = undisturbed / "tiny/export"
    tokenizer, theirs = AutoTokenizer.from_pretrained(folder), AutoModelForCausalLM.from_pretrained(folder)
    messages = [{"role": "user", "content": "What does math.gcd do?"}]
    prompt = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
    assert prompt == render_prompt(load_tokenizer(folder), messages)
    assert theirs.generation_config.eos_token_id[0] == tokenizer.eos_token_id
    ids = torch.tensor([prompt])
    ours = load_model(folder)
    with torch.no_grad():
        difference = (ours.logits(ours(ids)) - theirs(ids).logits).abs().max()
    assert difference < 1e-4


def test_every_artifact_verifies_and_its_lineage_is_sound(undisturbed: Path) -> None:
    for stage in STAGES:
        open_artifact(undisturbed / "tiny" / stage)
    lineage = json.loads(bessemer("lineage", "tiny", "--runs-folder", undisturbed, "--json"))
    assert lineage["is_sound"]


def test_the_report_holds_stages_and_models(undisturbed: Path) -> None:
    report = json.loads(bessemer("report", "tiny", "--runs-folder", undisturbed, "--json"))
    assert [stage["name"] for stage in report["stages"]] == STAGES
    assert set(report["models"]) == {"base", "sft", "dpo"}
    for model in report["models"].values():
        for figure in ("bits_per_byte", "answer_accuracy", "made_up_rate", "stop_rate"):
            assert set(model[figure]) == {"value", "low", "high", "n"}


def test_the_ledger_explains_a_page_by_its_url(undisturbed: Path) -> None:
    url = "http://pydoc.localhost/reference/textwrap.html"
    explanation = json.loads(bessemer("why", "tiny", url, "--runs-folder", undisturbed, "--json"))
    assert "gopher.word_count" in json.dumps(explanation)


def test_doctor_finds_the_exported_model_well(undisturbed: Path) -> None:
    checks = json.loads(bessemer("doctor", "tiny", "--runs-folder", undisturbed, "--json"))
    assert not [check for check in checks if check["outcome"] == "fail"]


def test_a_corrupted_artifact_stops_the_run_and_names_the_file(undisturbed: Path, tmp_path: Path) -> None:
    run = tmp_path / "tiny"
    shutil.copytree(undisturbed / "tiny", run)
    weights = run / "sft/model.safetensors"
    content = bytearray(weights.read_bytes())
    content[len(content) // 2] ^= 1
    weights.write_bytes(content)
    shutil.rmtree(run / "dpo")
    verdict = bessemer("run", TINY, "--runs-folder", tmp_path, "--dry-run", code=1)
    assert "model.safetensors" in verdict


def test_a_mistake_in_a_recipe_is_named_with_its_line_and_mend(tmp_path: Path) -> None:
    recipe = tmp_path / "wrong.yaml"
    recipe.write_text("name: wrong\nstages:\n  - colect\n  - curate:\n      min_langage_score: 0.5\n")
    output = bessemer("run", recipe, "--runs-folder", tmp_path, code=2)
    assert f"{recipe}:3" in output
    assert "collect" in output
    assert f"{recipe}:5" in output
    assert "min_language_score" in output


def test_damaged_inputs_are_counted_and_ledgered_and_never_a_crash(tmp_path: Path) -> None:
    pages = tmp_path / "pages"
    pages.mkdir()
    prose = "The quick brown fox and the lazy dog have to be with us, and that is all there is to say. "
    (pages / "good.html").write_text(f"<html><body><main><p>{prose * 12}</p></main></body></html>")
    (pages / "good.txt").write_text("A river and the hills that rise beside it are old. " * 15)
    (pages / "empty.html").write_text("")
    (pages / "invalid.txt").write_bytes(b"\xff\xfe\xfa\x80" * 400)
    (pages / "nested.html").write_text("<div>" * 10_000 + prose * 10 + "</div>" * 10_000)
    (pages / "long_line.txt").write_bytes(b"a" * 50_000_000)
    record = (
        b"WARC/1.0\r\nWARC-Type: resource\r\nWARC-Target-URI: http://example.org/a\r\n"
        b"WARC-Date: 2024-01-01T00:00:00Z\r\nContent-Type: text/plain\r\nContent-Length: 5000\r\n\r\n"
    )
    (tmp_path / "cut.warc.gz").write_bytes(gzip.compress(record + b"text " * 1000)[:-40])
    recipe = tmp_path / "damaged.yaml"
    recipe.write_text(
        f"name: damaged\nstages:\n  - collect: {{path: [{pages}, {tmp_path / 'cut.warc.gz'}]}}\n"
        "  - curate: {rules: {gopher.duplicate_*: off, gopher.top_*: off}}\n"
    )
    bessemer("run", recipe, "--runs-folder", tmp_path / "runs")
    ledger = pl.read_parquet(tmp_path / "runs/damaged/curate/ledger-*.parquet")
    urls = ledger["url"].to_list()
    documents = pl.read_parquet(tmp_path / "runs/damaged/curate/documents-*.parquet")
    kept = {url.rpartition("/")[2] for url in documents["url"]}
    assert kept == {"good.html", "good.txt"}
    for name in ("good.html", "empty.html", "invalid.txt", "nested.html"):
        assert any(url and url.endswith(name) for url in urls), f"{name} is not in the ledger"
    told = (tmp_path / "runs/damaged/collect/crawl.jsonl").read_text() + json.dumps(urls)
    assert "long_line.txt" in told
    assert len(ledger) > len(documents)
