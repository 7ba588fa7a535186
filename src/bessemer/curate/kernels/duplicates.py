"""Buckets to pairs, and pairs to clusters: the loops of near deduplication over arrays of row numbers."""

import numpy as np
from numba import njit
from numpy.typing import NDArray


@njit(cache=True)
def bucket_pairs(
    values: NDArray[np.uint64], num_carried: int, first: int, row_bits: int, window: int, num_real_rows: int
) -> NDArray[np.uint64]:
    """Candidate pairs out of sorted `values` (key prefix above `row_bits` bits of row number).

    Each member of a bucket (equal prefixes) is paired with the `window` members before it and with the
    bucket's first, so that a bucket of m members gives at most m (window + 1) pairs; up to window + 1
    members that is every pair. The first `num_carried` values are real members of one bucket that came
    before, which started with row `first`; they take part as earlier members only. Rows from
    `num_real_rows` on are planted: they are paired with real rows alone, and no real pair depends on them.
    Returns pairs `low row << 32 | high row`.
    """
    nothing = np.empty(0, np.uint64)
    num_pairs = _fill_pairs(values, num_carried, first, row_bits, window, num_real_rows, nothing)
    pairs = np.empty(num_pairs, np.uint64)
    if num_pairs > 0:
        _fill_pairs(values, num_carried, first, row_bits, window, num_real_rows, pairs)
    return pairs


@njit(cache=True)
def _fill_pairs(values, num_carried, first, row_bits, window, num_real_rows, pairs):
    """Write the pairs, or only count them when there is no room at all; returns their number."""
    mask = (np.uint64(1) << np.uint64(row_bits)) - np.uint64(1)
    num_pairs = 0
    bucket_start, bucket_first = 0, first
    real_end = num_carried  # of the bucket: planted rows have the highest numbers, so real ones come first
    for k in range(num_carried, len(values)):
        row = np.int64(values[k] & mask)
        if k == 0 or values[k] >> np.uint64(row_bits) != values[k - 1] >> np.uint64(row_bits):
            bucket_start, bucket_first, real_end = k, row, k + 1
            continue
        end = real_end
        if row < num_real_rows:
            real_end = k + 1
        if bucket_first >= num_real_rows:
            continue
        start = max(bucket_start, end - window)
        is_first_outside = np.int64(values[start] & mask) != bucket_first
        if len(pairs) == 0:
            num_pairs += end - start + is_first_outside
            continue
        if is_first_outside:
            pairs[num_pairs] = np.uint64(bucket_first) << np.uint64(32) | np.uint64(row)
            num_pairs += 1
        for other in range(start, end):
            pairs[num_pairs] = (values[other] & mask) << np.uint64(32) | np.uint64(row)
            num_pairs += 1
    return num_pairs


@njit(cache=True)
def join(parent: NDArray[np.int64], left: NDArray[np.int64], right: NDArray[np.int64]) -> None:
    """Join the clusters of each pair, in place; the root of a cluster is its lowest row.

    Union-find with path halving (Tarjan and van Leeuwen 1984).
    """
    for pair in range(len(left)):
        a, b = find_root(parent, left[pair]), find_root(parent, right[pair])
        if a < b:
            parent[b] = a
        else:
            parent[a] = b


@njit(cache=True)
def find_root(parent, row):
    """The root of a row's cluster; shortens the path on the way."""
    while parent[row] != row:
        parent[row] = parent[parent[row]]
        row = parent[row]
    return row


@njit(cache=True)
def flatten(parent: NDArray[np.int64]) -> None:
    """Let every row point at its root, in place. Parents are never above their children."""
    for row in range(len(parent)):
        parent[row] = parent[parent[row]]


@njit(cache=True)
def keep_best_partner(
    best: NDArray[np.float64],
    partner: NDArray[np.int64],
    left: NDArray[np.int64],
    right: NDArray[np.int64],
    similarity: NDArray[np.float64],
) -> None:
    """Note each row's most similar confirmed partner, the lowest of equals, in place."""
    for pair in range(len(left)):
        for row, other in ((left[pair], right[pair]), (right[pair], left[pair])):
            s = similarity[pair]
            if s > best[row] or (s == best[row] and other < partner[row]):
                best[row] = s
                partner[row] = other


@njit(cache=True)
def best_members(root: NDArray[np.int64], score: NDArray[np.float64]) -> NDArray[np.int64]:
    """By root, the member of greatest score [rows]; of equals the lowest row."""
    best = np.arange(len(root))
    for row in range(len(root)):
        if score[row] > score[best[root[row]]]:
            best[root[row]] = row
    return best


@njit(cache=True)
def drop_direct(
    survivor: NDArray[np.int64], by_rank: NDArray[np.int64], low: NDArray[np.int64], high: NDArray[np.int64]
) -> None:
    """Let each kept row, best first, take the rows that are confirmed duplicates of it, in place.

    `low`, `high`: ranks of confirmed pairs in ascending order of `low` (over all calls); `by_rank`: row
    of each rank; `survivor` [rows]: -1, or the row that replaces it.
    """
    for pair in range(len(low)):
        keeper, other = by_rank[low[pair]], by_rank[high[pair]]
        if survivor[keeper] < 0 and survivor[other] < 0:
            survivor[other] = keeper
