"""The whole stage: one ledger row a record, the same bytes for any workers, and after kill -9."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import polars as pl
import pytest
from curate_helpers import WEB_SAMPLES, Recorder, file_bytes, html_page, prose, stage_context, write_pages

from bessemer.curate.config import CurateConfig
from bessemer.curate.measure import ALWAYS_MEASURED
from bessemer.curate.stage import curate
from bessemer.errors import BessemerError
from bessemer.formats.documents import scan_documents
from bessemer.formats.ledger import scan_ledger
from bessemer.formats.warc import WarcRecord, read_warc

NUM_GOOD = 40


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Forty good pages, and some of every kind that is dropped."""
    folder = tmp_path_factory.mktemp("pages")
    good = [(f"https://a.org/{i}", "text/html", html_page(f"Page {i}", prose(i))) for i in range(NUM_GOOD)]
    changed = prose(3)[:-1] + prose(999, 1)
    write_pages(
        folder,
        [
            *good,
            ("https://a.org/1", "text/html", html_page("Captured again", prose(500))),
            ("https://b.org/copy", "text/html", html_page("Copy", prose(2))),
            ("https://b.org/near", "text/html", html_page("Nearly", changed)),
            ("https://b.org/short", "text/plain", b"Too short to keep."),
            ("https://b.org/empty", "text/html", b""),
            ("https://b.org/image", "image/png", b"\x89PNG"),
            ("https://b.org/deep", "text/html", b"<div>" * 10_000 + b"x"),
            ("https://b.org/latin", "text/html", html_page("De", ["Das ist ein deutscher Satz. " * 20])),
        ],
    )
    whole = folder / "pages-00000.warc.gz"
    (folder / "cut.warc.gz").write_bytes(whole.read_bytes()[:3000])
    return folder


def run(pages: Path, work: Path, **settings: object) -> dict:
    config = CurateConfig.model_validate({"shard_bytes": 8000, "workers": 1} | settings)
    return curate(config, stage_context(pages, work))


def test_every_record_has_exactly_one_ledger_row_and_only_kept_ones_a_document(pages: Path, tmp_path: Path):
    metrics = run(pages, tmp_path, url_duplicates=False)
    items = [item for path in sorted(pages.iterdir()) for item in read_warc(path)]
    places = sorted(
        (item.file, item.offset)
        for item in items
        if not isinstance(item, WarcRecord) or item.type in ("response", "resource", "conversion", "revisit")
    )
    ledger = scan_ledger(tmp_path / "output").collect()
    assert sorted(ledger.select("file", "offset").rows()) == places
    assert metrics["records"] == len(places) == len(ledger)
    assert metrics["records"] + metrics["other_records"] == len(items)
    kept = ledger.filter(pl.col("verdict") == "kept")
    documents = scan_documents(tmp_path / "output").collect()
    assert documents["id"].to_list() == kept["id"].to_list()
    assert metrics["documents"] == len(documents)
    drops = {name: count for name, count in metrics.items() if name.startswith("dropped.")}
    assert sum(drops.values()) == metrics["dropped"] == len(ledger) - len(documents)
    assert metrics["characters"] == sum(map(len, documents["text"]))


def test_each_kind_of_page_is_dropped_by_its_rule_with_value_threshold_and_excerpt(
    pages: Path, tmp_path: Path
):
    run(pages, tmp_path)
    ledger = scan_ledger(tmp_path / "output").collect()
    rows = {row["url"]: row for row in ledger.to_dicts() if (row["url"] or "").startswith("https://b.org/")}
    assert {url.rpartition("/")[2]: row["dropped_rule"] for url, row in rows.items()} == {
        "copy": "duplicates.exact",
        "near": "duplicates.near",
        "short": "gopher.word_count",
        "empty": "extract.empty",
        "image": "read.content_type",
        "deep": "extract.nesting",
        "latin": "language.code",
    }
    short = rows["https://b.org/short"]
    assert (short["dropped_value"], short["dropped_bound"], short["dropped_threshold"]) == (4, "min", 50)
    assert short["excerpt"] == "Too short to keep."
    near = rows["https://b.org/near"]
    ids = {row["url"]: row["id"] for row in ledger.filter(pl.col("verdict") == "kept").to_dicts()}
    assert near["duplicate_survivor"] == near["duplicate_partner"] == ids["https://a.org/3"]
    assert 0.8 <= near["duplicate_similarity"] < 1
    assert near["excerpt"].startswith("The ")
    again = ledger.filter(pl.col("title") == "Captured again")["dropped_rule"].to_list()
    assert again == ["duplicates.url"]
    assert ledger.filter(pl.col("dropped_rule") == "read.damaged")["file"].to_list() == ["cut.warc.gz"]


def test_the_ledger_holds_values_of_rules_that_are_off(pages: Path, tmp_path: Path):
    run(pages, tmp_path, rules={"*": "off"})
    ledger = scan_ledger(tmp_path / "output").collect()
    short = ledger.filter(pl.col("url") == "https://b.org/short")
    assert short["verdict"].item() == "kept"
    assert short["gopher.word_count"].item() == 4
    measured = ledger.filter(pl.col("language").is_not_null())
    assert measured.select(ALWAYS_MEASURED).null_count().sum_horizontal().item() == 0


def test_any_number_of_workers_gives_the_same_bytes(pages: Path, tmp_path: Path):
    for workers in (1, 2, 3):
        run(pages, tmp_path / str(workers), workers=workers)
    expected = file_bytes(tmp_path / "1" / "output")
    assert set(expected) == {
        "documents-00000.parquet",
        "duplicate_pairs-00000.parquet",
        "ledger-00000.parquet",
    }
    for workers in ("2", "3"):
        assert file_bytes(tmp_path / workers / "output") == expected


def test_small_files_are_rolled_and_hold_the_same_rows(pages: Path, tmp_path: Path):
    run(pages, tmp_path / "one")
    run(pages, tmp_path / "many", max_file_bytes=20_000)
    assert len(list((tmp_path / "many" / "output").glob("documents-*.parquet"))) > 1
    for scan in (scan_documents, scan_ledger):
        one, many = (scan(tmp_path / name / "output").collect() for name in ("one", "many"))
        assert one.equals(many)


_CHILD = """
import sys
from pathlib import Path
from curate_helpers import stage_context
from bessemer.curate.config import CurateConfig
from bessemer.curate.stage import curate

if __name__ == "__main__":
    config = CurateConfig(shard_bytes=2000, workers=2)
    curate(config, stage_context(Path(sys.argv[1]), Path(sys.argv[2])))
"""


def test_a_run_killed_in_the_middle_continues_to_the_same_bytes(pages: Path, tmp_path: Path):
    script = tmp_path / "child.py"
    script.write_text(_CHILD)
    source = str(Path(curate.__code__.co_filename).parents[2])
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([source, str(Path(__file__).parent)])}
    work = tmp_path / "killed"
    command = [sys.executable, str(script), str(pages), str(work)]
    child = subprocess.Popen(command, env=environment)
    scratch = work / "scratch"
    deadline = time.monotonic() + 600
    while not (scratch.is_dir() and list(scratch.glob("shard-*.json"))) and time.monotonic() < deadline:
        time.sleep(0.002)
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    finished = len(list(scratch.glob("shard-*.json")))
    (work / "output" / "documents-00000.parquet").write_bytes(b"leftover")
    (work / "output" / ".ledger-00000.parquet.partial").write_bytes(b"leftover")

    config = CurateConfig(shard_bytes=2000, workers=1)
    context = stage_context(pages, work)
    curate(config, context)
    curate(config, stage_context(pages, tmp_path / "undisturbed"))
    assert finished > 0
    assert isinstance(context.reporter, Recorder)
    assert any("continuing" in line for line in context.reporter.said)
    assert file_bytes(work / "output") == file_bytes(tmp_path / "undisturbed" / "output")


def test_shards_that_are_damaged_or_of_another_config_are_not_trusted(pages: Path, tmp_path: Path):
    run(pages, tmp_path / "clean")
    run(pages, tmp_path / "damaged")
    scratch = tmp_path / "damaged" / "scratch"
    (scratch / "shard-00000.parquet").write_bytes((scratch / "shard-00000.parquet").read_bytes()[:-7])
    (scratch / "shard-00001.bands.npy").unlink()
    (scratch / "shard-00002.json").write_text("{")
    run(pages, tmp_path / "damaged")
    assert file_bytes(tmp_path / "damaged" / "output") == file_bytes(tmp_path / "clean" / "output")
    german = run(pages, tmp_path / "damaged", languages=("de",), rules={"*": "off"})
    assert german["documents"] == 1


def test_pages_without_any_record_and_too_many_duplicates_stop_with_a_clear_error(tmp_path: Path):
    (tmp_path / "none").mkdir()
    with pytest.raises(BessemerError, match="no WARC or WET files"):
        run(tmp_path / "none", tmp_path / "a")
    (tmp_path / "none" / "empty.warc").write_bytes(b"")
    with pytest.raises(BessemerError, match="are empty"):
        run(tmp_path / "none", tmp_path / "a")
    same = html_page("Same", prose(1))
    write_pages(tmp_path / "same", [(f"https://a.org/{i}", "text/html", same) for i in range(10)])
    with pytest.raises(
        BessemerError, match=r"biggest cluster has 10 documents and keeps only https://a.org/0"
    ):
        run(tmp_path / "same", tmp_path / "b", max_duplicate_share=0.5)


@pytest.mark.skipif(not WEB_SAMPLES.is_dir(), reason="the shared web samples are not here")
def test_real_common_crawl_samples_and_broken_archives_are_all_accounted_for(tmp_path: Path):
    metrics = run(WEB_SAMPLES, tmp_path, languages=(), rules={"*": "off"})
    ledger = scan_ledger(tmp_path / "output").collect()
    assert len(ledger) == metrics["records"] > 60
    assert metrics["documents"] > 30
    assert ledger.filter(pl.col("verdict") == "dropped")["dropped_rule"].null_count() == 0
    assert {"de", "en", "ru"} & set(ledger["language"])
