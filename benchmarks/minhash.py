"""Near-duplicate removal, all stages, against datatrove's MinHash pipeline on the same generated corpus.

Run on a quiet machine: `python benchmarks/minhash.py` (needs the extra `bench`). The corpus, 20,000
documents of 65 MB, is made of random words by their rank (Zipf); 4,000 of the documents are copies of
others with words replaced, of Jaccard similarities spread evenly from 0.65 to 1 (word 5-grams). Both sides
read the same Parquet files with two workers, have 14 bands of 8 hashes over word 5-grams, and write the
documents that stay as Parquet. Each run is a process of its own, started after an untimed one on a small
corpus; its time runs from the start of the interpreter to its end. The two sides take turns.

The packages of the extra `bench` bring SciPy, which numba imports at its start where it is installed: 0.3 s
in each of our processes. `--our-python` names the interpreter of an environment with bessemer alone, as its
users have it.

datatrove: signatures (its default: 64-bit xxhash; it needs
xxhash below 4, see `--peer-path`), buckets, cluster, filter; what shares a band
with another is a duplicate. Ours (`curate.dedup.standalone`): words, shingle sets, signatures and bands;
sort, pairs, the exact similarity of every nominated pair (at least 0.8), clusters, filter; also the
evidence, the planted self-test and checksums of every part for resuming, which datatrove has none of.
Inside `curate` the words come from the rules; here ours splits them for itself. URL and exact deduplication
are off on our side.

Then 5,000 such documents are compared pair by pair in plain Python: every document that ours drops, and
every one that it should drop, at 0.8.
"""

import argparse
import json
import os
import platform
import random
import shutil
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from itertools import accumulate, combinations, pairwise
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

NUM_FILES = 8
WORKERS = 2
BANDS, ROWS, WORDS = 14, 8, 5
MIN_SIMILARITY = 0.8
LEAST_PLANTED = 0.65
GRADES = (0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95, 1.0)
COPY_SHARE = 0.2
FINEWEB = {"minhash": "fineweb"}
PEER_PATH = "PEER_PATH"
PYTHONS = {"ours": sys.executable, "datatrove": sys.executable}
_MEAN_WORDS, _VOCABULARY, _EXPONENT = 472, 50_000, 0.9
_LETTERS = "etaoinshrdlucmfwypvbgkjqxz"


@dataclass(frozen=True)
class Planted:
    """A copy and its original, by document number."""

    original: int
    copy: int
    similarity: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--documents", type=int, default=20_000)
    parser.add_argument("--repeats", type=int, default=2, help="runs of datatrove; ours runs once more")
    parser.add_argument("--peer-path", help="folder that datatrove imports from first (xxhash below 4)")
    parser.add_argument("--our-python", default=sys.executable, help="Python with bessemer alone; see above")
    parser.add_argument("--side", choices=("ours", "datatrove"), help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.side == "datatrove":
        run_datatrove(arguments.folder)
        return
    if arguments.side == "ours":
        run_ours(arguments.folder, **FINEWEB)
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if arguments.peer_path:
            os.environ[PEER_PATH] = arguments.peer_path
        PYTHONS["ours"] = arguments.our_python
        compare_speed(folder, arguments.documents, arguments.repeats)
        compare_pairs(folder)
        print(json.dumps(RESULT))


RESULT: dict[str, object] = {"name": "minhash_all_stages", "unit": "documents/s"}


def compare_speed(folder: Path, num_documents: int, repeats: int) -> None:
    small, large = folder / "small", folder / "large"
    write_corpus(small, 200)
    texts, planted = write_corpus(large, num_documents)
    num_bytes = sum(len(text.encode()) for text in texts)
    print(f"{len(texts):,} documents, {num_bytes / 1e6:.1f} MB, {len(planted):,} planted pairs; {machine()}")
    for side in ("ours", "datatrove"):
        timed(side, small)
    ours, peer = [timed("ours", large)], []
    for _ in range(repeats):
        peer.append(timed("datatrove", large))
        ours.append(timed("ours", large))
    print(f"{'':12}{'wall s':>9}{'CPU s':>9}{'documents/s':>13}{'MB/s':>8}")
    for name, runs in (("datatrove", peer), ("ours", ours)):
        for wall_s, cpu_s in runs:
            rate = len(texts) / wall_s
            print(f"{name:12}{wall_s:9.2f}{cpu_s:9.2f}{rate:13,.0f}{num_bytes / 1e6 / wall_s:8.2f}")
    ours_wall, peer_wall = sorted(wall for wall, _ in ours), sorted(wall for wall, _ in peer)
    ours_cpu, peer_cpu = sorted(cpu for _, cpu in ours), sorted(cpu for _, cpu in peer)
    kept = {side: kept_ids(large / side / "output") for side in ("datatrove", "ours")}
    print(f"{'similarity':12}{'planted':>9}{'datatrove':>11}{'ours':>7}   resolved: one of the two is gone")
    for low, high in pairwise(GRADES):
        some = [pair for pair in planted if low <= pair.similarity < high or pair.similarity == high == 1]
        counts = {side: resolved(some, ids) for side, ids in kept.items()}
        print(f"{low:.2f}-{high:.2f}   {len(some):9,}{counts['datatrove']:11,}{counts['ours']:7,}")
    counts = {side: resolved(planted, ids) for side, ids in kept.items()}
    print(f"{'all':12}{len(planted):9,}{counts['datatrove']:11,}{counts['ours']:7,}")
    RESULT.update(
        ours=round(len(texts) / median(ours_wall)),
        peer=round(len(texts) / median(peer_wall), 1),
        peer_name=f"datatrove {version('datatrove')}",
        ratio=round(median(peer_wall) / median(ours_wall), 1),
        ratio_low=round(peer_wall[0] / ours_wall[-1], 1),
        ratio_high=round(peer_wall[-1] / ours_wall[0], 1),
        machine=machine(),
        cpu_ratio=round(median(peer_cpu) / median(ours_cpu), 1),
        planted=len(planted),
        planted_resolved_ours=counts["ours"],
        planted_resolved_peer=counts["datatrove"],
    )


def compare_pairs(folder: Path) -> None:
    """What ours keeps of 5,000 documents against the comparison of every pair."""
    corpus = folder / "pairs"
    texts, _ = write_corpus(corpus, 5000)
    exact = clusters_of_all_pairs(texts)
    for name, settings in (("default 16x7", {}), ("fineweb 14x8", FINEWEB)):
        shutil.rmtree(corpus / "ours", ignore_errors=True)
        run_ours(corpus, **settings)
        ids = kept_ids(corpus / "ours" / "output")
        dropped = {number for number in range(len(texts)) if number not in ids}
        wanted = {number for number, root in enumerate(exact) if root != number}
        recall, precision = len(dropped & wanted) / len(wanted), len(dropped & wanted) / len(dropped)
        print(
            f"{name:14} 5,000 documents against every pair at {MIN_SIMILARITY}: {len(wanted):,} duplicates, "
            f"recall {recall:.4f}, precision {precision:.4f}"
        )
        key = name.split()[-1]
        RESULT.update({f"recall_{key}": round(recall, 4), f"precision_{key}": round(precision, 4)})


def clusters_of_all_pairs(texts: Sequence[str]) -> list[int]:
    """The first member of each document's cluster, by the exact similarity of all pairs."""
    sets = [shingles(text.split()) for text in texts]
    holders: dict[tuple[str, ...], list[int]] = {}
    for number, some in enumerate(sets):
        for shingle in some:
            holders.setdefault(shingle, []).append(number)
    candidates = {pair for numbers in holders.values() for pair in combinations(numbers, 2)}
    roots = list(range(len(texts)))

    def root(number: int) -> int:
        while roots[number] != number:
            number = roots[number]
        return number

    for a, b in sorted(candidates):
        if len(sets[a] & sets[b]) >= MIN_SIMILARITY * len(sets[a] | sets[b]):
            low, high = sorted((root(a), root(b)))
            roots[high] = low
    return [root(number) for number in range(len(texts))]


def timed(side: str, folder: Path) -> tuple[float, float]:
    """Wall and CPU seconds of a process that runs one side, its workers included."""
    shutil.rmtree(folder / side, ignore_errors=True)
    command = [PYTHONS[side], __file__, "--side", side, "--folder", str(folder)]
    paths = [os.environ.get(PEER_PATH, "")] if side == "datatrove" else []
    paths = [path for path in (*paths, os.environ.get("PYTHONPATH", "")) if path]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(paths)}
    started = time.monotonic()
    child = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    assert child.stderr is not None
    errors = child.stderr.read()
    _, status, usage = os.wait4(child.pid, 0)
    wall_s = time.monotonic() - started
    if status:
        raise RuntimeError(f"{side} failed:\n{errors.decode(errors='replace')[-3000:]}")
    return wall_s, usage.ru_utime + usage.ru_stime


def run_ours(folder: Path, **settings: str) -> None:
    from bessemer.curate.dedup.config import DuplicateConfig
    from bessemer.curate.dedup.standalone import deduplicate

    config = DuplicateConfig.model_validate(
        {"url_duplicates": False, "exact_duplicates": False, "min_similarity": MIN_SIMILARITY} | settings
    )
    files = sorted((folder / "corpus").glob("*.parquet"))
    deduplicate(files, folder / "ours" / "output", folder / "ours" / "scratch", config, WORKERS)


def run_datatrove(folder: Path) -> None:
    from datatrove.executor.local import LocalPipelineExecutor
    from datatrove.pipeline.dedup import MinhashDedupSignature
    from datatrove.pipeline.dedup.minhash import (
        MinhashConfig,
        MinhashDedupBuckets,
        MinhashDedupCluster,
        MinhashDedupFilter,
    )
    from datatrove.pipeline.readers import ParquetReader
    from datatrove.pipeline.writers import ParquetWriter
    from datatrove.utils.hashing import HashConfig

    work = folder / "datatrove"
    config = MinhashConfig(
        hash_config=HashConfig(precision=64), n_grams=WORDS, num_buckets=BANDS, hashes_per_bucket=ROWS
    )
    reader = ParquetReader(str(folder / "corpus"))
    signatures, buckets, remove = (str(work / name) for name in ("signatures", "buckets", "remove"))
    steps = {
        "signatures": (NUM_FILES, [reader, MinhashDedupSignature(signatures, config=config)]),
        "buckets": (BANDS, [MinhashDedupBuckets(signatures, buckets, config=config)]),
        "cluster": (1, [MinhashDedupCluster(buckets, remove, config=config)]),
        "filter": (NUM_FILES, [reader, MinhashDedupFilter(remove), ParquetWriter(str(work / "output"))]),
    }
    for name, (tasks, pipeline) in steps.items():
        logs = str(work / "logs" / name)
        # Forked workers start at once and are waited for, so that their CPU time is known.
        LocalPipelineExecutor(
            pipeline, tasks=tasks, workers=min(WORKERS, tasks), logging_dir=logs, start_method="fork"
        ).run()


def write_corpus(folder: Path, num_documents: int) -> tuple[list[str], list[Planted]]:
    """Texts in a fixed order in Parquet files, and the copies among them."""
    random_ = random.Random(num_documents)
    vocabulary = [word(rank) for rank in range(_VOCABULARY)]
    weights = list(accumulate((rank + 1.0) ** -_EXPONENT for rank in range(_VOCABULARY)))
    num_copies = round(COPY_SHARE * num_documents)
    documents = []
    for _ in range(num_documents - num_copies):
        num_words = max(50, round(random_.lognormvariate(0, 0.5) * _MEAN_WORDS * 0.8825))
        documents.append(random_.choices(vocabulary, cum_weights=weights, k=num_words))
    copies = [(number, altered(documents[number], random_)) for number in range(num_copies)]
    order = list(range(num_documents))
    random_.shuffle(order)
    places = {old: new for new, old in enumerate(order)}
    everything = [*documents, *(words for _, words in copies)]
    planted = [
        Planted(places[number], places[len(documents) + i], jaccard(documents[number], words))
        for i, (number, words) in enumerate(copies)
    ]
    texts = [as_text(everything[old]) for old in order]
    (folder / "corpus").mkdir(parents=True)
    size = -(-num_documents // NUM_FILES)
    for part in range(NUM_FILES):
        numbers = range(part * size, min((part + 1) * size, num_documents))
        table = pa.table(
            {"id": [str(number) for number in numbers], "text": [texts[number] for number in numbers]}
        )
        pq.write_table(table, folder / "corpus" / f"{part:05}.parquet", row_group_size=1000)
    return texts, planted


def word(rank: int) -> str:
    """Short ones for frequent ranks, as in languages; no two alike."""
    letters = []
    number = rank
    while True:
        number, digit = divmod(number, len(_LETTERS))
        letters.append(_LETTERS[digit])
        if not number:
            break
    tail = _LETTERS[zlib.crc32(str(rank).encode()) % 7] * (rank % 3)
    return "".join(letters) + ("o" + "".join(reversed(letters)) + tail if rank > 100 else "")


def altered(words: Sequence[str], random_: random.Random) -> list[str]:
    """A copy with words replaced in places, for a similarity drawn evenly from LEAST_PLANTED to 1."""
    target = random_.uniform(LEAST_PLANTED, 1)
    num_shingles = len(words) - WORDS + 1
    num_changed = round((1 - target) / (1 + target) * num_shingles / WORDS)
    copy = list(words)
    for place in random_.sample(range(len(copy)), num_changed):
        copy[place] = f"changed{random_.randrange(10**6)}"
    return copy


def shingles(words: Sequence[str]) -> set[tuple[str, ...]]:
    """Word 5-grams, without regard to case and punctuation."""
    bare = [word.lower().strip(".,") for word in words]
    return {tuple(bare[i : i + WORDS]) for i in range(len(bare) - WORDS + 1)}


def jaccard(left: Sequence[str], right: Sequence[str]) -> float:
    a, b = shingles(left), shingles(right)
    return len(a & b) / len(a | b)


def as_text(words: Sequence[str]) -> str:
    """Sentences of 12 words, paragraphs of 72, so that every document has punctuation and lines."""
    sentences = [" ".join(words[start : start + 12]).capitalize() + "." for start in range(0, len(words), 12)]
    return "\n".join(" ".join(sentences[start : start + 6]) for start in range(0, len(sentences), 6))


def kept_ids(folder: Path) -> set[int]:
    """Ids of the documents that a side wrote."""
    files = sorted(folder.glob("documents-*.parquet")) or sorted(folder.glob("*.parquet"))
    return {int(each) for path in files for each in pq.read_table(path, columns=["id"])["id"].to_pylist()}


def resolved(planted: Sequence[Planted], kept: set[int]) -> int:
    return sum(pair.original not in kept or pair.copy not in kept for pair in planted)


def median(values: Sequence[float]) -> float:
    return sorted(values)[len(values) // 2]


def machine() -> str:
    """Processor and versions."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return f"{names[0] if names else platform.processor()}, {WORKERS} workers, numba {version('numba')}"


if __name__ == "__main__":
    main()
