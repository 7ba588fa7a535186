"""A valid file of every kind that collect reads, with the places of its records."""

import io
import re
import zipfile
import zlib

import pyarrow as pa
import pyarrow.parquet as pq
from damage import Sample
from file_samples import epub_bytes, pdf_bytes

NUM_RECORDS = 6
WORDS = [
    "harbour lights over still water",
    "meadow grass bends before rain",
    "copper kettle sings at noon",
    "winding road climbs the hill",
    "lantern swings in evening wind",
    "quiet river finds the sea",
]
"""What each record says, and none of the others."""


def joined(parts: list[bytes], between: bytes = b"", head: bytes = b"", tail: bytes = b"") -> Sample:
    """Parts one after another, each a record."""
    content, spans = head, []
    for part in parts:
        spans.append((len(content), len(content) + len(part)))
        content += part + between
    return Sample(content + tail, tuple(spans))


def warc_records(record_type: str = "response") -> list[bytes]:
    """Records without digests, so that nothing but the reader's own care finds the damage."""
    records = []
    for number, words in enumerate(WORDS):
        body = f"<html><title>{number}</title><p>{words}.</p><ul><li>one<li>two</ul></html>".encode()
        if record_type == "response":
            head = f"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: {len(body)}\r\n\r\n"
            block, content_type = head.encode() + body, "application/http; msgtype=response"
        else:
            block, content_type = f"{words}\n{words}".encode(), "text/plain"
        headers = (
            f"WARC/1.0\r\nWARC-Type: {record_type}\r\nWARC-Record-ID: <urn:uuid:{number}>\r\n"
            f"WARC-Date: 2024-01-0{number + 1}T00:00:00Z\r\nWARC-Target-URI: http://a.test/{number}\r\n"
            f"Content-Type: {content_type}\r\nContent-Length: {len(block)}\r\n\r\n"
        )
        records.append(headers.encode() + block + b"\r\n\r\n")
    return records


def gzip_member(content: bytes) -> bytes:
    deflater = zlib.compressobj(6, zlib.DEFLATED, wbits=31)
    return deflater.compress(content) + deflater.flush()


def jsonl() -> Sample:
    rows = [f'{{"n": {number}, "text": "{words}"}}'.encode() for number, words in enumerate(WORDS)]
    return joined(rows, between=b"\n")


def parquet() -> Sample:
    """A row group for each row; pages carry checksums, as careful writers' do."""
    buffer = io.BytesIO()
    table = pa.table({"text": [f"{words} {words}" for words in WORDS], "n": list(range(len(WORDS)))})
    pq.write_table(table, buffer, row_group_size=1, write_page_checksum=True, compression="zstd")
    groups = pq.ParquetFile(buffer).metadata
    spans = []
    for number in range(groups.num_row_groups):
        columns = [groups.row_group(number).column(index) for index in range(2)]
        starts = [
            min(filter(None, (column.dictionary_page_offset, column.data_page_offset))) for column in columns
        ]
        ends = [start + column.total_compressed_size for start, column in zip(starts, columns, strict=True)]
        spans.append((min(starts), max(ends)))
    return Sample(buffer.getvalue(), tuple(spans), is_by_offset=True)


def arrow() -> Sample:
    """An IPC file with a batch for each row."""
    sink = io.BytesIO()
    schema = pa.schema([("text", pa.string())])
    with pa.ipc.new_file(sink, schema) as writer:
        for words in WORDS:
            writer.write_batch(pa.record_batch([[words]], schema=schema))
    content = sink.getvalue()
    # A batch is its metadata (about 200 bytes), its offsets and the text.
    ends = [content.index(words.encode()) + len(words) for words in WORDS]
    return Sample(content, tuple((end - 100, end) for end in ends), is_by_offset=True)


def arrow_stream() -> Sample:
    sink = io.BytesIO()
    schema = pa.schema([("text", pa.string()), ("tags", pa.list_(pa.string()))])
    with pa.ipc.new_stream(sink, schema) as writer:
        for words in WORDS:
            writer.write_batch(pa.record_batch([[words], [words.split()]], schema=schema))
    return Sample(sink.getvalue(), ((0, len(sink.getvalue())),))


def epub() -> Sample:
    """Damage goes into the chapters, not into the zip's directory."""
    chapters = {f"c{number}": f"<h1>{number}</h1><p>{words}</p>" for number, words in enumerate(WORDS)}
    content = epub_bytes(chapters)
    with zipfile.ZipFile(io.BytesIO(content)) as book:
        starts = [book.getinfo(f"OPS/c{number}.xhtml").header_offset for number in range(len(WORDS))]
        directory = book.start_dir
    return Sample(content, tuple(zip(starts, [*starts[1:], directory], strict=True)), is_by_offset=True)


def pdf() -> Sample:
    content = pdf_bytes(*WORDS)
    starts = [found.start() for found in re.finditer(rb"BT /F1", content)]
    return Sample(content, tuple((start, content.index(b"ET", start)) for start in starts))


def transcript() -> Sample:
    cues = [
        f"{n + 1}\n00:00:0{n},000 --> 00:00:0{n + 1},000\n{words}".encode() for n, words in enumerate(WORDS)
    ]
    return joined(cues, between=b"\n\n")


def robots() -> Sample:
    lines = [f"Sitemap: http://a.test/{number}.xml".encode() for number in range(NUM_RECORDS)]
    return joined(lines, between=b"\n", head=b"User-agent: *\nDisallow: /private\nCrawl-delay: 2\n")


def sitemap() -> Sample:
    entries = [f"<url><loc>http://a.test/{number}</loc></url>".encode() for number in range(NUM_RECORDS)]
    head = b'<?xml version="1.0"?><urlset xmlns="http://www.sitemaps.org/schemas/sitemap/0.9">'
    return joined(entries, between=b"\n", head=head, tail=b"</urlset>")


def card() -> Sample:
    lines = [
        b"license: cc-by-4.0",
        b"configs:\n- config_name: a\n  data_files:\n  - split: train\n    path: ['x/*.parquet', y.jsonl]",
        b"- config_name: b\n  default: true\n  data_files: {train: t.jsonl, test: [e.jsonl]}",
        b"pretty_name: A card\nsize: 12\nwhen: 2024-01-02",
    ]
    return joined(lines, between=b"\n", head=b"---\n", tail=b"---\n# Words\n")


def index_lines() -> Sample:
    lines = [
        (
            f'{{"urlkey": "test,a)/{n}", "url": "http://a.test/{n}", "filename": "crawl/{n}.warc.gz", '
            f'"offset": "{n * 100}", "length": "100", "digest": "AAAA"}}'
        ).encode()
        for n in range(NUM_RECORDS)
    ]
    return joined(lines, between=b"\n")
