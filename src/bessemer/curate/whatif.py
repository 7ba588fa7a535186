"""What other rule settings would have kept and dropped, from the ledger alone.

Verdicts of the rules are exact: a run with these settings gives the same. What deduplication would make of
them is not in the ledger, so the documents kept in the end come as bounds.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from bessemer.curate.freed import Freed, freed_duplicates
from bessemer.curate.replay import (
    RecordedRule,
    how_to_measure,
    recorded_rules,
    replay,
    with_settings,
)
from bessemer.curate.whereabouts import TokenRate, curate_config, token_rate
from bessemer.errors import BessemerError
from bessemer.formats.duplicate_pairs import DUPLICATE_PAIRS_STEM, scan_duplicate_pairs

MAX_LISTED = 10
_TOP_SOURCES = 15
_FACTS = (
    "id",
    "url",
    "title",
    "source",
    "language",
    "record_type",
    "num_characters",
    "dropped_rule",
    "duplicate_survivor",
)


def what_if(folder: Path, settings: Sequence[str], max_listed: int | None = MAX_LISTED) -> dict[str, Any]:
    """What would change under other settings (see `with_settings`), as plain data for JSON.

    `newly_passing`: records that a rule dropped and none would drop; `newly_dropped`: kept documents that
    a rule would drop; `duplicates_now_dropped`: dropped duplicates that a rule would drop before they are
    compared. Each has counts, characters (of the extracted text), tokens (estimated), and up to
    `max_listed` records (None: all) in the order of the ledger. `kept` bounds the documents in the end.
    Raises ConfigError for settings that do not work, BessemerError when the ledger cannot answer.
    """
    before = recorded_rules(folder)
    after, named = with_settings(before, settings)
    records = replay(folder, after)
    counts, changed = _collect(records, [rule for rule in named.values() if rule.judges])
    rate = token_rate(folder)
    passing = changed.filter(pl.col("change") == "passes")
    dropped = changed.filter(pl.col("change") == "drops")
    absorbed = changed.filter(pl.col("change") == "absorbs")
    freed = _freed(folder, records, changed)
    num_kept = _count(counts, pl.col("dropped_stage").is_null())
    url_duplicates = _url_duplicates(folder, records, passing)
    at_most = num_kept - dropped.height + freed.at_most + passing.height - url_duplicates
    duplicate_share = _duplicate_share(counts)
    return {
        "settings": list(settings),
        "rules": {
            name: {"before": before[name].settings(), "after": rule.settings()}
            for name, rule in named.items()
        },
        "records": int(counts["len"].sum()),
        "kept": {
            "before": num_kept,
            "at_least": num_kept - dropped.height + freed.at_least,
            "at_most": at_most,
        },
        "newly_passing": _side(passing, "dropped_rule", rate, max_listed)
        | {
            "url_duplicates": url_duplicates,
            "expected_duplicates": round((passing.height - url_duplicates) * duplicate_share)
            + url_duplicates,
        },
        "newly_dropped": _side(dropped, "failed_rule", rate, max_listed),
        "duplicates_now_dropped": _side(absorbed, "failed_rule", rate, max_listed),
        "freed_duplicates": {
            "clusters": freed.num_clusters,
            "at_least": freed.at_least,
            "at_most": freed.at_most,
        },
        "dropped_by_rule": _by_rule(counts, before),
        "edits": _edits(records, before, named),
        "tokens_per_character": rate.tokens_per_character,
        "tokens_measured": rate.is_measured,
        "unexplained": _unexplained(folder, before),
    }


def _collect(records: pl.LazyFrame, judging: Sequence[RecordedRule]) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Counts by what dropped a record before and now, and the records that change sides."""
    changes = records.with_columns(change=_change())
    measured = [pl.col(rule.name).is_not_null().any().alias(rule.name) for rule in judging]
    counts, changed, has_values = pl.collect_all(
        [
            changes.group_by("dropped_stage", "dropped_rule", "failed_rule").agg(pl.len()),
            changes.filter(pl.col("change").is_not_null()).select(*_FACTS, "failed_rule", "change"),
            records.filter("is_judged").select(pl.len().alias("len"), *measured),
        ]
    )
    unmeasured = [rule.name for rule in judging if not has_values[rule.name].item()]
    if unmeasured and has_values["len"].item():
        raise BessemerError(f"the run did not measure {', '.join(unmeasured)}: {how_to_measure(unmeasured)}")
    return counts, changed


def _change() -> pl.Expr:
    was_dropped_by_rule = pl.col("dropped_stage").eq_missing("rules")
    fails = pl.col("failed_rule").is_not_null()
    return (
        pl.when(~pl.col("is_judged"))
        .then(None)
        .when(was_dropped_by_rule & ~fails)
        .then(pl.lit("passes"))
        .when(pl.col("dropped_stage").is_null() & fails)
        .then(pl.lit("drops"))
        .when(pl.col("dropped_stage").eq_missing("duplicates") & fails)
        .then(pl.lit("absorbs"))
    )


def _count(counts: pl.DataFrame, which: pl.Expr) -> int:
    return int(counts.filter(which)["len"].sum())


def _side(records: pl.DataFrame, rule: str, rate: TokenRate, max_listed: int | None) -> dict[str, Any]:
    """Counts and a list of the records of one change; `rule` is the column that explains it."""
    characters = int(records["num_characters"].sum() or 0)
    listed = records.select("id", "url", "title", "num_characters", pl.col(rule).alias("rule"))
    return {
        "records": records.height,
        "characters": characters,
        "tokens": round(characters * rate.tokens_per_character),
        "by_rule": _tally(records, rule),
        "by_language": _tally(records, "language"),
        "by_source": dict(list(_tally(records, "source").items())[:_TOP_SOURCES]),
        "listed": (listed if max_listed is None else listed.head(max_listed)).to_dicts(),
    }


def _tally(records: pl.DataFrame, column: str) -> dict[str, int]:
    """Value → records, from the most frequent."""
    pairs = records[column].fill_null("(none)").value_counts().rows()
    return dict(sorted(pairs, key=lambda pair: (-pair[1], pair[0])))


def _by_rule(counts: pl.DataFrame, rules: Mapping[str, Any]) -> dict[str, dict[str, int]]:
    """Rule → records that it dropped before, and would drop now; only rules where either is not 0."""
    by_rules = pl.col("dropped_stage").eq_missing("rules")
    before = dict(counts.filter(by_rules).group_by("dropped_rule").agg(pl.col("len").sum()).rows())
    after = dict(
        counts.filter(pl.col("failed_rule").is_not_null())
        .group_by("failed_rule")
        .agg(pl.col("len").sum())
        .rows()
    )
    names = [name for name in rules if name in before or name in after]
    return {name: {"before": before.get(name, 0), "after": after.get(name, 0)} for name in names}


def _freed(folder: Path, records: pl.LazyFrame, changed: pl.DataFrame) -> Freed:
    leaving = changed.filter(pl.col("change") != "passes")
    if leaving.is_empty():
        return Freed(0, 0, 0)
    survivors = pl.concat(
        [
            leaving.filter(pl.col("change") == "drops")["id"],
            leaving.filter(pl.col("change") == "absorbs")["duplicate_survivor"],
        ]
    ).unique()
    members = (
        records.filter(pl.col("duplicate_survivor").is_in(survivors.implode()))
        .select("id", "dropped_rule", "duplicate_survivor", "duplicate_partner")
        .collect()
    )
    return freed_duplicates(members.to_dicts(), set(leaving["id"]), _pairs_among(folder, members, survivors))


def _pairs_among(folder: Path, members: pl.DataFrame, survivors: pl.Series) -> list[tuple[str, str]]:
    """Confirmed near duplicates among the members of some clusters; none when they were not looked for."""
    if not any(folder.glob(f"{DUPLICATE_PAIRS_STEM}-*.parquet")):
        return []
    known = pl.concat([members["id"], survivors]).unique().implode()
    is_among = pl.col("id_a").is_in(known) & pl.col("id_b").is_in(known)
    return scan_duplicate_pairs(folder).filter(is_among).select("id_a", "id_b").collect().rows()


def _url_duplicates(folder: Path, records: pl.LazyFrame, passing: pl.DataFrame) -> int:
    """Newly passing records that URL deduplication is sure to drop, or to let replace another."""
    if passing.is_empty() or not curate_config(folder).get("url_duplicates", False):
        return 0
    is_capture = (pl.col("record_type") != "resource") & pl.col("url").str.contains("^https?://")
    urls = passing.filter(is_capture)["url"]
    known = (
        records.filter(
            is_capture
            & pl.col("failed_rule").is_null()
            & pl.col("is_judged")
            & ~pl.col("dropped_stage").eq_missing("rules")
            & pl.col("url").is_in(urls.unique().implode())
        )
        .select(pl.col("url").unique())
        .collect()["url"]
    )
    num_known = int(urls.unique().is_in(known.implode()).sum())
    return len(urls) - urls.n_unique() + num_known


def _duplicate_share(counts: pl.DataFrame) -> float:
    """Share of the records that passed the rules and were then dropped as duplicates."""
    num_duplicates = _count(counts, pl.col("dropped_stage").eq_missing("duplicates"))
    num_passed = num_duplicates + _count(counts, pl.col("dropped_stage").is_null())
    return num_duplicates / num_passed if num_passed else 0.0


def _edits(
    records: pl.LazyFrame, before: Mapping[str, RecordedRule], named: Mapping[str, RecordedRule]
) -> list[dict[str, Any]]:
    """Edit rules that are switched: the records whose text would change; no verdict is predicted of it."""
    switched = [
        rule for rule in named.values() if rule.action == "edit" and rule.enabled != before[rule.name].enabled
    ]
    if not switched:
        return []
    sums = records.select(
        *((pl.col(rule.name) > 0).sum().alias(f"{rule.name}:records") for rule in switched),
        *(pl.col(rule.name).sum().alias(f"{rule.name}:characters") for rule in switched),
    ).collect()
    return [
        {
            "rule": rule.name,
            "enabled": rule.enabled,
            "records": int(sums[f"{rule.name}:records"].item()),
            "characters": int(sums[f"{rule.name}:characters"].item()),
        }
        for rule in switched
    ]


def _unexplained(folder: Path, rules: Mapping[str, RecordedRule]) -> int:
    """Records whose recorded verdict is not what the recorded values and bounds give: 0 in a sound ledger."""
    recorded = pl.when(pl.col("dropped_stage").eq_missing("rules")).then(pl.col("dropped_rule"))
    differs = pl.col("is_judged") & recorded.ne_missing(pl.col("failed_rule"))
    return int(replay(folder, rules).select(differs.sum()).collect().item() or 0)
