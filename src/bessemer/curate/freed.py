"""What becomes of duplicate clusters when some of their members are dropped before deduplication.

The ledger keeps for every dropped duplicate its survivor, and beside it lie all confirmed pairs. What would
be kept instead of a survivor that goes still has bounds, not a value:

- Documents that are linked by confirmed pairs among themselves remain one cluster and keep one of them; the
  number of such groups is the most that can be kept. A document equal to one that goes takes over its pairs.
- What was one cluster may hang together through pairs that were never compared, in large buckets of the
  index; so of members whose texts were compared, the least is one. Captures of the same URL were never
  compared by text; their least is none.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any

_EQUAL_KEY = ("duplicates.url", "duplicates.exact")
"""Rules by which all duplicates of one partner are duplicates of each other."""


@dataclass(frozen=True)
class Freed:
    """Documents that were dropped as duplicates and would be kept now."""

    num_clusters: int
    """Clusters that lose a member, their survivor or another."""
    at_least: int
    at_most: int


def freed_duplicates(
    duplicates: Iterable[Mapping[str, Any]], failing: Set[str], pairs: Iterable[tuple[str, str]] = ()
) -> Freed:
    """Bounds on how many duplicates would be kept when the documents `failing` (ids) are dropped before.

    `duplicates`: the ledger's rows of every member of the clusters concerned but the survivors, with `id`,
    `dropped_rule`, `duplicate_survivor` and `duplicate_partner`; `pairs`: ids of the confirmed near
    duplicates among all members.
    """
    clusters: dict[str, list[Mapping[str, Any]]] = {}
    for row in duplicates:
        clusters.setdefault(row["duplicate_survivor"], []).append(row)
    touched = {
        survivor: members
        for survivor, members in clusters.items()
        if survivor in failing or any(member["id"] in failing for member in members)
    }
    cluster_of = {row["id"]: survivor for survivor, members in touched.items() for row in members}
    cluster_of |= {survivor: survivor for survivor in touched}
    linked: dict[str, list[tuple[str, str]]] = {survivor: [] for survivor in touched}
    for a, b in pairs:
        if a in cluster_of and cluster_of[a] == cluster_of.get(b):
            linked[cluster_of[a]].append((a, b))
    bounds = [_bounds(survivor, members, failing, linked[survivor]) for survivor, members in touched.items()]
    return Freed(len(touched), sum(low for low, _ in bounds), sum(high for _, high in bounds))


def _bounds(
    survivor: str,
    members: Sequence[Mapping[str, Any]],
    failing: Set[str],
    pairs: Collection[tuple[str, str]],
) -> tuple[int, int]:
    remaining = [member for member in members if member["id"] not in failing]
    groups = _linked_groups(survivor, remaining, failing, pairs)
    if survivor not in failing:
        return 0, groups - 1  # the survivor's own group keeps the survivor, as before
    is_compared = any(member["dropped_rule"] != "duplicates.url" for member in remaining)
    return int(is_compared), groups


def _linked_groups(
    survivor: str,
    remaining: Sequence[Mapping[str, Any]],
    failing: Set[str],
    pairs: Collection[tuple[str, str]],
) -> int:
    """Groups into which recorded links join the members that remain, a remaining survivor included."""
    parent: dict[Any, Any] = {}

    def root(node: Any) -> Any:
        while parent.setdefault(node, node) != node:
            parent[node] = parent[parent[node]]
            node = parent[node]
        return node

    documents = {member["id"] for member in remaining} | ({survivor} - failing)
    heirs: dict[str, str] = {}  # of documents that go: one that is equal and remains
    for document in documents:
        root(document)
    for member in remaining:
        partner, rule = member["duplicate_partner"], member["dropped_rule"]
        if partner in documents:
            parent[root(member["id"])] = root(partner)
        if rule in _EQUAL_KEY:
            parent[root(member["id"])] = root((rule, partner))
        if rule == "duplicates.exact":
            heirs[partner] = member["id"]
    for pair in pairs:
        a, b = (end if end in documents else heirs.get(end) for end in pair)
        if a is not None and b is not None:
            parent[root(a)] = root(b)
    return len({root(document) for document in documents})
