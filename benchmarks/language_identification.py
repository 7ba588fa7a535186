"""Languages of web pages by our kernel and by fastText: processor time a page, and whether they agree.

    python benchmarks/language_identification.py SAMPLE.warc.gz … [--pages 600]

Real samples are small, so changed copies of their pages follow, as in `warc_to_documents.py`. Both sides
read the same samples of the extracted texts (the whole and four parts of longer ones), with the same model,
in turns; ours reads them in batches of a hundred pages, fastText (the package fasttext-predict) one by one,
as it offers nothing faster. Extraction and sampling are not counted.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import fasttext
from cpu_kernels import describe_machine
from warc_to_documents import write_copies

from bessemer.curate import language
from bessemer.curate.config import CurateConfig
from bessemer.curate.kernels.fasttext import predict
from bessemer.curate.records import is_page, read_candidate
from bessemer.curate.texts import pack
from bessemer.formats.warc import read_warc

TURNS = 7
_PAGES_AT_ONCE = 100
_BYTES_A_PAGE = 12_000
"""Compressed, in the samples that this was written with; only decides how many copies are made."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("samples", nargs="+", type=Path, help="WARC files with real pages")
    parser.add_argument("--pages", type=int, default=600, help="about how many pages to read")
    arguments = parser.parse_args()
    texts = page_texts(arguments.samples, arguments.pages)
    batches = [samples_of(texts[i : i + _PAGES_AT_ONCE]) for i in range(0, len(texts), _PAGES_AT_ONCE)]
    peer = fasttext.load_model(str(language.model_path()))
    if ours(batches) != theirs(peer, batches):
        sys.exit("labels or scores differ")
    times = [(cpu_s(lambda: ours(batches)), cpu_s(lambda: theirs(peer, batches))) for _ in range(TURNS)]
    ratios = sorted(their_s / our_s for our_s, their_s in times)
    our_us, their_us = (statistics.median(side) / len(texts) * 1e6 for side in zip(*times, strict=True))
    num_characters = sum(len(sample) for batch in batches for sample in batch)
    print(f"{len(texts)} pages, {num_characters / len(texts):,.0f} characters read of each; scores are equal")
    print(f"ours {our_us:.1f} us a page, fastText {their_us:.1f} us: {statistics.median(ratios):.1f} times")
    result = {
        "name": "language_identification",
        "unit": "microseconds of CPU a page",
        "ours": round(our_us, 1),
        "peer": round(their_us, 1),
        "peer_name": f"fasttext-predict {version('fasttext-predict')}",
        "ratio": round(statistics.median(ratios), 1),
        "ratio_low": round(ratios[0], 1),
        "ratio_high": round(ratios[-1], 1),
        "machine": describe_machine(),
    }
    print(json.dumps(result))


def page_texts(samples: Sequence[Path], num_pages: int) -> list[str]:
    """Extracted texts of the samples' pages and of changed copies."""
    config = CurateConfig()
    with tempfile.TemporaryDirectory() as folder:
        write_copies(samples, Path(folder) / "pages", num_pages * _BYTES_A_PAGE)
        records = filter(is_page, read_warc(Path(folder) / "pages" / "pages.warc.gz"))
        candidates = [read_candidate(record, config) for record in records]
    return [candidate.text for candidate in candidates if candidate.drop is None]


def samples_of(texts: Sequence[str]) -> list[str]:
    """What the identifier reads of some pages."""
    pieces = [language._whole_and_parts(language.language_sample(text)) for text in texts]
    return [language._without_capitals(piece) for each in pieces for piece in each]


def ours(batches: Sequence[Sequence[str]]) -> list[tuple[str, float]]:
    labels, model = language.language_model()
    found = [predict(*pack(batch), model) for batch in batches]
    return [
        (labels[label], score)
        for numbers, scores in found
        for label, score in zip(numbers.tolist(), scores.tolist(), strict=True)
    ]


def theirs(model: Any, batches: Sequence[Sequence[str]]) -> list[tuple[str, float]]:
    found = [model.predict(sample, k=1) for batch in batches for sample in batch]
    return [(label.removeprefix("__label__"), score) for (label,), (score,) in found]


def cpu_s(work: Callable[[], object]) -> float:
    started_s = time.process_time()
    work()
    return time.process_time() - started_s


if __name__ == "__main__":
    main()
