"""Shards of texts for deduplication, without pages, extraction and rules before it."""

import hashlib
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from bessemer.curate.dedup.config import DuplicateConfig
from bessemer.curate.dedup.fingerprints import FingerprintFiles, Subject, fingerprint
from bessemer.curate.dedup.resolve import RULES, Duplicates, find_duplicates
from bessemer.curate.measure import split

ONLY_NEAR = {"url_duplicates": False, "exact_duplicates": False}


@dataclass
class Document:
    """What deduplication looks at."""

    text: str
    url: str | None = None
    source: str | None = None
    fetched_at: str | None = None
    values: dict[str, float] = field(default_factory=dict)
    lead: int = 0


@dataclass(frozen=True)
class TextShard:
    """Documents with their fingerprints on disk."""

    files: FingerprintFiles
    table: pa.Table
    batch_rows: int = 3

    def fingerprints(self) -> FingerprintFiles:
        return self.files

    def kept(self, columns: list[str]) -> Iterator[pa.Table]:
        for start in range(0, self.table.num_rows, self.batch_rows):
            yield self.table.select(columns).slice(start, self.batch_rows)


def write_shards(
    folder: Path, documents: Sequence[Document], config: DuplicateConfig, shard_rows: int
) -> list[TextShard]:
    """Shards of `shard_rows` documents each; ids are `document-<row>`."""
    folder.mkdir(parents=True, exist_ok=True)
    return [
        _write_shard(folder, f"shard-{start:05}", start, documents[start : start + shard_rows], config)
        for start in range(0, len(documents), shard_rows)
    ]


def _write_shard(
    folder: Path, stem: str, first: int, documents: Sequence[Document], config: DuplicateConfig
) -> TextShard:
    subjects = [Subject(each.url, each.text, each.lead) for each in documents]
    prints = fingerprint(subjects, split(*(each.text for each in documents)), config)
    for name, array in prints.arrays.items():
        np.save(folder / f"{stem}.{name}.npy", array)
    rows: list[dict[str, Any]] = [
        {
            "id": f"document-{first + i}",
            "url": each.url,
            "source": each.source,
            "fetched_at": each.fetched_at,
            "text": each.text,
            **each.values,
        }
        for i, each in enumerate(documents)
    ]
    return TextShard(FingerprintFiles(folder, stem), pa.Table.from_pylist(rows))


def find(
    documents: Sequence[Document | str],
    folder: Path,
    shard_rows: int = 7,
    num_threads: int = 1,
    say: Callable[[str], None] = lambda text: None,
    **settings: object,
) -> Duplicates:
    """Deduplicate texts; nothing brakes unless it is set to."""
    config = DuplicateConfig.model_validate({"max_duplicate_share": 1.0} | settings)
    given = [Document(each) if isinstance(each, str) else each for each in documents]
    shards = write_shards(folder / "shards", given, config, shard_rows)
    digest = hashlib.sha256(repr((given, shard_rows)).encode()).hexdigest()
    return find_duplicates(shards, config, folder / "scratch", num_threads, say, digest)


def verdicts(duplicates: Duplicates) -> dict[int, tuple[str, int]]:
    """Dropped row → rule and survivor."""
    dropped = np.flatnonzero(duplicates.rule).tolist()
    return {row: (RULES[duplicates.rule[row]], int(duplicates.survivor[row])) for row in dropped}


def plain_words(text: str) -> list[str]:
    return [word.lower().strip(".,!?") for word in text.split()]


def plain_set(text: str, num_words: int = 5) -> set[tuple[str, ...]]:
    """Word n-grams by plain Python."""
    words = plain_words(text)
    width = min(num_words, len(words))
    return {tuple(words[i : i + width]) for i in range(len(words) - width + 1)} if words else set()


def plain_jaccard(left: str, right: str, num_words: int = 5) -> float:
    a, b = plain_set(left, num_words), plain_set(right, num_words)
    return len(a & b) / len(a | b) if a | b else 0.0


def roots_of_all_pairs(texts: Sequence[str], threshold: float, num_words: int = 5) -> list[int]:
    """The first member of each text's cluster, by comparing every pair."""
    roots = list(range(len(texts)))
    sets = [plain_set(text, num_words) for text in texts]
    for i, j in combinations(range(len(texts)), 2):
        common = len(sets[i] & sets[j])
        if common and common / len(sets[i] | sets[j]) >= threshold:
            low, high = sorted((roots[i], roots[j]))
            roots = [low if root == high else root for root in roots]
    return roots


def random_text(random_: random.Random, num_words: int, vocabulary: int = 5000) -> list[str]:
    """Words that hardly ever make the same five in a row twice."""
    return [f"word{random_.randrange(vocabulary)}" for _ in range(num_words)]


def altered(words: Sequence[str], num_changes: int, random_: random.Random) -> list[str]:
    """A copy with some words replaced."""
    copy = list(words)
    for place in random_.sample(range(len(copy)), num_changes):
        copy[place] = f"other{random_.randrange(10**9)}"
    return copy
