"""Two curated artifacts side by side: settings, funnels, and what became of each document in both.

Documents are the same where their ids are: the same URL with the same content. A page that was fetched
again with another content is another document; where only the URL is the same the difference says so.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import polars as pl

from bessemer.curate.replay import RecordedRule, recorded_rules
from bessemer.curate.whereabouts import curate_config
from bessemer.formats.ledger import scan_ledger

MAX_LISTED = 10
_FACTS = ("num_characters", "language", "language_score")
"""Facts that are compared like values: other ones mean that extraction or identification changed."""
_IDENTITY = ("id", "url", "verdict", "dropped_stage", "dropped_rule", "num_characters", "language")


def compare(before: Path, after: Path, max_listed: int | None = MAX_LISTED) -> dict[str, Any]:
    """What differs between two artifacts, as plain data for JSON.

    `settings` and `rules`: those that differ, each with `before` and `after` (null where one run has none).
    `funnel`: reason → records in both runs. `kept_only_before`, `kept_only_after`: documents, characters,
    `by_reason` (why the other run does not keep it: a rule, `content changed`, `not collected`), and up to
    `max_listed` documents (None: all). `values`: rule or fact → documents whose value differs, of those
    `compared`, with the mean change of numbers. Raises BessemerError when one has no ledger.
    """
    rules = recorded_rules(before), recorded_rules(after)
    frames = scan_ledger(before), scan_ledger(after)
    documents = _documents(frames[0]), _documents(frames[1])
    return {
        "records": {"before": documents[0].height, "after": documents[1].height},
        "kept": {"before": _num_kept(documents[0]), "after": _num_kept(documents[1])},
        "settings": _different_settings(before, after),
        "rules": _different_rules(*rules),
        "funnel": _funnel(*documents),
        "kept_only_before": _kept_only(documents[0], documents[1], max_listed),
        "kept_only_after": _kept_only(documents[1], documents[0], max_listed),
        **_different_values(*frames),
    }


def _documents(ledger: pl.LazyFrame) -> pl.DataFrame:
    return ledger.select(_IDENTITY).collect()


def _num_kept(documents: pl.DataFrame) -> int:
    return int((documents["verdict"] == "kept").sum())


def _different_settings(before: Path, after: Path) -> dict[str, dict[str, Any]]:
    """Settings of the curate stage but the rules, which are compared as they took effect."""
    configs = [
        {name: value for name, value in _flat(curate_config(folder)) if name.partition(".")[0] != "rules"}
        for folder in (before, after)
    ]
    names = sorted(set(configs[0]) | set(configs[1]))
    return {
        name: {"before": configs[0].get(name), "after": configs[1].get(name)}
        for name in names
        if configs[0].get(name) != configs[1].get(name)
    }


def _flat(config: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    """Settings by dotted names: nested ones are compared one by one."""
    pairs: list[tuple[str, Any]] = []
    for name, value in config.items():
        if isinstance(value, Mapping) and value:
            pairs += _flat(value, f"{prefix}{name}.")
        else:
            pairs.append((prefix + name, value))
    return pairs


def _different_rules(
    before: Mapping[str, RecordedRule], after: Mapping[str, RecordedRule]
) -> dict[str, dict[str, Any]]:
    differing = {}
    for name in {**before, **after}:
        old = before[name].settings() if name in before else None
        new = after[name].settings() if name in after else None
        if old != new:
            differing[name] = {"before": old, "after": new}
    return differing


def _funnel(before: pl.DataFrame, after: pl.DataFrame) -> dict[str, dict[str, int]]:
    """Reason (or `kept`) → records, from the most frequent; every reason that either run had."""
    counts = [
        dict(each.select(pl.col("dropped_rule").fill_null("kept"))["dropped_rule"].value_counts().rows())
        for each in (before, after)
    ]
    names = sorted(
        set(counts[0]) | set(counts[1]),
        key=lambda name: (name != "kept", -max(counts[0].get(name, 0), counts[1].get(name, 0)), name),
    )
    return {name: {"before": counts[0].get(name, 0), "after": counts[1].get(name, 0)} for name in names}


def _kept_only(these: pl.DataFrame, others: pl.DataFrame, max_listed: int | None) -> dict[str, Any]:
    """Documents that these keep and the others do not, with what the others say of them."""
    kept = these.filter(pl.col("verdict") == "kept").unique("id", keep="first", maintain_order=True)
    kept_ids = others.filter(pl.col("verdict") == "kept").select("id").unique()
    lost = kept.join(kept_ids, on="id", how="anti", maintain_order="left")
    reasons = others.select("id", pl.col("dropped_rule").alias("reason")).unique(
        "id", keep="first", maintain_order=True
    )
    urls = others.select("url", pl.lit("content changed").alias("other")).drop_nulls("url").unique("url")
    told = (
        lost.join(reasons, on="id", how="left", maintain_order="left")
        .join(urls, on="url", how="left", maintain_order="left")
        .with_columns(reason=pl.coalesce("reason", "other", pl.lit("not collected")))
    )
    by_reason = sorted(told["reason"].value_counts().rows(), key=lambda pair: (-pair[1], pair[0]))
    listed = told.select("id", "url", "num_characters", "language", "reason")
    return {
        "documents": told.height,
        "characters": int(told["num_characters"].sum() or 0),
        "by_reason": dict(by_reason),
        "listed": (listed if max_listed is None else listed.head(max_listed)).to_dicts(),
    }


def _different_values(before: pl.LazyFrame, after: pl.LazyFrame) -> dict[str, Any]:
    """`compared`: documents in both; `values`: what of them differs; `not_in_both`: columns of one run only.

    A value that only one of the runs measured counts as different.
    """
    fixed = set(_IDENTITY) | set(_FACTS)
    columns = [
        {name for name, type in frame.collect_schema().items() if type.is_float() or name in fixed}
        for frame in (before, after)
    ]
    derived = {"dropped_value", "dropped_threshold", "duplicate_similarity"}
    names = sorted((columns[0] & columns[1]) - (set(_IDENTITY) - set(_FACTS)) - derived)
    first = [
        frame.select("id", *names).unique("id", keep="first", maintain_order=True)
        for frame in (before, after)
    ]
    both = first[0].join(first[1], on="id", how="inner", suffix="\0after")
    sums = [pl.len().alias("\0compared")]
    schema = before.collect_schema()
    for name in names:
        old, new = pl.col(name), pl.col(f"{name}\0after")
        differs = old.ne_missing(new)
        sums.append(differs.sum().alias(name))
        if schema[name].is_numeric():
            sums.append((new - old).filter(differs).mean().alias(f"{name}\0mean"))
    [totals] = both.select(sums).collect().to_dicts()
    values = {
        name: {"documents": totals[name], "mean_change": totals.get(f"{name}\0mean")}
        for name in names
        if totals[name]
    }
    only = sorted((columns[0] ^ columns[1]) - fixed - derived)
    return {"compared": totals["\0compared"], "values": values, "not_in_both": only}
