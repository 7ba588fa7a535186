"""Memory is bounded by the size of a shard, not of the input."""

import random
from pathlib import Path

import pytest
from curate_helpers import prose, stage_context

from bessemer.curate.config import CurateConfig
from bessemer.curate.stage import curate
from bessemer.runner.cost import CostMeter

MAX_RESIDENT_BYTES = 2_000_000_000
NUM_BYTES = 200_000_000
NUM_SENTENCES = 60_000


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="resident memory is read from /proc")
def test_a_large_synthetic_corpus_passes_through_bounded_memory(tmp_path: Path):
    """Text of random sentences in a plain WARC file, 200 MB, by two workers: all processes together."""
    sentences = prose(1, NUM_SENTENCES)
    chance = random.Random(2)
    pages = tmp_path / "pages"
    pages.mkdir()
    num_documents = 0
    with (pages / "pages-00000.warc").open("wb") as file:
        while file.tell() < NUM_BYTES:
            body = "\n".join(chance.choices(sentences, k=50)).encode()
            file.write(
                b"WARC/1.1\r\nWARC-Type: resource\r\nWARC-Target-URI: https://a.org/%d\r\n"
                b"Content-Type: text/plain\r\nContent-Length: %d\r\n\r\n" % (num_documents, len(body))
            )
            file.write(body + b"\r\n\r\n")
            num_documents += 1
    meter = CostMeter(tmp_path / "attempts.json")
    with meter:
        metrics = curate(CurateConfig(workers=2), stage_context(pages, tmp_path))
    peak_bytes = meter.total(0.0).peak_memory_bytes
    print(f"{num_documents} documents, {metrics['documents']} kept, peak {peak_bytes / 1e6:.0f} MB")
    assert metrics["documents"] > 0.95 * num_documents
    assert peak_bytes < MAX_RESIDENT_BYTES
