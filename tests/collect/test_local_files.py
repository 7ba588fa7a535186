"""Local files: WARC as it is, documents and rows as records, faults by file and line."""

import gzip
import json
import os
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from collect_helpers import SilentProgress, SilentReporter, files_of, records_of, stage_context

from bessemer.collect import CollectConfig, collect
from bessemer.errors import BessemerError, ConfigError
from bessemer.formats.warc import WarcRecord, read_warc

SAMPLES = Path(__file__).parents[3] / "shared" / "data" / "web"


def collect_path(folder: Path, path: object, **settings: object) -> tuple[dict, Path]:
    context = stage_context(folder)
    metrics = collect(CollectConfig.model_validate({"path": path, **settings}), context)
    return metrics, context.output


def failures_of(output: Path) -> dict[str, str]:
    lines = (output / "crawl.jsonl").read_text().splitlines()
    return {line["url"]: line["reason"] for line in map(json.loads, lines)}


def pages_of(output: Path) -> list[WarcRecord]:
    return [record for record in records_of(output) if record.type == "resource"]


def make_corpus(folder: Path) -> Path:
    (folder / "deep").mkdir(parents=True)
    (folder / "b.txt").write_text("plain words")
    (folder / "a.html").write_bytes(b"<p>caf\xe9</p>")
    (folder / "deep" / "notes é.md").write_text("# Notes")
    (folder / ".hidden.txt").write_text("no")
    (folder / "picture.png").write_bytes(b"PNG")
    return folder


def test_documents_become_resources_named_relative_to_their_folder(tmp_path):
    corpus = make_corpus(tmp_path / "corpus")
    metrics, output = collect_path(tmp_path, str(corpus))
    assert [(page.uri, page.content_type, page.block) for page in pages_of(output)] == [
        ("file:corpus/a.html", "text/html", b"<p>caf\xe9</p>"),
        ("file:corpus/b.txt", "text/plain; charset=utf-8", b"plain words"),
        ("file:corpus/deep/notes%20%C3%A9.md", "text/markdown; charset=utf-8", b"# Notes"),
    ]
    assert metrics["pages"] == 3
    assert failures_of(output).keys() == {"file:corpus/picture.png"}
    assert str(tmp_path).encode() not in b"".join(page.block for page in records_of(output))


def test_links_and_pipes_that_hold_no_file_are_named_with_the_reason(tmp_path):
    corpus = make_corpus(tmp_path / "corpus")
    (corpus / "gone.txt").symlink_to("nowhere.txt")
    (corpus / "elsewhere").symlink_to(corpus / "deep", target_is_directory=True)
    (corpus / "same.txt").symlink_to("b.txt")
    os.mkfifo(corpus / "pipe.txt")
    metrics, output = collect_path(tmp_path, str(corpus))
    failures = failures_of(output)
    assert failures["file:corpus/gone.txt"].startswith("broken link")
    assert failures["file:corpus/elsewhere"].startswith("linked folder")
    assert failures["file:corpus/pipe.txt"].startswith("no file")
    assert metrics["pages"] == 4
    assert metrics["failed"] == 4


def test_an_empty_list_of_paths_is_an_error_and_not_the_built_in_corpus():
    for nothing in ({"path": []}, {"urls": []}, {"path": ""}):
        with pytest.raises(ValueError, match=r"needs .* to be given"):
            CollectConfig.model_validate(nothing)


def test_pages_carry_the_date_of_their_file_unless_the_config_names_one(tmp_path):
    (tmp_path / "a.txt").write_text("words")
    os.utime(tmp_path / "a.txt", (1_600_000_000, 1_600_000_000))
    _, dated = collect_path(tmp_path / "run-1", str(tmp_path / "a.txt"))
    _, named = collect_path(tmp_path / "run-2", str(tmp_path / "a.txt"), fetched_at="2024-05-06")
    assert [page.date for page in pages_of(dated)] == ["2020-09-13T12:26:40Z"]
    assert [page.date for page in pages_of(named)] == ["2024-05-06T00:00:00Z"]


def test_with_a_date_in_the_config_the_bytes_depend_on_the_content_of_the_files_alone(tmp_path):
    first = make_corpus(tmp_path / "one" / "corpus")
    second = tmp_path / "two" / "corpus"
    shutil.copytree(first, second)
    os.utime(second / "b.txt", (1, 1))
    _, one = collect_path(tmp_path / "run-1", str(first), fetched_at="2024-05-06")
    _, two = collect_path(tmp_path / "run-2", str(second), fetched_at="2024-05-06")
    assert files_of(one) == files_of(two)


def test_patterns_and_lists_of_paths_are_taken_in_order(tmp_path):
    corpus = make_corpus(tmp_path / "corpus")
    other = make_corpus(tmp_path / "other" / "corpus")
    _, output = collect_path(tmp_path, [f"{corpus}/**/*.md", f"{other}/b.txt", str(corpus / "b.txt")])
    assert [page.uri for page in pages_of(output)] == [
        "file:corpus/deep/notes%20%C3%A9.md",
        "file:b.txt",
        "file:3/b.txt",
    ]


def test_rows_become_json_with_standard_column_names_and_bad_ones_are_named_by_line(tmp_path):
    lines = [
        b'{"body": "one", "key": "k1", "link": "http://a.test/", "year": 1984}',
        b"",
        b'{"body": "bad utf-8 \xff"}',
        b'{"body": "cut',
        b'{"text": "other column"}',
        b"[1, 2]",
        b'{"body": "half a pair \\ud800"}',
        b"[" * 100_000,
        b'{"body": "' + b"x" * 60_000 + b'"}',
        b'{"body": "last", "score": NaN}',
    ]
    for name in ("rows.jsonl", "rows.jsonl.gz"):
        content = b"\n".join(lines)
        (tmp_path / name).write_bytes(gzip.compress(content) if name.endswith("gz") else content)
        settings = {
            "text_column": "body",
            "id_column": "key",
            "url_column": "link",
            "max_document_bytes": 50_000,
        }
        _, output = collect_path(tmp_path / f"run-{name}", str(tmp_path / name), **settings)
        first, last = pages_of(output)
        assert first.uri == "http://a.test/"
        assert first.content_type == "application/json"
        assert json.loads(first.block) == {"text": "one", "id": "k1", "url": "http://a.test/", "year": 1984}
        assert last.uri == f"file:{name}#10"
        assert json.loads(last.block) == {"text": "last", "score": None}
        failures = failures_of(output)
        kinds = {int(url.rpartition(":")[2]): reason.partition(":")[0] for url, reason in failures.items()}
        assert kinds == {
            3: "invalid UTF-8",
            4: "bad JSON",
            5: "no text",
            6: "bad row",
            7: "invalid Unicode",
            8: "too long",
            9: "too long",
        }
        assert failures[f"file:{name}:5"].endswith("(columns: text); set text_column")


def test_deeply_nested_json_is_a_bad_line_not_a_crash(tmp_path):
    (tmp_path / "deep.jsonl").write_bytes(b'{"text": ' + b"[" * 100_000 + b'\n{"text": "fine"}\n')
    metrics, output = collect_path(tmp_path, str(tmp_path / "deep.jsonl"))
    assert metrics["pages"] == 1
    assert failures_of(output)["file:deep.jsonl:1"].startswith("bad JSON")


def test_a_line_of_fifty_megabytes_is_reported_and_the_next_one_read(tmp_path):
    with (tmp_path / "long.jsonl").open("wb") as file:
        file.write(b'{"text": "')
        for _ in range(50):
            file.write(b"x" * 1_000_000)
        file.write(b'"}\n{"text": "next"}\n')
    _, output = collect_path(tmp_path, str(tmp_path / "long.jsonl"))
    assert [json.loads(page.block) for page in pages_of(output)] == [{"text": "next"}]
    assert failures_of(output)["file:long.jsonl:1"].startswith("too long")


def test_a_gzip_file_that_is_cut_gives_the_rows_before_the_cut(tmp_path):
    rows = b"".join(b'{"text": "row %d %s"}\n' % (n, os.urandom(40).hex().encode()) for n in range(2000))
    (tmp_path / "cut.jsonl.gz").write_bytes(gzip.compress(rows)[:-5000])
    metrics, _ = collect_path(tmp_path, str(tmp_path / "cut.jsonl.gz"))
    assert 1000 < metrics["pages"] < 2000
    assert "damaged gzip file" in metrics["failed_by_reason"]


def test_parquet_rows_are_read_and_a_damaged_file_is_reported(tmp_path):
    table = pa.table({"text": ["a", None, "c"], "score": [0.5, 1.0, float("nan")], "raw": [b"x", b"y", b"z"]})
    pq.write_table(table, tmp_path / "good.parquet")
    whole = (tmp_path / "good.parquet").read_bytes()
    (tmp_path / "bad.parquet").write_bytes(whole[: len(whole) // 2])
    _, output = collect_path(tmp_path, f"{tmp_path}/*.parquet")
    rows = [json.loads(page.block) for page in pages_of(output)]
    assert [(row["text"], row["score"]) for row in rows] == [("a", 0.5), ("c", None)]
    failures = failures_of(output)
    assert failures["file:" + tmp_path.name + "/bad.parquet"].startswith("damaged Parquet file")
    assert failures["file:" + tmp_path.name + "/good.parquet:2"].startswith("no text")


@pytest.mark.skipif(not SAMPLES.is_dir(), reason="the sample files are not here")
def test_warc_files_are_kept_byte_for_byte_and_their_damage_is_reported(tmp_path):
    sources = [SAMPLES / "whirlwind.warc.wet.gz", SAMPLES / "warcio" / "example.warc.gz"]
    damaged = tmp_path / "example.warc.gz"
    damaged.write_bytes(sources[1].read_bytes()[:-100])
    metrics, output = collect_path(tmp_path, [str(path) for path in (*sources, damaged)])
    copies = sorted(output.glob("*.gz"))
    assert [path.read_bytes() for path in copies] == [path.read_bytes() for path in (*sources, damaged)]
    assert len({path.name for path in copies}) == 3
    (reason,) = failures_of(output).values()
    assert reason.startswith("damaged WARC")
    types = {"response", "resource", "conversion"}
    items = [item for path in copies for item in read_warc(path)]
    assert metrics["pages"] == sum(isinstance(item, WarcRecord) and item.type in types for item in items)


class Interrupting(SilentReporter):
    """A reporter whose progress is stopped after so many files."""

    def __init__(self, num_files: int) -> None:
        self._num_files = num_files

    def progress(self, description: str, total: float | None, unit: str) -> SilentProgress:
        num_files = self._num_files

        class Stopping(SilentProgress):
            def set(self, completed: float, **shown: object) -> None:
                if completed == num_files:
                    raise KeyboardInterrupt

        return Stopping()


@pytest.mark.parametrize("num_files", [1, 3, 5])
def test_collecting_again_after_an_interruption_gives_the_same_bytes(tmp_path, num_files):
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    for number in range(5):
        (corpus / f"{number}.jsonl").write_text(f'{{"text": "file {number}"}}\nnot json\n')
    _, whole = collect_path(tmp_path / "whole", str(corpus), max_file_bytes=1000)
    context = stage_context(tmp_path / "stopped", Interrupting(num_files))
    config = CollectConfig.model_validate({"path": str(corpus), "max_file_bytes": 1000})
    with pytest.raises(KeyboardInterrupt):
        collect(config, context)
    # What kill -9 in the next file leaves: files that are longer than the last commit says.
    for path in (sorted(context.output.glob("pages-*"))[-1], context.output / "crawl.jsonl"):
        with path.open("ab") as file:
            file.write(b"half a record")
    _, resumed = collect_path(tmp_path / "stopped", str(corpus), max_file_bytes=1000)
    assert files_of(resumed) == files_of(whole)


def test_paths_and_kinds_that_say_nothing_are_errors_that_name_the_mend(tmp_path):
    (tmp_path / "notes.unknown").write_text("words")
    with pytest.raises(ConfigError, match="format: text"):
        collect_path(tmp_path, str(tmp_path / "notes.unknown"))
    _, output = collect_path(tmp_path, str(tmp_path / "notes.unknown"), format="text")
    assert [page.block for page in pages_of(output)] == [b"words"]
    with pytest.raises(BessemerError, match="names no file or folder"):
        collect_path(tmp_path, str(tmp_path / "missing"))
    with pytest.raises(BessemerError, match="holds no files"):
        collect_path(tmp_path, str(tmp_path / "*.nothing"))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"urls": ["http://a.test/"], "path": "b"}, "both given"),
        ({"source": "urls"}, "needs urls"),
        ({"source": "builtin", "path": "b"}, "remove one"),
        ({"urls": ["http://a.test/"], "crawl": {"exclude": ["("]}}, "no regular expression"),
        ({"urls": ["http://a.test/"], "crawl": {"resolve": {"a.test": "127.0.0.1"}}}, "ADDRESS:PORT"),
        (
            {"urls": ["http://a.test/"], "crawl": {"resolve": {"a.test:80": "127.0.0.1:8000"}}},
            "without scheme",
        ),
        ({"urls": ["http://a.test/"], "crawl": {"resolve": {"A.test": "127.0.0.1:8000"}}}, "small letters"),
    ],
)
def test_a_config_that_contradicts_itself_is_refused(values, message):
    with pytest.raises(ValueError, match=message):
        CollectConfig.model_validate(values)


def test_the_source_follows_from_what_is_given():
    assert CollectConfig.model_validate({"path": "a"}).source == "path"
    assert CollectConfig.model_validate({"urls": ["http://a.test/"]}).source == "urls"
    assert CollectConfig().source == "builtin"
