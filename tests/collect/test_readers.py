"""Readers of local files: what each kind gives, and what becomes of hostile ones."""

import bz2
import gzip
import json
import lzma
import zipfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from collect_helpers import records_of, stage_context
from file_samples import VTT, epub_bytes, pdf_bytes

from bessemer.collect import CollectConfig, collect
from bessemer.collect.readers import compressed
from bessemer.formats.warc import WarcRecord


def collect_bytes(folder: Path, name: str, content: bytes, **settings: object) -> tuple[list, dict]:
    """Pages, and reasons by place, of one file beside a good one."""
    corpus = folder / "corpus"
    corpus.mkdir(parents=True, exist_ok=True)
    (corpus / name).write_bytes(content)
    (corpus / "zz-good.txt").write_text("good words")
    context = stage_context(folder / "run")
    collect(CollectConfig.model_validate({"path": str(corpus), **settings}), context)
    pages = [each for each in records_of(context.output) if each.type in ("resource", "conversion")]
    assert pages[-1].block == b"good words", "a bad file must not take others with it"
    log = context.output / "crawl.jsonl"
    lines = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
    return pages[:-1], {line["url"].removeprefix("file:corpus/"): line["reason"] for line in lines}


def only(pages: list[WarcRecord]) -> WarcRecord:
    (page,) = pages
    return page


def test_a_pdf_gives_its_text_layer_with_title(tmp_path):
    pytest.importorskip("pypdf")
    pages, faults = collect_bytes(tmp_path, "a.pdf", pdf_bytes("First page.", "Second page."))
    page = only(pages)
    assert (page.type, page.uri, page.block) == (
        "conversion",
        "file:corpus/a.pdf",
        b"First page.\n\nSecond page.",
    )
    assert page.description == {"source": "corpus", "title": "A report"}
    assert faults == {}


def test_a_chapter_whose_name_in_the_zip_is_overwritten_is_named_and_the_others_stay(tmp_path):
    """The name before an entry, not that of the zip's directory; marked as UTF-8, which it is no more."""
    content = bytearray(epub_bytes({"one": "<p>Here.</p>", "two": "<p>Gone.</p>"}))
    at = content.index(b"OPS/two.xhtml")
    content[at - 24 : at - 22] = (0x800).to_bytes(2, "little")
    content[at] = 0xFF
    pages, faults = collect_bytes(tmp_path, "a.epub", bytes(content))
    text = only(pages).block.decode()
    assert "Here." in text
    assert "Gone." not in text
    assert "a.epub:OPS/two.xhtml" in faults


def test_an_epub_gives_its_chapters_in_the_order_of_the_spine(tmp_path):
    chapters = {"two": "<h1>Two</h1><p>Later&nbsp;words.</p>", "one": "<h1>One</h1><p>First words.</p>"}
    pages, _ = collect_bytes(tmp_path, "a.epub", epub_bytes(chapters, ["one", "two"]))
    text = only(pages).block.decode().replace("\xa0", " ")
    assert text.index("First words.") < text.index("Later words.")
    assert only(pages).description == {
        "source": "corpus",
        "licence": "CC0-1.0",
        "title": "A Book",
        "author": "Ann Author",
    }


def test_a_missing_chapter_is_reported_and_the_others_read(tmp_path):
    content = epub_bytes({"one": "<p>Here.</p>", "two": "<p>Gone.</p>"})
    (tmp_path / "whole.epub").write_bytes(content)
    with (
        zipfile.ZipFile(tmp_path / "whole.epub") as whole,
        zipfile.ZipFile(tmp_path / "part.epub", "w") as part,
    ):
        for name in whole.namelist():
            if "two" not in name:
                part.writestr(name, whole.read(name))
    pages, faults = collect_bytes(tmp_path, "a.epub", (tmp_path / "part.epub").read_bytes())
    assert only(pages).block == b"Here."
    assert faults["a.epub:OPS/two.xhtml"].startswith("missing chapter")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"not a zip", "damaged EPUB"),
        (epub_bytes({"one": "<p>x</p>"})[:-30], "damaged EPUB"),
        (epub_bytes({"one": "<p>" + "x" * 9_000_000 + "</p>"}), "too long"),
        (
            epub_bytes({"one": "<p>x</p>"}, opf_head='<!DOCTYPE p [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;">]>'),
            "damaged EPUB file: OPS/book.opf: it declares entities",
        ),
    ],
)
def test_hostile_epubs_are_refused_by_name(tmp_path, content, reason):
    pages, faults = collect_bytes(tmp_path, "a.epub", content, max_document_bytes=2_000_000)
    assert pages == []
    assert faults["a.epub"].startswith(reason)


def test_a_transcript_keeps_words_and_speakers_and_drops_timings(tmp_path):
    pages, faults = collect_bytes(tmp_path, "a.vtt", VTT.encode())
    assert only(pages).block.decode() == "Ann: Good morning everyone.\n\nBob: Hello & welcome."
    assert faults == {}


def test_subrip_cues_that_roll_are_said_once_and_bad_blocks_named(tmp_path):
    srt = (
        "1\r\n00:00:01,000 --> 00:00:02,000\r\none two\r\n\r\n"
        "2\r\n00:00:02,000 --> 00:00:03,000\r\none two\r\n"
        "three\r\n\r\nno timing here\r\n\r\n3\r\n00:00:09,000 --> 00:00:10,000\r\nAfter a pause.\r\n"
    )
    pages, faults = collect_bytes(tmp_path, "a.srt", srt.encode())
    assert only(pages).block.decode() == "one two three\n\nAfter a pause."
    assert list(faults) == ["a.srt:3"]


def test_source_code_carries_language_and_licence(tmp_path):
    code = b"# SPDX-License-Identifier: MIT OR Apache-2.0\ndef f():\n    return 1\n"
    pages, _ = collect_bytes(tmp_path, "a.py", code, licence="CC0-1.0")
    assert only(pages).block == code
    assert only(pages).description == {
        "source": "corpus",
        "licence": "MIT OR Apache-2.0",
        "programming_language": "Python",
    }


def test_binary_files_with_a_name_of_source_code_are_reported(tmp_path):
    _, faults = collect_bytes(tmp_path, "a.c", b"int\0main")
    assert faults["a.c"].startswith("binary")


@pytest.mark.parametrize(
    ("suffix", "compress"),
    [
        ("gz", gzip.compress),
        ("bz2", bz2.compress),
        ("xz", lzma.compress),
        ("zst", lambda raw: pa.compress(raw, codec="zstd", asbytes=True)),
    ],
)
def test_compressed_files_read_as_plain_ones_and_cut_ones_keep_what_came_before(tmp_path, suffix, compress):
    rows = b"".join(b'{"text": "row %d"}\n' % number for number in range(50))
    pages, faults = collect_bytes(tmp_path / "whole", f"a.jsonl.{suffix}", compress(rows) + compress(rows))
    assert len(pages) == 100
    assert faults == {}
    _, faults = collect_bytes(tmp_path / "cut", f"a.jsonl.{suffix}", compress(rows)[:-8])
    assert any(reason.startswith("damaged") for reason in faults.values())


def test_a_decompression_bomb_is_named_and_given_up(tmp_path):
    bomb = lzma.compress(b"\0" * (300 << 20), preset=0)
    _, faults = collect_bytes(tmp_path, "a.jsonl.xz", bomb)
    assert faults["a.jsonl.xz:1"].startswith("decompression bomb")


def test_a_row_is_called_by_its_id_and_a_repeated_id_is_reported_and_kept(tmp_path):
    rows = [{"id": "a", "text": "1"}, {"id": "a", "text": "2"}, {"id": "b c", "text": "3", "license": "MIT"}]
    content = "\n".join(map(json.dumps, rows)).encode()
    pages, faults = collect_bytes(tmp_path, "a.jsonl", content, licence="CC0-1.0")
    assert [page.uri for page in pages] == [
        "file:corpus/a.jsonl#a",
        "file:corpus/a.jsonl#2",
        "file:corpus/a.jsonl#b%20c",
    ]
    assert faults == {"a.jsonl:2": "repeated id: 'a' was the id of an earlier row"}
    assert json.loads(pages[2].block)["licence"] == "MIT"
    assert pages[0].description["licence"] == "CC0-1.0"


def test_a_row_says_when_it_was_fetched(tmp_path):
    content = b'{"text": "a", "day": "2021-02-03T04:05:06+01:00"}\n{"text": "b", "day": "soon"}\n'
    pages, _ = collect_bytes(tmp_path, "a.jsonl", content, date_column="day", fetched_at="2020-01-01")
    assert [page.date for page in pages] == ["2021-02-03T03:05:06Z", "2020-01-01T00:00:00Z"]


def test_a_saved_data_set_is_read_without_its_bookkeeping(tmp_path):
    datasets = pytest.importorskip("datasets")
    info = datasets.DatasetInfo(license="CC-BY-4.0")
    rows = datasets.Dataset.from_dict({"text": ["a", "b"], "n": [1, 2]}, info=info)
    rows.save_to_disk(str(tmp_path / "saved"))
    context = stage_context(tmp_path / "run")
    collect(CollectConfig.model_validate({"path": str(tmp_path / "saved")}), context)
    pages = [page for page in records_of(context.output) if page.type == "resource"]
    assert [json.loads(page.block)["text"] for page in pages] == ["a", "b"]
    assert {page.description["licence"] for page in pages} == {"CC-BY-4.0"}
    assert not (context.output / "crawl.jsonl").exists()


def test_invalid_utf8_in_a_parquet_column_costs_one_row(tmp_path):
    offsets = pa.py_buffer(b"\0\0\0\0\1\0\0\0\2\0\0\0\3\0\0\0")
    column = pa.Array.from_buffers(pa.string(), 3, [None, offsets, pa.py_buffer(b"a\xffc")])
    pq.write_table(pa.table({"text": column}), tmp_path / "x.parquet")
    pages, faults = collect_bytes(tmp_path, "a.parquet", (tmp_path / "x.parquet").read_bytes())
    assert [json.loads(page.block)["text"] for page in pages] == ["a", "c"]
    assert faults["a.parquet:2"].startswith("invalid UTF-8")


@pytest.mark.parametrize(
    "name", ["a.jsonl", "a.jsonl.gz", "a.warc", "a.srt", "a.arrow", "a.parquet", "a.epub"]
)
def test_an_empty_file_is_named(tmp_path, name):
    pages, faults = collect_bytes(tmp_path, name, b"")
    assert pages == []
    assert len(faults) == 1
    assert next(iter(faults)).startswith(name)


def test_a_text_that_begins_like_a_compressed_file_is_read_as_it_is(tmp_path):
    pages, faults = collect_bytes(tmp_path, "a.txt", b"BZh is how a bzip2 file begins.")
    assert (only(pages).block, faults) == (b"BZh is how a bzip2 file begins.", {})


def test_a_bound_on_documents_holds_over_files_and_rows(tmp_path):
    (tmp_path / "corpus").mkdir()
    for name in "ab":
        (tmp_path / "corpus" / f"{name}.jsonl").write_text('{"text": "x"}\n{"text": "y"}\n')
    context = stage_context(tmp_path / "run")
    config = CollectConfig.model_validate({"path": str(tmp_path / "corpus"), "max_pages": 3})
    metrics = collect(config, context)
    assert metrics["pages"] == 3
    assert [page.uri for page in records_of(context.output)[1:]] == [
        *("file:corpus/a.jsonl#1", "file:corpus/a.jsonl#2", "file:corpus/b.jsonl#1")
    ]


def test_a_few_rows_of_arrow_that_are_no_utf8_cost_themselves_alone(tmp_path):
    offsets = pa.py_buffer(b"\0\0\0\0\1\0\0\0\2\0\0\0\3\0\0\0")
    column = pa.Array.from_buffers(pa.string(), 3, [None, offsets, pa.py_buffer(b"a\xffc")])
    table = pa.table({"text": column})
    with pa.ipc.new_file(tmp_path / "x.arrow", table.schema) as writer:
        writer.write_table(table)
    pages, faults = collect_bytes(tmp_path, "a.arrow", (tmp_path / "x.arrow").read_bytes())
    assert [json.loads(page.block)["text"] for page in pages] == ["a", "c"]
    assert list(faults) == ["a.arrow:2"]


def test_a_column_of_one_text_thousands_of_times_is_a_bomb(tmp_path, monkeypatch):
    monkeypatch.setattr(compressed, "_FREE_BYTES", 1 << 20)
    text = "x" * 1000
    column = pa.DictionaryArray.from_arrays(pa.array([0] * 20_000, pa.int32()), pa.array([text]))
    pq.write_table(pa.table({"text": column}), tmp_path / "x.parquet")
    (corpus := tmp_path / "corpus").mkdir()
    (corpus / "a.parquet").write_bytes((tmp_path / "x.parquet").read_bytes())
    context = stage_context(tmp_path / "run")
    metrics = collect(CollectConfig.model_validate({"path": str(corpus)}), context)
    assert 500 < metrics["pages"] < 2000
    assert metrics["failed_by_reason"] == {"decompression bomb": 1}


def test_one_bad_byte_does_not_change_how_a_transcript_is_decoded(tmp_path):
    cues = "".join(f"{n}\n00:00:0{n},000 --> 00:00:0{n},900\nÇa va, là-bas été\n\n" for n in range(1, 9))
    content = cues.encode().replace("été".encode(), b"\xff", 1)
    pages, _ = collect_bytes(tmp_path, "a.srt", content)
    assert only(pages).block.decode().count("là-bas") == 2, "cues that say the same are said once"
    assert "\ufffd" in only(pages).block.decode()
