"""The parts of the review page."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup

from bessemer.curate.replay import RecordedRule
from bessemer.curate.review import tables
from bessemer.curate.review.cards import cluster_card, edit_card, record_card
from bessemer.curate.review.gather import HEAD_CHARACTERS, Clusters, EditedRecord
from bessemer.curate.review.histogram import GROUPS, count_values, draw
from bessemer.curate.review.ledger import ReviewLedger
from bessemer.curate.review.samples import RuleSamples
from bessemer.curate.whereabouts import document_texts
from bessemer.export.charts import bar_chart
from bessemer.export.markup import Node, section, tag
from bessemer.export.markup import table as html_table

_MAX_BARS = 24
_MAX_SOURCES = 30


def funnel_section(ledger: ReviewLedger) -> Markup:
    """What entered, what each reason dropped in the order of judgement, and what was kept."""
    drops = tables.funnel(ledger)
    entered = ledger.num_records
    kept = entered - sum(count for _, _, count in drops)
    rest = sum(count for _, _, count in drops[_MAX_BARS:])
    rows = [("entered", float(entered), f"{entered:,} records", "bar-total")]
    rows += [
        (name, float(count), f"{stage}: {count:,} records, {count / max(entered, 1):.1%}", "bar")
        for stage, name, count in drops[:_MAX_BARS]
    ]
    if rest:
        rows.append((f"{len(drops) - _MAX_BARS} more reasons", float(rest), f"{rest:,} records", "bar"))
    rows.append(("kept", float(kept), f"{kept:,} records, {kept / max(entered, 1):.1%}", "bar-kept"))
    return section(
        "funnel",
        "Funnel",
        tag("figure", bar_chart(rows, label="Records by what became of them"), class_="panel"),
        lead=(
            f"{entered:,} records entered and {kept:,} were kept. Steps stand in the order of judgement; a "
            "record counts for the first reason that applies."
        ),
    )


def sources_section(ledger: ReviewLedger) -> Markup:
    """What became of the records of each source."""
    rows, num_more = tables.by_column(ledger, "source", _MAX_SOURCES)
    steps = range(1, 1 + len(tables.STEP_NAMES))
    told = [
        [
            name[:100],
            *(f"{counts[step]:,}" if step == 0 or counts[step] else "" for step in (0, *steps)),
            f"{counts[-2]:,}",
            f"{counts[-2] / counts[0]:.0%}",
            f"{counts[-1]:,}",
        ]
        for name, counts in rows
    ]
    headings = ["source", "entered", *tables.STEP_NAMES, "kept", "share", "characters kept"]
    more = tag("p", f"{num_more:,} more are not shown.", class_="muted small") if num_more else None
    lead = "How many records each step dropped. Characters are those of the extracted text, before edits."
    return section("sources", "Sources", html_table(headings, told, class_="figures"), more, lead=lead)


def values_section(ledger: ReviewLedger) -> Markup:
    """A histogram for every rule, with its thresholds."""
    judged = ledger.is_judged()
    is_kept = (ledger.table["verdict"] == "kept").to_numpy()
    reasons = ledger.table["dropped_rule"].fill_null("")
    figures = []
    for rule in ledger.rules.values():
        groups = np.where(is_kept, 0, np.where((reasons == rule.name).to_numpy(), 1, 2))[judged]
        figures.append(_figure(rule, ledger.values(rule.name)[judged], groups))
    key = tag(
        "p",
        *(tag("span", tag("i", class_=f"swatch {class_}"), name) for name, class_ in GROUPS),
        class_="key small",
    )
    note = (
        "" if ledger.is_whole else f" Drawn from {ledger.table.height:,} of {ledger.num_records:,} records."
    )
    lead = (
        "Every rule's value for all records that came to the rules; the line is the threshold. Heights are "
        f"square roots of counts, so that tails can be seen.{note}"
    )
    return section("values", "Values", key, tag("div", *figures, class_="charts"), lead=lead)


def _figure(rule: RecordedRule, values: np.ndarray, groups: np.ndarray) -> Markup:
    bounds = [(bound, limit) for bound, limit in (("min", rule.min), ("max", rule.max)) if limit is not None]
    histogram = count_values(values, groups, [limit for _, limit in bounds])
    if histogram is None:
        drawn: Node = tag("p", "The run did not measure this value.", class_="muted small")
    elif float(np.nanmin(values)) == float(np.nanmax(values)):
        told = " ".join(f"{bound} {limit:g}" for bound, limit in bounds) or "no bound"
        drawn = tag("p", f"{values[0]:g} for all of {len(values):,} records ({told}).", class_="muted small")
    else:
        drawn = draw(histogram, rule.name, bounds, rule.enabled)
    state = None if rule.enabled else tag("span", "off", class_="chip")
    name = tag("b", rule.name)
    # Edits have samples in a section of their own.
    link = tag("a", name, href=f"#{anchor(rule.name)}") if rule.action == "drop" else name
    caption = tag("figcaption", tag("p", link, Markup(" "), state), tag("span", rule.description))
    return tag("figure", caption, drawn, class_="panel", id=f"value-{anchor(rule.name)}")


def anchor(name: str) -> str:
    """An id for a rule's samples, of letters, digits and hyphens."""
    return "rule-" + "".join(char if char.isalnum() and char.isascii() else "-" for char in name)


def samples_section(ledger: ReviewLedger, samples: Sequence[RuleSamples]) -> Markup:
    """Records of every rule, folded; j and k unfold them as they go."""
    facts = ledger.facts([row for each in samples for group in each.groups for row in group.rows])
    kept_ids = [row["id"] for row in facts.values() if row["verdict"] == "kept"]
    texts = document_texts(ledger.folder, kept_ids, HEAD_CHARACTERS)
    return section(
        "samples",
        "Samples by rule",
        *(_rule_details(ledger, each, facts, texts) for each in samples),
        lead="Of every rule some records that it dropped, and those nearest to its threshold on both sides.",
    )


def _rule_details(
    ledger: ReviewLedger,
    samples: RuleSamples,
    facts: Mapping[int, Mapping[str, Any]],
    texts: Mapping[str, str],
) -> Markup:
    rule = ledger.rules.get(samples.name)
    is_on = rule is None or rule.enabled
    told = f"dropped {samples.num_dropped:,}" if is_on else f"off; {samples.num_failing:,} would fail"
    parts: list[Node] = []
    for group in samples.groups:
        parts.append(tag("h3", group.title))
        for place, row in enumerate(group.rows):
            each = facts[row]
            text = texts.get(each["id"], "") if each["verdict"] == "kept" else each["excerpt"] or ""
            value = group.values[place] if group.values else None
            parts.append(record_card(each, text, group.value_of, value))
    if not samples.groups:
        parts.append(tag("p", "No record came near.", class_="muted small"))
    summary = [tag("b", samples.name), tag("span", f" {told}", class_="muted")]
    if rule is not None and rule.description:
        summary.append(tag("span", f" {rule.description}", class_="muted small"))
    return tag("details", tag("summary", *summary), *parts, id=anchor(samples.name), class_="rule")


def edits_section(edited: Mapping[str, Sequence[EditedRecord]]) -> Markup | None:
    """Before and after: what the edits took out, struck out where it stood."""
    if not edited:
        return None
    details = [
        tag(
            "details",
            tag("summary", tag("b", name), tag("span", f" {len(records)} shown", class_="muted")),
            *(edit_card(record, name) for record in records),
            class_="rule",
        )
        for name, records in edited.items()
    ]
    lead = "Text that the editing rules removed is struck out. It is read again from the pages and checked."
    return section("edits", "Edits", *details, lead=lead)


def clusters_section(clusters: Clusters) -> Markup | None:
    """Duplicate clusters: sizes, and texts side by side."""
    if not clusters.sizes:
        return None
    sizes = html_table(
        ("documents in a cluster", "clusters"),
        [[f"{size:,}", f"{count:,}"] for size, count in list(clusters.sizes.items())[:20]],
        class_="figures narrow",
    )
    more = len(clusters.sizes) - 20
    note = (
        tag("p", f"{more:,} more sizes, up to {max(clusters.sizes):,}.", class_="small") if more > 0 else None
    )
    groups = [
        tag(
            "details",
            tag("summary", tag("b", title), tag("span", f" {len(some)} clusters", class_="muted")),
            *map(cluster_card, some),
            class_="rule",
        )
        for title, some in clusters.groups.items()
    ]
    lead = "The head of the document that was kept beside those dropped for it; lines that differ are marked."
    return section("duplicates", "Duplicate clusters", sizes, note, *groups, lead=lead)


def run_name(folder: Path) -> str:
    """`quickstart:curate` for `runs/quickstart/curate`."""
    return f"{folder.resolve().parent.name}:{folder.name}"
