"""Peak memory of the whole curate stage on synthetic documents: does it grow with the input?

    python benchmarks/curate_memory.py [--gigabytes 0.3 1] [--workers 2] [--folder /disk/with/room]

Documents are streamed into WARC files (gzip, about half of the text's size on disk): prose of random words
drawn by rank as in English (Zipf), in paragraphs; one document in twenty is a near copy of an earlier one,
one in fifty an exact copy, so that deduplication has pairs and clusters. All default rules are on but for
language, which made-up words have none of. For every size the stage runs in a process of its own; this one
samples the resident memory of the whole process tree ten times a second (pages that processes share count
once for each) and names the step at its peak. Files are deleted after each size.
"""

import argparse
import gzip
import json
import os
import platform
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from bessemer.curate.config import CurateConfig
from bessemer.curate.stage import curate
from bessemer.runner.context import StageContext
from bessemer.runner.manifest import Artifact, Cost, Manifest
from bessemer.runner.progress import PlainReporter

AIM_BYTES = 2_000_000_000
_SAMPLE_EVERY_S = 0.1
_FILE_BYTES = 256 << 20
_VOCABULARY = 50_000
_SHORTEST_WORDS, _LONGEST_WORDS = 120, 1200
_NEAR, _EXACT = 0.05, 0.02
_HELD = 2000
"""Earlier documents that copies are made of, at the most."""
_STOP = ("the", "of", "and", "to", "in", "a", "that", "is", "for", "it", "with", "as", "was", "be", "have")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--gigabytes", type=float, nargs="+", default=[0.3, 1.0], help="text in each run")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--folder", type=Path, help="where to work (default: the system's folder)")
    parser.add_argument("--curate", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.curate:
        run_stage(arguments.curate, arguments.workers)
        return
    results = []
    for gigabytes in arguments.gigabytes:
        with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
            results.append(measure(Path(folder), gigabytes, arguments.workers))
        print(describe(results[-1]), flush=True)
    last = results[-1]
    print(
        json.dumps(
            {
                "name": "curate_memory",
                "unit": "GB of resident memory at the peak",
                "ours": round(last["peak_bytes"] / 1e9, 3),
                "peer": AIM_BYTES / 1e9,
                "peer_name": "the aim",
                "ratio": round(last["peak_bytes"] / AIM_BYTES, 3),
                "ratio_low": round(min(each["peak_bytes"] for each in results) / AIM_BYTES, 3),
                "ratio_high": round(max(each["peak_bytes"] for each in results) / AIM_BYTES, 3),
                "machine": f"{platform.processor() or platform.machine()}, {os.cpu_count()} CPUs",
                "runs": results,
            }
        )
    )


def measure(folder: Path, gigabytes: float, workers: int) -> dict:
    """Write the documents, run the stage in a process of its own, and watch it."""
    num_documents = write_pages(folder / "pages", gigabytes * 1e9)
    input_bytes = sum(path.stat().st_size for path in (folder / "pages").iterdir())
    command = [sys.executable, __file__, "--curate", str(folder), "--workers", str(workers)]
    start_s = time.monotonic()
    peaks: dict[str, int] = {}
    disk_bytes = 0
    with subprocess.Popen(command) as process:
        while process.poll() is None:
            step = read_step(folder)
            peaks[step] = max(peaks.get(step, 0), resident_tree(process.pid))
            time.sleep(_SAMPLE_EVERY_S)
            if int((time.monotonic() - start_s) / _SAMPLE_EVERY_S) % 100 == 0:
                disk_bytes = max(disk_bytes, folder_bytes(folder))
    if process.returncode:
        raise SystemExit(process.returncode)
    metrics = json.loads((folder / "metrics.json").read_text())
    return {
        "gigabytes": gigabytes,
        "documents": num_documents,
        "kept": metrics["documents"],
        "duplicates": metrics["duplicates"],
        "input_bytes": input_bytes,
        "wall_s": round(time.monotonic() - start_s, 1),
        "peak_bytes": max(peaks.values()),
        "peak_by_step": peaks,
        "disk_bytes": disk_bytes,
        **{name: value for name, value in metrics.items() if name.startswith("wall_s.")},
    }


def describe(result: dict) -> str:
    steps = ", ".join(f"{step} {peak / 1e6:,.0f}" for step, peak in result["peak_by_step"].items())
    return (
        f"{result['gigabytes']:g} GB of text, {result['documents']:,} documents ({result['kept']:,} kept, "
        f"{result['duplicates']:,} duplicates): peak {result['peak_bytes'] / 1e6:,.0f} MB "
        f"(by step: {steps}), {result['wall_s']:.0f} s, {result['disk_bytes'] / 1e9:.1f} GB of disk"
    )


def run_stage(folder: Path, workers: int) -> None:
    """The stage as the runner would call it; every line that it says begins a step for the watcher."""
    manifest = Manifest(
        kind="pages",
        stage="collect",
        stage_kind="collect",
        format_version=1,
        digest="0" * 64,
        key="",
        inputs={},
        input_stages={},
        config={},
        seed=0,
        versions={},
        files=[],
        metrics={},
        cost=Cost(),
        created_at="",
    )
    for name in ("output", "scratch"):
        (folder / name).mkdir()
    context = StageContext(
        stage="curate",
        seed=0,
        output=folder / "output",
        scratch=folder / "scratch",
        inputs={"pages": [Artifact(folder / "pages", manifest)]},
        reporter=PlainReporter(sys.stderr, interval_s=60),
        metrics_path=folder / "metrics.jsonl",
    )
    metrics = curate(CurateConfig(workers=workers, languages=()), context)
    (folder / "metrics.json").write_text(json.dumps(metrics))


def read_step(folder: Path) -> str:
    """What the stage is at, told by the files that it has made."""
    if any((folder / "output").glob("*.parquet")) or any((folder / "output").glob(".*.partial")):
        return "write"
    return "deduplicate" if (folder / "scratch" / "duplicates").exists() else "extract"


def resident_tree(pid: int) -> int:
    """Resident bytes of a process and its descendants."""
    total, waiting = 0, [pid]
    while waiting:
        each = waiting.pop()
        try:
            with open(f"/proc/{each}/statm") as file:
                total += int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
            for thread in os.listdir(f"/proc/{each}/task"):
                with open(f"/proc/{each}/task/{thread}/children") as file:
                    waiting += map(int, file.read().split())
        except (FileNotFoundError, ProcessLookupError):
            continue  # it ended while we looked
    return total


def folder_bytes(folder: Path) -> int:
    total = 0
    for path in folder.rglob("*"):
        try:
            total += path.stat().st_size
        except FileNotFoundError:
            continue  # deleted while we looked
    return total


def write_pages(folder: Path, num_bytes: float) -> int:
    """WARC files, a gzip member a record; returns how many documents they hold."""
    folder.mkdir()
    written, part, file = 0.0, 0, None
    for number, text in enumerate(documents(random.Random(1))):
        if file is None or file.tell() > _FILE_BYTES:
            if file is not None:
                file.close()
            file = (folder / f"pages-{part:05}.warc.gz").open("wb")
            part += 1
        body = text.encode()
        head = (
            f"WARC/1.1\r\nWARC-Type: resource\r\nWARC-Target-URI: https://site{number % 997}.org/{number}\r\n"
            f"Content-Type: text/plain\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        file.write(gzip.compress(head.encode() + body + b"\r\n\r\n", 1, mtime=0))
        written += len(body)
        if written >= num_bytes:
            file.close()
            return number + 1
    raise AssertionError("documents do not end")


def documents(chance: random.Random) -> Iterator[str]:
    """Texts without end."""
    words = [*_STOP, *(made_up(chance) for _ in range(_VOCABULARY))]
    weights = [1 / (rank + 2.7) for rank in range(len(words))]
    total, cumulative = 0.0, []
    for weight in weights:
        total += weight
        cumulative.append(total)
    held: list[list[str]] = []
    while True:
        draw = chance.random()
        if held and draw < _EXACT:
            yield prose(chance.choice(held))
            continue
        if held and draw < _EXACT + _NEAR:
            copy = list(chance.choice(held))
            for place in chance.sample(range(len(copy)), max(1, len(copy) // 100)):
                copy[place] = chance.choice(words)
            yield prose(copy)
            continue
        num_words = chance.randint(_SHORTEST_WORDS, _LONGEST_WORDS)
        drawn = chance.choices(words, cum_weights=cumulative, k=num_words)
        if len(held) < _HELD:
            held.append(drawn)
        else:
            held[chance.randrange(_HELD)] = drawn
        yield prose(drawn)


def made_up(chance: random.Random) -> str:
    """A word of two to four syllables."""
    return "".join(
        chance.choice("bcdfghlmnprstvw") + chance.choice("aeiou") for _ in range(chance.randint(2, 4))
    )


def prose(words: list[str]) -> str:
    """Sentences of 13 words, 5 to a paragraph."""
    sentences = [" ".join(words[at : at + 13]).capitalize() + "." for at in range(0, len(words), 13)]
    return "\n".join(" ".join(sentences[at : at + 5]) for at in range(0, len(sentences), 5))


if __name__ == "__main__":
    main()
