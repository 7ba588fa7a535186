"""Memory of the work over all documents: what it takes a row, and no more than it is told to for sorting."""

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from bessemer.curate.dedup import resolve
from bessemer.curate.dedup.config import DuplicateConfig
from bessemer.curate.dedup.fingerprints import NUM_FACTS, SET_SIZE, TEXT_KEY, FingerprintFiles

NUM_SHARDS, SHARD_ROWS = 100, 10_000
SET = 16
NUM_BANDS = DuplicateConfig().minhash_parameters.bands
SORTING_BYTES = 16 << 20
BYTES_PER_ROW = 160
"""100 for arrays by row, and ids of the rows that are in clusters."""
FIXED_BYTES = 120_000_000
"""Compiled code, buffers of pyarrow, one shard's arrays."""


@dataclass(frozen=True)
class MadeShard:
    """Fingerprints without documents; a text only where one is asked for."""

    files: FingerprintFiles
    number: int

    def fingerprints(self) -> FingerprintFiles:
        return self.files

    def kept(self, columns: list[str]) -> Iterator[pa.Table]:
        for start in range(0, SHARD_ROWS, 1000):
            first = self.number * SHARD_ROWS + start
            values = {
                "id": [f"{first + i:032}" for i in range(1000)],
                "source": [f"site{i % 100}.org" for i in range(1000)],
                "text": [" ".join(f"w{first}x{i}" for i in range(60))] * 1000,
            }
            yield pa.table({name: values[name] for name in columns})


def make_shards(folder: Path) -> list[MadeShard]:
    """Of each shard's rows a tenth are near copies of the shard before, a twentieth have its text."""
    random_ = np.random.default_rng(0)
    num_near, num_equal = SHARD_ROWS // 10, SHARD_ROWS // 20
    shards = []
    before: dict[str, np.ndarray] | None = None
    for number in range(NUM_SHARDS):
        facts = random_.integers(1, 2**64, (SHARD_ROWS, NUM_FACTS), np.uint64)
        facts[:, SET_SIZE] = SET
        bands = random_.integers(0, 2**64, (SHARD_ROWS, NUM_BANDS), np.uint64)
        shingles = np.sort(random_.integers(0, 2**64, (SHARD_ROWS, SET), np.uint64), axis=1)
        if before is not None:
            bands[:num_near] = before["bands"][-num_near:]
            shingles[:num_near] = before["shingles"][-num_near:]
            shingles[:num_near, 0] = 0  # one of 16 differs: 15 / 17
            equal = slice(num_near, num_near + num_equal)
            facts[equal, TEXT_KEY] = before["facts"][equal, TEXT_KEY]
        before = {"facts": facts, "bands": bands, "shingles": shingles}
        files = FingerprintFiles(folder, f"shard-{number:05}")
        for name, array in before.items():
            np.save(files.path(name), array.reshape(-1) if name == "shingles" else array)
        shards.append(MadeShard(files, number))
    return shards


_CHILD = """
import sys
from pathlib import Path
from test_dedup_memory import SORTING_BYTES, make_shards
from bessemer.curate.dedup.config import DuplicateConfig
from bessemer.curate.dedup.marks import Marker
from bessemer.curate.dedup.resolve import find_duplicates

def memory(name):
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(name)).split()[1]) * 1024

folder = Path(sys.argv[1])
shards = make_shards(folder)
config = DuplicateConfig(url_duplicates=False, duplicate_memory=SORTING_BYTES)
before = memory("VmRSS")
found = find_duplicates(shards, config, folder / "scratch", 2, lambda line: None, "made")
Marker(shards, found, 0.8).write_pairs(folder / "output", 64 << 20)
print(memory("VmHWM") - before, int((found.rule == 2).sum()), int((found.rule == 3).sum()))
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="resident memory is read from /proc")
def test_a_million_documents_take_what_the_guide_says_a_row(tmp_path: Path):
    source = str(Path(resolve.__file__).parents[3])
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([source, str(Path(__file__).parent)])}
    command = [sys.executable, "-c", _CHILD, str(tmp_path)]
    output = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
    grown_bytes, num_equal, num_near = map(int, output.split())
    num_rows = NUM_SHARDS * SHARD_ROWS
    print(
        f"{num_rows:,} rows: {grown_bytes / 1e6:.0f} MB, {(grown_bytes - SORTING_BYTES) / num_rows:.0f} a row"
    )
    assert num_equal == (NUM_SHARDS - 1) * SHARD_ROWS // 20
    assert num_near == (NUM_SHARDS - 1) * SHARD_ROWS // 10
    assert grown_bytes < BYTES_PER_ROW * num_rows + SORTING_BYTES + FIXED_BYTES
