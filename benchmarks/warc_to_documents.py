"""WARC to clean, filtered, near-deduplicated documents: compressed megabytes a second and core.

    python benchmarks/warc_to_documents.py SAMPLE.warc.gz … [--megabytes 160]   (needs datatrove, trafilatura)

Real samples are small, so their records are repeated until the input is large enough. In every copy each
word of four and more letters in the text of an HTML page is replaced, with probability 0.35, by another
word of the same page, and the address gets a suffix: markup, language and compressibility stay as they
are, while two copies share hardly a five-word shingle, so that deduplication has work and keeps them.

Ours is the whole stage with the default config (English, all default rules, MinHash 16 x 7) in one process,
after a run on the sample itself that loads models and compiled code; CPU time is this process's. Beside it,
in turns, datatrove: trafilatura's extraction of the sample's HTML pages and, of what it gives, the filters of
Gopher (both), C4 and FineWeb, each of which stops at its first rule that fails; reading the WARC, decoding,
language and deduplication are not counted against it.

Then one and two workers run in turn for the scaling, in wall-clock time: with the start of the workers
counted, and without it (less what the same takes on the least that two workers share). The published rate of
extraction alone with our extractor, resiliparse, is 4.55 MB/s (DataComp-LM, Li et al. 2024, table 16, another
machine).
"""

import argparse
import json
import platform
import random
import re
import statistics
import sys
import tempfile
import time
import zlib
from collections.abc import Iterable, Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from bessemer.curate.config import CurateConfig
from bessemer.curate.extraction import decode
from bessemer.curate.stage import curate
from bessemer.formats.warc import WarcRecord, read_warc
from bessemer.runner.context import Metrics, StageContext
from bessemer.runner.manifest import Artifact, Cost, Manifest
from bessemer.runner.progress import PlainReporter

if TYPE_CHECKING:  # our workers import this file, and datatrove would add to the start of each
    from datatrove.pipeline.filters.base_filter import BaseFilter

PUBLISHED_EXTRACTION = 4.55
TURNS = 3
LEAST_MEGABYTES = 1.2
"""Two shards of the smallest size: a worker starts for each."""
REPLACED = 0.35
_TEXT = re.compile(rb">([^<>]+)<")
_WORD = re.compile(rb"[A-Za-z\x80-\xff]{4,}")
_NO_TEXT = re.compile(rb"(<(?:script|style)\b.*?</(?:script|style)>)", re.DOTALL | re.IGNORECASE)
_TRANSFER = ("content-encoding", "transfer-encoding", "content-length")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("samples", nargs="+", type=Path, help="WARC files with real pages")
    parser.add_argument("--megabytes", type=float, default=160, help="compressed size of the input")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        write_copies(arguments.samples, work / "sample", 0)
        write_copies(arguments.samples, work / "pages", arguments.megabytes * 1e6)
        write_copies(arguments.samples, work / "least", LEAST_MEGABYTES * 1e6)
        megabytes = sum(path.stat().st_size for path in (work / "pages").iterdir()) / 1e6
        run(work / "sample", work / "first", 1)
        pages = html_pages(work / "sample" / "pages.warc.gz")
        filters = datatrove_filters()
        datatrove_cpu_s(pages[:10], filters)
        rates, peer_rates, ratios, scaling, steady = [], [], [], [], []
        for turn in range(TURNS):
            started_s = time.process_time()
            metrics, one_s = run(work / "pages", work / f"one-{turn}", 1)
            rates.append(megabytes / (time.process_time() - started_s))
            some = pages[turn::TURNS]
            peer_rates.append(sum(size for size, _ in some) / 1e6 / datatrove_cpu_s(some, filters))
            ratios.append(rates[-1] / peer_rates[-1])
            _, two_s = run(work / "pages", work / f"two-{turn}", 2)
            _, least_one_s = run(work / "least", work / f"least-one-{turn}", 1)
            _, least_two_s = run(work / "least", work / f"least-two-{turn}", 2)
            scaling.append(one_s / two_s / 2)
            steady.append((one_s - least_one_s) / (two_s - least_two_s) / 2)
            print(f"turn {turn + 1}: {rates[-1]:.2f} MB/s/core, datatrove {peer_rates[-1]:.3f}")
            print(f"    two processes at {scaling[-1]:.0%}, {steady[-1]:.0%} without their start")
            print(f"    steps of one process: {steps(metrics)}", flush=True)
    counts = f"{metrics['records']:,} pages, {metrics['documents']:,} documents"
    print(f"{megabytes:.1f} MB compressed, {counts}; scaling {min(scaling):.0%} to {max(scaling):.0%}")
    print(f"resiliparse's extraction alone, as published: {PUBLISHED_EXTRACTION} MB/s")
    result = {
        "name": "warc_to_documents",
        "unit": "MB of compressed WARC per CPU second",
        "ours": round(statistics.median(rates), 2),
        "peer": round(statistics.median(peer_rates), 3),
        "peer_name": f"datatrove {version('datatrove')} with trafilatura {version('trafilatura')}",
        "ratio": round(statistics.median(ratios), 1),
        "ratio_low": round(min(ratios), 1),
        "ratio_high": round(max(ratios), 1),
        "machine": f"{platform.processor() or platform.machine()}, Python {platform.python_version()}",
        "scaling": round(statistics.median(scaling), 2),
        "scaling_without_start": round(statistics.median(steady), 2),
    }
    print(json.dumps(result))


def steps(metrics: Metrics) -> str:
    """Wall seconds of each step."""
    prefix = "wall_s."
    laps = {name.removeprefix(prefix): value for name, value in metrics.items() if name.startswith(prefix)}
    return ", ".join(f"{name} {value:.1f} s" for name, value in laps.items())


def html_pages(path: Path) -> list[tuple[int, str]]:
    """Each HTML page, and the bytes of the file from its record to that of the next."""
    found, ends = [], []
    for record in read_warc(path):
        if isinstance(record, WarcRecord) and record.http is not None and "html" in record.content_type:
            found.append((record.offset, decode(record.payload().content, record.content_type)[0]))
    ends = [offset for offset, _ in found[1:]] + [path.stat().st_size]
    return [(end - offset, html) for (offset, html), end in zip(found, ends, strict=True)]


def datatrove_filters() -> "list[BaseFilter]":
    from datatrove.pipeline import filters

    return [
        filters.GopherQualityFilter(),
        filters.GopherRepetitionFilter(),
        filters.C4QualityFilter(),
        filters.FineWebQualityFilter(),
    ]


def datatrove_cpu_s(pages: Sequence[tuple[int, str]], filters: "Sequence[BaseFilter]") -> float:
    """CPU seconds of this process for extraction and filters."""
    from datatrove.data import Document
    from datatrove.pipeline.extractors import Trafilatura

    extractor = Trafilatura()
    started_s = time.process_time()
    for _, html in pages:
        text = extractor.extract(html)
        if text:
            for each in filters:
                each.filter(Document(text=text, id=""))
    return time.process_time() - started_s


def run(pages: Path, work: Path, workers: int) -> tuple[Metrics, float]:
    """The stage with default config: its metrics and wall seconds."""
    manifest = Manifest(
        kind="pages", stage="collect", stage_kind="collect", format_version=1, digest="", key="", inputs={},
        input_stages={}, config={}, seed=0, versions={}, files=[], metrics={}, cost=Cost(), created_at="",
    )  # fmt: skip
    for name in ("output", "scratch"):
        (work / name).mkdir(parents=True)
    context = StageContext(
        stage="curate",
        seed=0,
        output=work / "output",
        scratch=work / "scratch",
        inputs={"pages": [Artifact(pages, manifest)]},
        reporter=PlainReporter(sys.stderr),
        metrics_path=work / "metrics.jsonl",
    )
    started_s = time.monotonic()
    metrics = curate(CurateConfig(workers=workers), context)
    return metrics, time.monotonic() - started_s


def write_copies(samples: Iterable[Path], folder: Path, num_bytes: float) -> None:
    """The records of the samples once, then changed copies until there are `num_bytes`."""
    folder.mkdir()
    records = [item for path in samples for item in read_warc(path) if isinstance(item, WarcRecord)]
    chance = random.Random(0)
    size, copy = 0, 0
    with (folder / "pages.warc.gz").open("wb") as file:
        while copy == 0 or size < num_bytes:
            for record in records:
                size += file.write(gzip_member(record_bytes(record, copy, chance)))
            copy += 1


def record_bytes(record: WarcRecord, copy: int, chance: random.Random) -> bytes:
    block = record.block
    if record.http is not None and "html" in record.content_type:
        head = b"\r\n".join(_http_head(block.partition(b"\r\n\r\n")[0]))
        body = record.payload().content
        block = head + b"\r\n\r\n" + (with_other_words(body, chance) if copy else body)
    lines = ["WARC/1.1"]
    for name, value in record.headers:
        if name.lower() == "content-length":
            value = str(len(block))
        elif name.lower() == "warc-target-uri" and copy:
            value = f"{value.strip('<>')}?copy={copy}"
        lines.append(f"{name}: {value}")
    return "\r\n".join(lines).encode("utf-8", "replace") + b"\r\n\r\n" + block + b"\r\n\r\n"


def _http_head(head: bytes) -> Iterator[bytes]:
    """The lines of an HTTP head without those that describe how the body was sent."""
    for line in head.split(b"\r\n"):
        if line.partition(b":")[0].strip().lower().decode("latin-1") not in _TRANSFER:
            yield line


def with_other_words(body: bytes, chance: random.Random) -> bytes:
    parts = _NO_TEXT.split(body)
    words = _WORD.findall(b" ".join(text for part in parts[::2] for text in _TEXT.findall(part))) or [b"none"]

    def word(found: re.Match[bytes]) -> bytes:
        return chance.choice(words) if chance.random() < REPLACED else found[0]

    def text(found: re.Match[bytes]) -> bytes:
        return b">" + _WORD.sub(word, found[1]) + b"<"

    parts[::2] = [_TEXT.sub(text, part) for part in parts[::2]]
    return b"".join(parts)


def gzip_member(content: bytes) -> bytes:
    deflater = zlib.compressobj(6, zlib.DEFLATED, wbits=31)
    return deflater.compress(content) + deflater.flush()


if __name__ == "__main__":
    main()
