"""Edits and duplicate clusters for the page, with their texts."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from bessemer.curate.originals import Originals, edited_text
from bessemer.curate.review.ledger import ReviewLedger
from bessemer.curate.whereabouts import document_texts

HEAD_CHARACTERS = 1500
"""Of a text that is shown."""
_MEMBERS_SHOWN = 3


@dataclass(frozen=True)
class EditedRecord:
    """A record with edits, and its text before them."""

    facts: Mapping[str, Any]
    text: str | None
    problem: str | None
    """Why there is no text, or what is wrong with it."""


@dataclass(frozen=True)
class Cluster:
    """A kept document and duplicates that were dropped for it."""

    survivor: str
    survivor_url: str | None
    survivor_text: str
    num_dropped: int
    members: Sequence[Mapping[str, Any]]
    """Facts of some of the dropped, the least similar first."""


@dataclass(frozen=True)
class Clusters:
    """Sizes of all duplicate clusters, and some of them."""

    sizes: Mapping[int, int]
    """Documents in a cluster → clusters of that size."""
    groups: Mapping[str, Sequence[Cluster]]
    """Why they were chosen → clusters."""


def edited_records(ledger: ReviewLedger, per_rule: int) -> dict[str, list[EditedRecord]]:
    """Edit rule → records that it edited, drawn at random, read again from their pages."""
    edits = ledger.frame.select("row", edits=pl.col("edits").list.eval(pl.element().struct.field("rule")))
    pairs = edits.explode("edits").drop_nulls().unique().collect()
    chosen: dict[str, list[int]] = {}
    for name in sorted(pairs["edits"].unique().to_list()):
        rows = np.sort(pairs.filter(pl.col("edits") == name)["row"].to_numpy())
        chosen[name] = rows[np.argsort(ledger.order[rows], kind="stable")[:per_rule]].tolist()
    facts = ledger.facts([row for rows in chosen.values() for row in rows])
    originals = Originals(ledger.folder)
    kept_texts = document_texts(ledger.folder, [each["id"] for each in facts.values()])
    read = {row: _edited(each, originals, kept_texts) for row, each in facts.items()}
    return {name: [read[row] for row in rows] for name, rows in chosen.items()}


def _edited(facts: Mapping[str, Any], originals: Originals, kept_texts: Mapping[str, str]) -> EditedRecord:
    original = originals.read(facts)
    problem = original.problem
    if original.text is not None and facts["verdict"] == "kept":
        after = edited_text(original.text, facts["edits"])
        if after != kept_texts.get(facts["id"]):
            problem = "these edits applied to the page as read again do not give the document"
    return EditedRecord(facts, original.text, problem)


def duplicate_clusters(ledger: ReviewLedger, per_group: int) -> Clusters:
    """The biggest clusters, those of the least similarity, and some at random."""
    clusters = (
        ledger.frame.filter(pl.col("duplicate_survivor").is_not_null())
        .group_by("duplicate_survivor")
        .agg(pl.len().alias("dropped"), pl.col("duplicate_similarity").min().alias("least"))
        .sort("duplicate_survivor")
        .collect()
    )
    sizes = dict(sorted((clusters["dropped"] + 1).value_counts().rows()))
    mixed = clusters.with_columns(draw=_draw(ledger, clusters["duplicate_survivor"]))
    near = mixed.drop_nulls("least").filter(pl.col("least") < 1)
    picked = {
        "The biggest": mixed.sort("dropped", "draw", descending=[True, False]).head(per_group),
        "Confirmed by the least similarity": near.sort("least", "draw").head(per_group),
        "At random": mixed.sort("draw").head(per_group),
    }
    shown: set[str] = set()
    groups = {}
    for title, some in picked.items():
        fresh = some.filter(~pl.col("duplicate_survivor").is_in(list(shown)))
        shown |= set(fresh["duplicate_survivor"])
        groups[title] = _with_texts(ledger, fresh)
    return Clusters(sizes, {title: some for title, some in groups.items() if some})


def _draw(ledger: ReviewLedger, survivors: pl.Series) -> pl.Series:
    """A random key per cluster: that of its survivor, 0 where the survivor is not in the part."""
    keys = pl.DataFrame({"id": ledger.table["id"], "draw": ledger.order}).unique("id", keep="first")
    joined = survivors.to_frame("id").join(keys, on="id", how="left", maintain_order="left")
    return joined["draw"].fill_null(0)


def _with_texts(ledger: ReviewLedger, clusters: pl.DataFrame) -> list[Cluster]:
    survivors = clusters["duplicate_survivor"].to_list()
    texts = document_texts(ledger.folder, survivors, HEAD_CHARACTERS)
    within = pl.col("duplicate_survivor").is_in(survivors)
    rows = (
        ledger.frame.filter(within)
        .select("row", "duplicate_survivor", "duplicate_similarity")
        .sort("duplicate_similarity", "row", nulls_last=True)
        .group_by("duplicate_survivor", maintain_order=True)
        .head(_MEMBERS_SHOWN)
        .collect()
    )
    facts = ledger.facts(rows["row"].to_list())
    urls = dict(ledger.frame.filter(pl.col("id").is_in(survivors)).select("id", "url").collect().rows())
    members = {
        survivor: [facts[row] for row in rows.filter(pl.col("duplicate_survivor") == survivor)["row"]]
        for survivor in survivors
    }
    return [
        Cluster(survivor, urls.get(survivor), texts.get(survivor, ""), num_dropped, members[survivor])
        for survivor, num_dropped in clusters.select("duplicate_survivor", "dropped").rows()
    ]
