"""Small models in fastText's format, of every kind that is read, with random numbers in them."""

import random
import struct
from dataclasses import dataclass

import numpy as np

MAGIC, VERSION = 793712314, 12
WORDS = ("</s>", "de", "the", "été", "дом", "水", "a", "__label", "x" * 40, "house")
"""Frequent ones of texts that are asked about; the first ends a line."""


@dataclass(frozen=True)
class SmallModel:
    """What differs between files. A matrix is quantized in parts of `part_dim` columns, unless that is 0."""

    minn: int = 2
    maxn: int = 4
    word_ngrams: int = 1
    num_labels: int = 7
    bucket: int = 1009
    num_pruned: int | None = 400
    """N-grams that are left; None where the model is not pruned."""
    dim: int = 6
    part_dim: int = 4
    has_scales: bool = True
    output_part_dim: int = 0
    version: int = VERSION
    seed: int = 0

    def content(self) -> bytes:
        chance = np.random.default_rng(self.seed)
        num_ngrams = self.bucket if self.num_pruned is None else self.num_pruned
        return b"".join(
            (
                struct.pack("<2i", MAGIC, self.version),
                struct.pack("<6i", self.dim, 5, 5, 1, 5, self.word_ngrams),
                struct.pack("<6id", 1, 3, self.bucket, self.minn, self.maxn, 100, 1e-4),
                self._dictionary(),
                _matrix(chance, len(WORDS) + num_ngrams, self.dim, self.part_dim, self.has_scales),
                _matrix(chance, self.num_labels, self.dim, self.output_part_dim, self.has_scales),
            )
        )

    def _dictionary(self) -> bytes:
        chance = random.Random(self.seed)
        labels = [f"__label__{chr(ord('a') + number)}" for number in range(self.num_labels)]
        counts = sorted((chance.choice((3, 5, 8, 200)) for _ in labels), reverse=True)
        entries = [(word, 10, 0) for word in WORDS]
        entries += [(label, count, 1) for label, count in zip(labels, counts, strict=True)]
        head = struct.pack("<3i", len(entries), len(WORDS), len(labels))
        head += struct.pack("<2q", 1000, -1 if self.num_pruned is None else self.num_pruned)
        body = b"".join(word.encode() + b"\0" + struct.pack("<qb", *facts) for word, *facts in entries)
        hashes = chance.sample(range(self.bucket), self.num_pruned or 0)
        return head + body + b"".join(struct.pack("<2i", hash_, row) for row, hash_ in enumerate(hashes))


def _matrix(chance: np.random.Generator, rows: int, dim: int, part_dim: int, has_scales: bool) -> bytes:
    """Its flag and itself."""
    if part_dim == 0:
        return struct.pack("<?2q", False, rows, dim) + _floats(chance, rows * dim)
    num_parts = -(-dim // part_dim)
    last = dim - (num_parts - 1) * part_dim
    content = struct.pack("<??2qi", True, has_scales, rows, dim, rows * num_parts)
    content += chance.bytes(rows * num_parts)
    content += struct.pack("<4i", dim, num_parts, part_dim, last) + _floats(chance, 256 * dim)
    if has_scales:
        content += chance.bytes(rows) + struct.pack("<4i", 1, 1, 1, 1) + _floats(chance, 256)
    return content


def _floats(chance: np.random.Generator, count: int) -> bytes:
    return (4 * chance.standard_normal(count)).astype("<f4").tobytes()
