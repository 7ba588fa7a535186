"""Gopher quality, Gopher repetition, C4 and FineWeb against datatrove, on the same documents in one process.

Run on a quiet machine: `python benchmarks/heuristics.py --data FOLDER` (needs datatrove, spaCy and nltk).
FOLDER holds `web/*.warc.gz`, `prose/*.jsonl.gz` and `prose/*.txt`, `instruct/*.jsonl.gz`; web pages are
extracted with resiliparse, long texts cut into documents of about 3,200 characters at line ends.

Ours computes the value of every `@datatrove` rule of all four sets, and judges; datatrove runs its four
filters, each of which stops at the first rule that fails. Both sides take turns on parts of the corpus;
times are CPU seconds, and the ratio's range holds the middle 80 % of the parts. Verdicts are compared on all
documents.
"""

import argparse
import gzip
import json
import platform
import time
from collections.abc import Callable, Iterator, Sequence
from importlib.metadata import version
from pathlib import Path

import numpy as np
from datatrove.data import Document
from datatrove.pipeline.filters.c4_filters import C4QualityFilter
from datatrove.pipeline.filters.fineweb_quality_filter import FineWebQualityFilter
from datatrove.pipeline.filters.gopher_quality_filter import GopherQualityFilter
from datatrove.pipeline.filters.gopher_repetition_filter import GopherRepetitionFilter
from fastwarc.warc import ArchiveIterator, WarcRecordType
from resiliparse.extract.html2text import extract_plain_text
from resiliparse.parse.encoding import bytes_to_str, detect_encoding

from bessemer.curate.edits import datatrove_c4_values
from bessemer.curate.measure_variants import Batch, measure_on_demand
from bessemer.curate.rules import RULES, Rule, failed_rules
from bessemer.curate.rules.gopher import QUALITY
from bessemer.curate.texts import pack

DOCUMENT_CHARACTERS = 3200
PARTS = 20
NO_WORDS = np.zeros(0, np.uint64)
DATATROVE_RULES = [rule for rule in RULES if rule.name.endswith("@datatrove") and rule.action == "drop"]
NAMES = [rule.name for rule in DATATROVE_RULES]
_QUALITY_NAMES = {f"{rule.name}@datatrove" for rule in QUALITY}


def rule_set(rule: Rule) -> str:
    """Which of datatrove's filters a rule belongs to."""
    if rule.name.startswith("gopher."):
        return "gopher quality" if rule.name in _QUALITY_NAMES else "gopher repetition"
    return rule.name.partition(".")[0]


FILTERS: dict[str, Callable[[], object]] = {
    "gopher quality": GopherQualityFilter,
    "gopher repetition": GopherRepetitionFilter,
    "c4": C4QualityFilter,
    "fineweb": FineWebQualityFilter,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--documents", type=int, default=5000)
    arguments = parser.parse_args()
    texts = corpus(arguments.data)[: arguments.documents]
    num_bytes = sum(len(text.encode()) for text in texts)
    print(f"{len(texts):,} documents, {num_bytes / 1e6:.1f} MB; {machine()}")
    filters = {name: make() for name, make in FILTERS.items()}
    ours_verdicts(texts[:50])
    datatrove_verdicts(texts[:50], filters)
    times, ours, theirs = [], [], []
    for part in range(PARTS):
        some = texts[part::PARTS]
        started = time.process_time()
        ours.append(ours_verdicts(some))
        between = time.process_time()
        theirs.append(datatrove_verdicts(some, filters))
        times.append((len(some), between - started, time.process_time() - between))
    report(times, np.concatenate(ours), np.concatenate(theirs), num_bytes, texts)


def ours_verdicts(texts: Sequence[str]) -> np.ndarray:
    """Kept or not [documents, filters], from the values of all rules."""
    buffer, offsets = pack(texts)
    batch = Batch(texts, buffer, offsets, NO_WORDS, np.zeros(1, np.int64))
    values = datatrove_c4_values(buffer, offsets) | measure_on_demand(batch, NAMES)
    enabled = [Rule(rule.name, rule.description, rule.min, rule.max) for rule in DATATROVE_RULES]
    kept = np.ones((len(texts), len(FILTERS)), np.bool_)
    columns = {name: i for i, name in enumerate(FILTERS)}
    for row, failed in enumerate(failed_rules(enabled, values)):
        for rule in failed:
            kept[row, columns[rule_set(rule)]] = False
    return kept


def datatrove_verdicts(texts: Sequence[str], filters: dict) -> np.ndarray:
    """Kept or not [documents, filters]; each filter sees the text as it came."""
    rows = []
    for text in texts:
        results = [each.filter(Document(text=text, id="")) for each in filters.values()]
        rows.append([result is True for result in results])
    return np.array(rows, np.bool_).reshape(-1, len(filters))


def report(
    times: Sequence[tuple[int, float, float]],
    ours: np.ndarray,
    theirs: np.ndarray,
    num_bytes: int,
    texts: Sequence[str],
) -> None:
    counts, ours_s, theirs_s = np.array(times).T
    ratios = theirs_s / ours_s
    low, ratio, high = np.quantile(ratios, (0.1, 0.5, 0.9))
    in_order = [text for part in range(PARTS) for text in texts[part::PARTS]]
    print(f"{'':22}{'kept by datatrove':>20}{'kept by ours':>14}{'equal verdicts':>16}")
    for i, name in enumerate(FILTERS):
        equal = (ours[:, i] == theirs[:, i]).mean()
        print(f"{name:22}{theirs[:, i].sum():20,}{ours[:, i].sum():14,}{equal:16.4%}")
        for row in np.flatnonzero(ours[:, i] != theirs[:, i])[:3]:
            print(f"    differs: {in_order[row][:70]!r}")
    equal = (ours == theirs).all(1).mean()
    print(f"{'all four':22}{'':34}{equal:16.4%}")
    for name, seconds in (("datatrove", theirs_s), ("ours", ours_s)):
        speed, rate = counts.sum() / seconds.sum(), num_bytes / 1e6 / seconds.sum()
        print(f"{name:22}{speed:12,.0f} documents/s {rate:8.2f} MB/s")
    result = {
        "name": "heuristics_four_rule_sets",
        "unit": "documents/s",
        "ours": round(counts.sum() / ours_s.sum()),
        "peer": round(counts.sum() / theirs_s.sum(), 1),
        "peer_name": f"datatrove {version('datatrove')}, spacy {version('spacy')}",
        "ratio": round(float(ratio), 1),
        "ratio_low": round(float(low), 1),
        "ratio_high": round(float(high), 1),
        "machine": machine(),
        "equal_verdicts": round(float(equal), 5),
    }
    print(json.dumps(result))


def corpus(folder: Path) -> list[str]:
    """Real documents in a fixed order: web pages first, then dialogues and code, then prose, interleaved."""
    web = [text for path in sorted((folder / "web").glob("*.warc.gz")) for text in web_texts(path)]
    rows = [text for path in sorted((folder / "instruct").glob("*.jsonl.gz")) for text in row_texts(path)]
    prose = [text for path in sorted((folder / "prose").glob("*.jsonl.gz")) for text in row_texts(path)]
    prose += [path.read_text() for path in sorted((folder / "prose").glob("*.txt"))]
    dialogues = pieces("\n".join(rows))
    chapters = [piece for text in prose for piece in pieces(text)]
    half = [text for pair in zip(dialogues, chapters, strict=False) for text in pair]
    return [text for text in web + half + chapters[len(dialogues) :] if text.strip()]


def web_texts(path: Path) -> Iterator[str]:
    for record in ArchiveIterator(path.open("rb"), record_types=WarcRecordType.response):
        if record.http_headers and "html" in (record.http_content_type or ""):
            body = record.reader.read()
            yield extract_plain_text(bytes_to_str(body, detect_encoding(body)), main_content=True)


def row_texts(path: Path) -> Iterator[str]:
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        for line in lines:
            row = json.loads(line)
            turns = [turn["content"] for turn in row.get("messages", ())]
            yield (
                row.get("text")
                or "\n\n".join(turns)
                or "\n".join(v for v in row.values() if isinstance(v, str))
            )


def pieces(text: str) -> list[str]:
    """The text cut into documents of about DOCUMENT_CHARACTERS: at a line end if one is near, else at a
    blank."""
    found, start = [], 0
    while start < len(text):
        least = start + DOCUMENT_CHARACTERS
        end = text.find("\n", least, least + DOCUMENT_CHARACTERS // 4)
        end = text.find(" ", least) if end < 0 else end
        end = len(text) if end < 0 else end + 1
        found.append(text[start:end])
        start = end
    return found


def machine() -> str:
    """Processor and versions."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return f"{names[0] if names else platform.processor()}, one process, numba {version('numba')}"


if __name__ == "__main__":
    main()
