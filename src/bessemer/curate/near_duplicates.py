"""Near duplicates: MinHash-LSH nominates pairs, the exact Jaccard similarity decides, union-find joins.

Broder 1997 (shingles, MinHash); Leskovec, Rajaraman, Ullman, "Mining of Massive Datasets", section 3.4
(bands). Signatures alone would remove many documents that only share templates; an exact check costs
little because few pairs are nominated.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from bessemer.curate.kernels.shingles import band_keys, jaccard

ShingleSet = NDArray[np.uint64]
"""Sorted, distinct."""
_HASH_FAMILY_SEED = 20040815
"""Fixed, so that signatures of different runs compare."""


@dataclass
class DuplicateForest:
    """Clusters of confirmed duplicates (union-find); the root of each is its first member in input order."""

    parent: list[int]
    partner: dict[int, tuple[float, int]] = field(default_factory=dict)
    """Member → the greatest confirmed similarity and with whom (the first such)."""

    @classmethod
    def of_size(cls, num_documents: int) -> "DuplicateForest":
        return cls(list(range(num_documents)))

    def root(self, document: int) -> int:
        """First document of the cluster."""
        while self.parent[document] != document:
            self.parent[document] = self.parent[self.parent[document]]
            document = self.parent[document]
        return document

    def confirm(self, left: int, right: int, similarity: float) -> None:
        """Join the clusters of a confirmed pair and remember the evidence."""
        low, high = sorted((self.root(left), self.root(right)))
        self.parent[high] = low
        for member, other in ((left, right), (right, left)):
            known = self.partner.get(member)
            if known is None or (similarity, -other) > (known[0], -known[1]):
                self.partner[member] = (similarity, other)

    def clusters(self) -> dict[int, list[int]]:
        """Root → members, for clusters of two and more, in input order."""
        members: dict[int, list[int]] = {}
        for document in range(len(self.parent)):
            members.setdefault(self.root(document), []).append(document)
        return {root: group for root, group in members.items() if len(group) > 1}


def hash_family(num_hashes: int) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    """Multipliers (odd) and increments of the MinHash functions; always the same."""
    bits = np.random.Generator(np.random.PCG64(_HASH_FAMILY_SEED)).integers(
        0, 2**64, size=(2, num_hashes), dtype=np.uint64
    )
    return bits[0] | np.uint64(1), bits[1]


def find_near_duplicates(
    signatures: NDArray[np.uint32], shingle_sets: Sequence[ShingleSet], num_bands: int, min_similarity: float
) -> DuplicateForest:
    """Clusters of documents joined by pairs of Jaccard similarity >= `min_similarity`.

    `signatures` [documents, bands * rows] nominate: a pair that agrees on a whole band is compared
    exactly, unless the two are in one cluster already. Documents without shingles join nothing.
    """
    forest = DuplicateForest.of_size(len(signatures))
    for bucket in buckets(band_keys(signatures, num_bands)):
        _join_bucket(forest, bucket, shingle_sets, min_similarity)
    return forest


def buckets(keys: NDArray[np.uint64]) -> Iterator[list[int]]:
    """Groups of two and more documents with an equal key, band by band; members in input order."""
    for band in keys:
        order = np.argsort(band, kind="stable")
        ordered = band[order]
        changes = np.flatnonzero(ordered[1:] != ordered[:-1]) + 1
        for bucket in np.split(order, changes):
            if len(bucket) > 1:
                yield bucket.tolist()


def _join_bucket(
    forest: DuplicateForest, bucket: Iterable[int], shingle_sets: Sequence[ShingleSet], min_similarity: float
) -> None:
    # One group per cluster: a document is compared with a cluster only until one member confirms it.
    groups: list[list[int]] = []
    for document in bucket:
        joined = [document]
        apart = []
        for group in groups:
            if forest.root(group[0]) == forest.root(document):
                is_same = True
            else:
                is_same = _confirm_any(forest, document, group, shingle_sets, min_similarity)
            if not is_same:
                apart.append(group)
            elif len(joined) == 1:
                group.append(document)
                joined = group
            else:
                joined.extend(group)
        groups = [*apart, joined]


def _confirm_any(
    forest: DuplicateForest,
    document: int,
    others: Iterable[int],
    shingle_sets: Sequence[ShingleSet],
    min_similarity: float,
) -> bool:
    for other in others:
        similarity = jaccard(shingle_sets[document], shingle_sets[other])
        if similarity >= min_similarity:
            forest.confirm(other, document, similarity)
            return True
    return False
