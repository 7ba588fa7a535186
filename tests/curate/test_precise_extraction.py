"""trafilatura in its child process: limits, crashes, renewal, and what becomes of the page then."""

import os
import subprocess
import sys
import time
from pathlib import Path

import polars as pl
import pytest
from curate_helpers import file_bytes, html_page, prose, stage_context, write_pages

from bessemer.curate.config import CurateConfig
from bessemer.curate.extraction import precise
from bessemer.curate.extraction.config import ExtractionConfig
from bessemer.curate.extraction.html import extract_page
from bessemer.curate.extraction.page import Extracted
from bessemer.curate.extraction.precise import PreciseExtractor, PreciseFault
from bessemer.curate.extraction.union import choose
from bessemer.curate.stage import curate
from bessemer.errors import BessemerError
from bessemer.formats.ledger import scan_ledger

_STAND_IN = f"""
import os, sys, time
sys.path.insert(0, {str(Path(precise.__file__).parent)!r})
import precise_child

def extract(page):
    if "crash" in page: os._exit(3)
    if "hog" in page: bytearray(8 << 30)
    if "raise" in page: raise ValueError("not my kind of page")
    if "nothing" in page: return None
    while "loop" in page: pass
    while "sleep" in page: time.sleep(1)
    return f"{{os.getpid()}}|{{page}}"

precise_child._trafilatura = lambda: extract
precise_child.main()
"""
"""A child that behaves as the page says, under the limits of the real one."""


def stand_in(tmp_path: Path, cpu_s: float) -> PreciseExtractor:
    script = tmp_path / "child.py"
    script.write_text(_STAND_IN)
    return PreciseExtractor(cpu_s, [sys.executable, str(script)])


@pytest.mark.parametrize(
    ("page", "reason"),
    [
        ("loop", "deadline: more than 0.2 s of processor time"),
        ("sleep", "deadline: no answer in 4 s, or killed"),
        ("crash", "crash: exit code 3"),
        ("hog", "memory: the parser asked for more than it is allowed"),
        ("raise", "error: ValueError: not my kind of page"),
    ],
)
def test_a_page_that_breaks_the_child_is_named_and_the_next_one_is_read(
    tmp_path: Path, page: str, reason: str, monkeypatch: pytest.MonkeyPatch
):
    # Only what sleeps is to meet this limit: on a busy machine, a little processor time may take long.
    monkeypatch.setattr(precise, "MIN_WALL_S", 4.0 if page == "sleep" else 600.0)
    extractor = stand_in(tmp_path, 0.2)
    with pytest.raises(PreciseFault) as caught:
        extractor.extract(page)
    assert str(caught.value) == reason
    assert extractor.extract("naïve").partition("|")[2] == "naïve"
    extractor.close()


def test_children_are_renewed_and_answer_alike(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(precise, "PAGES_PER_CHILD", 2)
    extractor = stand_in(tmp_path, 5)
    children = [extractor.extract("page").partition("|")[0] for _ in range(5)]
    assert [children.index(child) for child in children] == [0, 0, 2, 2, 4]
    assert extractor.extract("nothing") == ""
    extractor.close()


def test_a_large_page_passes_and_a_child_that_does_not_start_is_an_error(tmp_path: Path):
    extractor = stand_in(tmp_path, 5)
    page = "ü" * 3_000_000
    assert extractor.extract(page).partition("|")[2] == page
    extractor.close()
    with pytest.raises(BessemerError, match=r"did not start.*pip install 'bessemer\[precise\]'"):
        PreciseExtractor(1, [sys.executable, "-c", "raise SystemExit(1)"]).extract("page")


@pytest.mark.parametrize("extractor", ["precise", "union"])
def test_without_the_extra_the_config_says_how_to_install_it(extractor: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"needs trafilatura.*pip install 'bessemer\[precise\]'"):
        CurateConfig.model_validate({"extractor": extractor})
    assert CurateConfig().extractor == "resiliparse"


@pytest.mark.parametrize("extractor", ["precise", "union"])
def test_a_page_beyond_the_deadline_gets_the_other_text_and_the_ledger_says_so(
    tmp_path: Path, extractor: str
):
    pytest.importorskip("trafilatura")
    pages = [(f"https://a.org/{i}", "text/html", html_page(f"Page {i}", prose(i, 600))) for i in range(3)]
    write_pages(tmp_path / "pages", pages)
    run = {}
    for name, cpu_s in (("slow", 0.0001), ("fast", 20)):
        context = stage_context(tmp_path / "pages", tmp_path / name)
        config = CurateConfig.model_validate(
            {"extractor": extractor, "precise_cpu_s": cpu_s, "workers": 1, "near_duplicates": False}
        )
        metrics = curate(config, context)
        assert metrics["documents"] == 3
        run[name] = metrics, scan_ledger(tmp_path / name / "output").collect(), context.reporter
    metrics, ledger, reporter = run["slow"]
    reasons = set(ledger["extractor_reason"])
    assert reasons == {"instead of precise, deadline: more than 0.0001 s of processor time"}
    assert (metrics["extractor.resiliparse"], metrics["extractor.fallbacks"]) == (3, 3)
    assert any("may differ on another machine" in line for line in reporter.said)  # type: ignore[attr-defined]
    metrics, ledger, _ = run["fast"]
    assert metrics["extractor.precise"] == 3
    assert "extractor.fallbacks" not in metrics
    documents = pl.read_parquet(tmp_path / "fast" / "output" / "documents-*.parquet")
    assert all('"extractor": "precise"' in metadata for metadata in documents["metadata"])


def text(words: str, extractor: str) -> Extracted:
    return Extracted(words, None, 0.0, extractor=extractor)


def test_union_goes_by_what_the_precise_text_keeps_of_the_other():
    running = "A line of running text that has at least ten words in it."
    fast = text(f"Menu\n{running}\na\t\tb\n{running} Again.", "resiliparse")
    for words, expected in (
        (f"{running}\na | b\n{running} Again.", "precise"),
        (running, "resiliparse"),
        ("", "resiliparse"),
        (f"{running}\n{running} Again.", "precise"),
    ):
        assert choose(fast, text(words, "precise"))[0].extractor == expected
    assert choose(text("", "resiliparse"), text("x", "precise"))[0].extractor == "precise"
    thai = text("ภาษาไทยไม่มีช่องว่างระหว่างคำ", "resiliparse")
    assert choose(thai, text("ภาษาไทย", "precise"))[0].extractor == "resiliparse"


def test_the_same_page_has_the_same_text_whatever_was_read_before():
    pytest.importorskip("trafilatura")
    config = ExtractionConfig(extractor="precise")
    page = html_page("Same", prose(3)).decode()
    first = extract_page(page, config)
    for _ in range(4):  # trafilatura's own deduplication would drop what it has seen three times
        assert extract_page(page, config) == first
    assert first.extractor == "precise"
    assert "The " in first.text


@pytest.mark.slow
def test_any_number_of_workers_gives_the_same_bytes_with_union(tmp_path: Path):
    pytest.importorskip("trafilatura")
    pages = [(f"https://a.org/{i}", "text/html", html_page(f"Page {i}", prose(i))) for i in range(12)]
    write_pages(tmp_path / "pages", pages)
    for workers in (1, 2):
        config = CurateConfig(extractor="union", workers=workers, shard_bytes=2000, near_duplicates=False)
        curate(config, stage_context(tmp_path / "pages", tmp_path / str(workers)))
    assert file_bytes(tmp_path / "1" / "output") == file_bytes(tmp_path / "2" / "output")


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks for the process in /proc")
def test_the_child_ends_with_a_parent_that_was_killed(tmp_path: Path):
    script = tmp_path / "parent.py"
    script.write_text(
        "import sys, time\n"
        "from bessemer.curate.extraction.precise import PreciseExtractor\n"
        "extractor = PreciseExtractor(5, sys.argv[1:])\n"
        "print(extractor.extract('page').partition('|')[0], flush=True)\n"
        "time.sleep(600)\n"
    )
    child_script = tmp_path / "child.py"
    child_script.write_text(_STAND_IN)
    parent = subprocess.Popen(
        [sys.executable, str(script), sys.executable, str(child_script)],
        stdout=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    parent.kill()
    parent.communicate()
    deadline = time.monotonic() + 300
    while _is_running(child) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not _is_running(child)


def _is_running(process: int) -> bool:
    """A zombie that nobody waits for has ended."""
    try:
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"
