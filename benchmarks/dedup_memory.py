"""Peak memory of deduplication over a generated corpus: `python benchmarks/dedup_memory.py --documents 300k`.

Writes Parquet files of random words (64 MB of text each) into a folder beside the system's temporary files,
or `--folder`, deduplicates them with two workers (URL, exact and near), and prints the resident memory of
all processes together at its highest, sampled four times a second. A twentieth of the documents are equal
to an earlier one, a tenth are near copies of one. The text is about 3.2 kB a document with `--words 560`.

What grows with the number of documents is what bounds a corpus of 10 GB: with `--words 18 --documents 3.1M`
a corpus of a thirtieth of the bytes has as many rows.
"""

import argparse
import json
import random
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from bessemer.config import parse_count
from bessemer.curate.dedup.config import DuplicateConfig
from bessemer.curate.dedup.standalone import deduplicate
from bessemer.runner.cost import CostMeter, resident_bytes

FILE_BYTES = 64 << 20
GROUP_ROWS = 1000
WORKERS = 2
NEAR_SHARE, EQUAL_SHARE = 0.1, 0.05
LIMIT_BYTES = 2_000_000_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--documents", type=parse_count, default=300_000)
    parser.add_argument("--words", type=int, default=560)
    parser.add_argument("--paragraphs", action="store_true", help="cut repeated lines as well")
    parser.add_argument("--folder", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.folder) as name:
        report(Path(name), arguments.documents, arguments.words, arguments.paragraphs)


def report(folder: Path, num_documents: int, num_words: int, paragraphs: bool) -> None:
    files, num_bytes = write_corpus(folder, num_documents, num_words)
    before = resident_bytes()
    started = time.monotonic()
    config = DuplicateConfig(paragraph_duplicates=paragraphs)
    meter = CostMeter(folder / "attempts.json")
    with meter:
        metrics = deduplicate(files, folder / "output", folder / "scratch", config, WORKERS)
    wall_s = time.monotonic() - started
    cost = meter.total(0.0)
    scratch = sum(path.stat().st_size for path in (folder / "scratch").rglob("*") if path.is_file())
    print(
        f"{num_documents:,} documents, {num_bytes / 1e6:,.0f} MB of text, {metrics['documents']:,} kept, "
        f"{metrics['near.confirmed']:,} confirmed pairs"
    )
    print(f"resident before {before / 1e6:,.0f} MB, at the highest {cost.peak_memory_bytes / 1e6:,.0f} MB")
    print(f"scratch files {scratch / 1e6:,.0f} MB; {wall_s:.1f} s, {cost.cpu_s:.1f} s of CPU time")
    result = {
        "name": "dedup_peak_memory",
        "unit": "bytes",
        "ours": cost.peak_memory_bytes,
        "peer": LIMIT_BYTES,
        "peer_name": "the limit",
        "ratio": round(cost.peak_memory_bytes / LIMIT_BYTES, 3),
        "documents": num_documents,
        "text_bytes": num_bytes,
        "wall_s": round(wall_s, 1),
        "cpu_s": round(cost.cpu_s, 1),
    }
    print(json.dumps(result))


def write_corpus(folder: Path, num_documents: int, num_words: int) -> tuple[list[Path], int]:
    """Files of documents, and the bytes of their texts."""
    schema = pa.schema([("id", pa.string()), ("text", pa.string()), ("source", pa.string())])
    files: list[Path] = []
    num_bytes = file_bytes = 0
    writer = None
    for number, texts in enumerate(groups(num_documents, num_words)):
        if writer is None:
            files.append(folder / f"{len(files):05}.parquet")
            writer, file_bytes = pq.ParquetWriter(files[-1], schema), 0
        first = number * GROUP_ROWS
        ids = [f"{first + i:032}" for i in range(len(texts))]
        sources = [f"site{(first + i) % 1000}.org" for i in range(len(texts))]
        writer.write_table(pa.table({"id": ids, "text": texts, "source": sources}, schema=schema))
        group_bytes = sum(map(len, texts))
        num_bytes, file_bytes = num_bytes + group_bytes, file_bytes + group_bytes
        if file_bytes >= FILE_BYTES:
            writer.close()
            writer = None
    if writer is not None:
        writer.close()
    return files, num_bytes


def groups(num_documents: int, num_words: int) -> Iterator[list[str]]:
    """Texts, GROUP_ROWS at a time; only ASCII."""
    random_ = random.Random(num_words)
    vocabulary = [f"w{number:x}" for number in range(100_000)]
    pool: list[list[str]] = []
    for start in range(0, num_documents, GROUP_ROWS):
        texts = []
        for _ in range(min(GROUP_ROWS, num_documents - start)):
            kind = random_.random()
            if pool and kind < EQUAL_SHARE:
                words = random_.choice(pool)
            elif pool and kind < EQUAL_SHARE + NEAR_SHARE:
                words = list(random_.choice(pool))
                for _ in range(max(1, num_words // 200)):
                    words[random_.randrange(len(words))] = f"v{random_.randrange(1 << 30):x}"
            else:
                words = random_.choices(vocabulary, k=num_words)
                if len(pool) < 5000:
                    pool.append(words)
                else:
                    pool[random_.randrange(len(pool))] = words
            texts.append("\n".join(" ".join(words[i : i + 80]) for i in range(0, len(words), 80)))
        yield texts


if __name__ == "__main__":
    main()
