"""Every reader on damaged files: no crash, no hang, nothing lost in silence, neighbours survive.

Each input is a valid file of six records with a few edits in one of them (`damage`). Whatever the
damage does, the reader must end, must not raise, and must either give every record as a document or name
a fault; and the records that were not touched must come out as they were. The fast suite draws
a small share, the slow one more than ten thousand inputs; both count them.
"""

import bz2
import gzip
import json
import lzma
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import fuzz_samples as samples
import pyarrow as pa
import pytest
from damage import EDITS, Damaged, Sample, damaged
from fuzz_samples import NUM_RECORDS, WORDS
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from bessemer.collect import CollectConfig
from bessemer.collect.common_crawl.index import Capture, Unfound, _captures
from bessemer.collect.hub.card import parse_card
from bessemer.collect.hub.config import HubConfig
from bessemer.collect.hub.selection import chosen_files
from bessemer.collect.local import count_pages
from bessemer.collect.readers.columnar import read_arrow, read_parquet
from bessemer.collect.readers.guarded import GuardedReader
from bessemer.collect.readers.jsonl import read_jsonl
from bessemer.collect.readers.pages import Fault, Page
from bessemer.collect.readers.text import read_document
from bessemer.collect.readers.transcripts import read_transcript
from bessemer.collect.robots_txt import parse_robots_txt
from bessemer.collect.sitemaps import parse_sitemap
from bessemer.curate.extraction.config import ExtractionConfig
from bessemer.curate.records import is_page, read_candidate
from bessemer.errors import ConfigError
from bessemer.formats.warc import WarcRecord, read_warc

CONFIG = CollectConfig.model_validate({"path": "x", "document_cpu_s": 2, "max_document_bytes": 2_000_000})
MAX_CPU_S = 5.0
"""An input that takes longer hangs; most take a millisecond."""
FAST_SHARE = 50


@dataclass
class Named:
    """Faults as the failure log gets them."""

    faults: list[str]

    def add(self, place: str, reason: str, is_kept: bool = False) -> None:
        assert reason.partition(":")[0].strip(), "a fault has a kind"
        assert place, "a fault has a place"
        self.faults.append(f"{place} {reason}")


def untouched(damage: Damaged) -> list[int]:
    """Numbers of the records that must come out as they were."""
    return [n for n in range(NUM_RECORDS) if n < damage.record or (n > damage.record and not damage.is_cut)]


def items_of(items) -> tuple[list[Page], list[Fault]]:
    found = list(items)
    assert all(isinstance(item, Page | Fault) for item in found)
    faults = [item for item in found if isinstance(item, Fault)]
    assert all(fault.reason.partition(":")[0].strip() for fault in faults)
    return [item for item in found if isinstance(item, Page)], faults


def num_expected(damage: Damaged, is_one_of_six: bool) -> int:
    """How many records the file seems to hold. A file that ends between two records is a sound one."""
    if damage.is_gone:
        return damage.record if is_one_of_six else 0
    return damage.record + 1 if damage.is_cut and is_one_of_six else NUM_RECORDS


def check_records(damage: Damaged, texts: list[str], num_faults: int, keeps_neighbours: bool = True) -> None:
    """Whole records are there once, and a record that is not there is named."""
    wanted = untouched(damage) if keeps_neighbours else []
    for number in wanted:
        assert any(WORDS[number] in text for text in texts), f"record {number} is lost"
    if len(texts) < num_expected(damage, keeps_neighbours):
        assert num_faults, "a record went without a word"


def check_warc(folder: Path, damage: Damaged, name: str) -> None:
    path = folder / name
    path.write_bytes(damage.content)
    named = Named([])
    num_pages = count_pages(path, f"file:{name}", named)  # type: ignore[arg-type]
    items = list(read_warc(path))
    # What collect takes is what curate reads: every page becomes a text, or a drop with its reason.
    candidates = [
        read_candidate(item, ExtractionConfig(max_page_bytes=1 << 20)) for item in items if is_page(item)
    ]
    assert all(candidate.text or candidate.drop for candidate in candidates)
    texts = [candidate.text for candidate in candidates if candidate.drop is None]
    drops = [candidate for candidate in candidates if candidate.drop is not None]
    assert num_pages == sum(isinstance(item, WarcRecord) and is_page(item) for item in items)
    check_records(damage, texts, len(named.faults) + len(drops))


def check_rows(reader: Callable, folder: Path, damage: Damaged, name: str) -> None:
    path = folder / name
    path.write_bytes(damage.content)
    pages, faults = items_of(reader(path, CONFIG))
    texts = [str(json.loads(page.body)["text"]) for page in pages]
    check_records(damage, texts, len(faults))


def check_anywhere(reader: Callable, folder: Path, damage: Damaged, name: str) -> None:
    """Damage may hit what all records need, so that neighbours may go with it: but named."""
    path = folder / name
    path.write_bytes(damage.content)
    pages, faults = items_of(reader(path, CONFIG))
    check_records(damage, [page.body.decode() for page in pages], len(faults), keeps_neighbours=False)


def check_document(kind: str, folder: Path, damage: Damaged, name: str) -> None:
    path = folder / name
    path.write_bytes(damage.content)
    pages, faults = items_of(read_document(path, kind, CONFIG))
    assert len(pages) + len(faults) == 1
    if pages:
        # Byte for byte, so that nothing can be lost here; what curation makes of it is checked, too.
        assert pages[0].body == damage.content
        record = WarcRecord(
            name, 0, 0, (("WARC-Type", "resource"), ("Content-Type", pages[0].content_type)), damage.content
        )
        candidate = read_candidate(record, ExtractionConfig(max_page_bytes=1 << 20))
        assert candidate.text or candidate.drop
        candidate.text.encode("utf-8")


def check_compressed(compress: Callable[[bytes], bytes], folder: Path, damage: Damaged, name: str) -> None:
    path = folder / name
    path.write_bytes(damage.content)
    pages, faults = items_of(read_jsonl(path, CONFIG))
    if damage.content == compress(samples.jsonl().content):
        assert len(pages) == NUM_RECORDS
    elif len(pages) < NUM_RECORDS and not damage.is_gone:
        assert faults


def check_guarded(guarded: GuardedReader, kind: str, folder: Path, damage: Damaged, name: str) -> None:
    path = folder / name
    path.write_bytes(damage.content)
    pages, faults = items_of(guarded.read(path, kind))
    text = pages[0].body.decode() if pages else ""
    assert len(pages) <= 1
    assert pages or faults
    if kind == "epub":  # with damage anywhere, the zip's directory may be hit and all be lost, but named
        lost = [n for n in range(NUM_RECORDS) if WORDS[n] not in text]
        assert "anywhere" in name or not set(lost) & set(untouched(damage))
        assert faults or not set(lost) - {damage.record}


def check_transcript(folder: Path, damage: Damaged, name: str) -> None:
    path = folder / name
    path.write_bytes(damage.content)
    pages, faults = items_of(read_transcript(path, CONFIG))
    text = pages[0].body.decode() if pages else ""
    assert pages or faults
    for number in untouched(damage):
        assert WORDS[number] in text or _has_bad_cue(faults, number), f"cue {number} is lost"


def _has_bad_cue(faults: list[Fault], number: int) -> bool:
    return any(fault.reason.startswith("bad cue") for fault in faults)


def check_robots(_: Path, damage: Damaged, name: str) -> None:
    robots = parse_robots_txt(damage.content.decode("utf-8", "replace"), "bessemer")
    assert robots.is_allowed("http://a.test/robots.txt")
    assert robots.crawl_delay_s == 2.0
    assert not robots.is_allowed("http://a.test/private/x")
    for number in untouched(damage):
        assert f"http://a.test/{number}.xml" in robots.sitemaps


def check_sitemap(_: Path, damage: Damaged, name: str) -> None:
    sitemap = parse_sitemap((), damage.content, 1000)
    for number in range(damage.record):
        assert f"http://a.test/{number}" in sitemap.pages
    missing = [n for n in untouched(damage) if f"http://a.test/{n}" not in sitemap.pages]
    assert sitemap.fault or not missing


def check_card(_: Path, damage: Damaged, name: str) -> None:
    card = parse_card(damage.content)
    if card is None:
        return
    assert card.licence is None or isinstance(card.licence, str)
    try:
        chosen = chosen_files(HubConfig(dataset="a/b"), card, ["x/1.parquet", "y.jsonl", "t.jsonl"])
    except ConfigError:
        return  # the damage left subsets or patterns that fit nothing, and the user is told so
    assert chosen


def check_index(_: Path, damage: Damaged, name: str) -> None:
    items = list(_captures(damage.content, "index"))
    urls = [item.url for item in items if isinstance(item, Capture)]
    for number in untouched(damage):
        assert f"http://a.test/{number}" in urls
    assert all(item.where and item.reason for item in items if isinstance(item, Unfound))
    assert len(items) >= NUM_RECORDS - (NUM_RECORDS if damage.is_cut else 1)


Check = Callable[[Path, Damaged, str], None]


def _with(function: Callable, *first: object) -> Check:
    return lambda folder, damage, name: function(*first, folder, damage, name)


def _compressed(compress: Callable[[bytes], bytes]) -> Sample:
    return Sample(compress(samples.jsonl().content), ((0, 1),)).whole


def _zstd(content: bytes) -> bytes:
    return pa.compress(content, codec="zstd", asbytes=True)


def _gzip(content: bytes) -> bytes:
    return gzip.compress(content, mtime=0)


_TEXT = samples.joined([words.encode() for words in WORDS], between=b"\n\n")
_MARKDOWN = samples.joined([f"# {words}\n\n- {words}".encode() for words in WORDS], between=b"\n\n")
_CODE = samples.joined(
    [f"def f{n}():\n    return '{words}'".encode() for n, words in enumerate(WORDS)], b"\n\n"
)
_HTML = samples.joined(
    [f"<p class=x>{words} <a href='/{n}'>caf\u00e9</a></p>".encode() for n, words in enumerate(WORDS)],
    between=b"\n",
    head=b"<!doctype html><html><head><meta charset=utf-8><title>x</title></head><body><main>",
    tail=b"<table><tr><td>1<td>2</table><pre>code</pre></main></body></html>",
)

READERS: dict[str, tuple[int, Sample, str, Check]] = {
    "warc": (1200, samples.joined(samples.warc_records()), "a.warc", check_warc),
    "warc.gz": (
        1200,
        samples.joined([samples.gzip_member(each) for each in samples.warc_records()]),
        "a.warc.gz",
        check_warc,
    ),
    "wet": (600, samples.joined(samples.warc_records("conversion")), "a.warc.wet", check_warc),
    "html": (1000, _HTML, "a.html", _with(check_document, "html")),
    "text": (400, _TEXT, "a.txt", _with(check_document, "text")),
    "markdown": (400, _MARKDOWN, "a.md", _with(check_document, "markdown")),
    "code": (400, _CODE, "a.py", _with(check_document, "code")),
    "jsonl": (1000, samples.jsonl(), "a.jsonl", _with(check_rows, read_jsonl)),
    "jsonl.gz": (300, _compressed(_gzip), "a.jsonl.gz", _with(check_compressed, _gzip)),
    "jsonl.bz2": (300, _compressed(bz2.compress), "a.jsonl.bz2", _with(check_compressed, bz2.compress)),
    "jsonl.xz": (300, _compressed(lzma.compress), "a.jsonl.xz", _with(check_compressed, lzma.compress)),
    "jsonl.zst": (300, _compressed(_zstd), "a.jsonl.zst", _with(check_compressed, _zstd)),
    "parquet": (600, samples.parquet(), "a.parquet", _with(check_rows, read_parquet)),
    "parquet anywhere": (400, samples.parquet().whole, "a.parquet", _with(check_anywhere, read_parquet)),
    "arrow": (400, samples.arrow(), "a.arrow", _with(check_rows, read_arrow)),
    "arrow anywhere": (300, samples.arrow_stream(), "a.arrow", _with(check_anywhere, read_arrow)),
    "transcript": (600, samples.transcript(), "a.srt", check_transcript),
    "robots.txt": (500, samples.robots(), "robots.txt", check_robots),
    "sitemap": (500, samples.sitemap(), "sitemap.xml", check_sitemap),
    "dataset card": (400, samples.card(), "README.md", check_card),
    "crawl index": (300, samples.index_lines(), "index", check_index),
}
GUARDED: dict[str, tuple[int, Sample, str]] = {
    "epub": (500, samples.epub(), "a.epub"),
    "epub anywhere": (200, samples.epub().whole, "anywhere.epub"),
    "pdf": (300, samples.pdf(), "a.pdf"),
    "pdf anywhere": (300, samples.pdf().whole, "a.pdf"),
}
NUM_INPUTS = sum(reader[0] for reader in [*READERS.values(), *GUARDED.values()])


def test_the_slow_suite_draws_ten_thousand_inputs():
    assert NUM_INPUTS >= 10_000


def fuzz(num_inputs: int, sample: Sample, name: str, check: Check, folder: Path) -> None:
    """Draw so many inputs and check each."""
    check(folder, damaged(sample, 0, []), name)  # what compiles at first use does so before time is taken
    num_drawn = 0

    @settings(
        max_examples=num_inputs,
        database=None,
        derandomize=True,
        deadline=None,
        phases=(Phase.generate, Phase.shrink),
        suppress_health_check=list(HealthCheck),
    )
    @given(st.integers(0, NUM_RECORDS - 1), EDITS)
    def run(number, edits):
        nonlocal num_drawn
        num_drawn += 1
        started_s = time.process_time()
        check(folder, damaged(sample, number, edits), name)
        assert time.process_time() - started_s < MAX_CPU_S, "the input hangs the reader"

    run()
    assert num_drawn >= num_inputs


@pytest.mark.parametrize("kind", READERS)
def test_a_reader_survives_a_small_share_of_damaged_files(tmp_path, kind):
    num_inputs, *rest = READERS[kind]
    fuzz(num_inputs // FAST_SHARE, *rest, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("kind", READERS)
def test_a_reader_survives_damaged_files(tmp_path, kind):
    fuzz(*READERS[kind], tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("kind", GUARDED)
def test_a_guarded_reader_survives_damaged_files(tmp_path, kind):
    if kind.startswith("pdf"):
        pytest.importorskip("pypdf")
    num_inputs, sample, name = GUARDED[kind]
    with GuardedReader(CONFIG) as guarded:
        fuzz(num_inputs, sample, name, _with(check_guarded, guarded, kind.partition(" ")[0]), tmp_path)
