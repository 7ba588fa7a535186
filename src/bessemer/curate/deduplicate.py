"""Deduplication over the rows that passed the rules: by URL, by exact text, by near-duplicate clusters.

The survivor is always the first in input order, so results do not depend on workers or timing.
"""

import hashlib
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from bessemer.curate.near_duplicates import ShingleSet, find_near_duplicates
from bessemer.errors import BessemerError


@dataclass(frozen=True)
class Duplicate:
    """Evidence why a row is a duplicate. Rows are numbers into the deduplicated sequence."""

    rule: str
    """`duplicates.url`, `duplicates.exact` or `duplicates.near`."""
    survivor: int
    """The row that stays for the cluster."""
    partner: int
    """The confirmed duplicate that it is most similar to; not always the survivor."""
    similarity: float | None
    """Exact Jaccard similarity of the shingle sets with `partner`; None for URL duplicates."""


@dataclass(frozen=True)
class Settings:
    """The part of the config that deduplication needs; see `CurateConfig`."""

    by_url: bool
    by_text: bool
    by_similarity: bool
    num_bands: int
    min_similarity: float
    max_duplicate_share: float


def text_key(text: str) -> bytes:
    """BLAKE2b-128 of the text without regard to case and whitespace."""
    normal = " ".join(text.lower().split())
    return hashlib.blake2b(normal.encode(), digest_size=16).digest()


def find_duplicates(
    names: Sequence[str],
    urls: Sequence[str | None],
    text_keys: Sequence[bytes],
    signatures: NDArray[np.uint32],
    shingle_sets: Sequence[ShingleSet],
    settings: Settings,
) -> dict[int, Duplicate]:
    """Row → evidence, for every row that an earlier one makes superfluous.

    `names` are for messages; `urls` holds None for rows that are no captures of a page. Each step sees
    what the ones before left.
    Raises BessemerError when more than `max_duplicate_share` of the rows would go.
    """
    found: dict[int, Duplicate] = {}
    rows = range(len(text_keys))
    if settings.by_url:
        found |= _repeated(rows, lambda row: urls[row], "duplicates.url", None)
    if settings.by_text:
        rest = [row for row in rows if row not in found]
        found |= _repeated(rest, lambda row: text_keys[row], "duplicates.exact", 1.0)
    if settings.by_similarity:
        rest = [row for row in rows if row not in found]
        found |= _near(rest, signatures, shingle_sets, settings)
    # The survivor of one step may be a duplicate in the next.
    found = {row: replace(found[row], survivor=_last_survivor(found, row)) for row in sorted(found)}
    _brake(found, names, settings.max_duplicate_share)
    return found


def _last_survivor(found: dict[int, Duplicate], row: int) -> int:
    while row in found:
        row = found[row].survivor
    return row


def _repeated(
    rows: Iterable[int], key: Callable[[int], Hashable], rule: str, similarity: float | None
) -> dict[int, Duplicate]:
    first: dict[Hashable, int] = {}
    found = {}
    for row in rows:
        value = key(row)
        if value is None:
            continue
        survivor = first.setdefault(value, row)
        if survivor != row:
            found[row] = Duplicate(rule, survivor, survivor, similarity)
    return found


def _near(
    rows: Sequence[int],
    signatures: NDArray[np.uint32],
    shingle_sets: Sequence[ShingleSet],
    settings: Settings,
) -> dict[int, Duplicate]:
    sets = [shingle_sets[row] for row in rows]
    forest = find_near_duplicates(signatures[rows], sets, settings.num_bands, settings.min_similarity)
    found = {}
    for root, members in forest.clusters().items():
        for member in members:
            if member != root:
                similarity, partner = forest.partner[member]
                found[rows[member]] = Duplicate("duplicates.near", rows[root], rows[partner], similarity)
    return found


def _brake(found: dict[int, Duplicate], names: Sequence[str], max_duplicate_share: float) -> None:
    num_rows = len(names)
    if len(found) <= max_duplicate_share * num_rows:
        return
    sizes: dict[int, int] = {}
    for duplicate in found.values():
        sizes[duplicate.survivor] = sizes.get(duplicate.survivor, 1) + 1
    survivor, size = max(sizes.items(), key=lambda item: (item[1], -item[0]))
    raise BessemerError(
        f"deduplication would drop {len(found):,} of {num_rows:,} documents "
        f"({len(found) / num_rows:.1%}), more than max_duplicate_share = {max_duplicate_share:.0%}. "
        f"The biggest cluster has {size:,} documents and keeps only {names[survivor]}. "
        "If that is right, raise curate.max_duplicate_share; else look at that page: a template that fills "
        "most of each page makes them alike (raise min_similarity or set near_duplicates: false)."
    )
