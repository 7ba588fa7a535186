"""Samples as markup: a record with its text, an edit with what it removed, a cluster side by side."""

from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from bessemer.curate.review.gather import HEAD_CHARACTERS, Cluster, EditedRecord
from bessemer.curate.terminal import number, printable
from bessemer.export.markup import Node, join, tag

_CONTEXT_CHARACTERS = 160
_MAX_SPANS = 6
_MAX_SPAN_CHARACTERS = 600
_MAX_URL_CHARACTERS = 300


def record_card(
    facts: Mapping[str, Any], text: str, value_of: str | None = None, value: float | None = None
) -> Markup:
    """A record, why it was chosen, and the head of its text."""
    chips: list[Node] = []
    is_told = facts["dropped_rule"] == value_of and facts["dropped_value"] is not None
    if value_of is not None and value is not None and not is_told:
        chips.append(tag("span", f"{value_of} {number(value)}", class_="chip"))
    return tag(
        "article",
        _heading(facts, chips),
        _text(text) if text else tag("p", "(no text is kept of this record)", class_="muted small"),
        class_="sample",
        tabindex="-1",
    )


def edit_card(record: EditedRecord, rule: str) -> Markup:
    """What a rule removed from a record, struck out within its surroundings."""
    edits = [edit for edit in record.facts["edits"] if edit["rule"] == rule]
    removed = sum(edit["end"] - edit["start"] for edit in edits)
    chips = [tag("span", f"{len(edits):,} removed, {removed:,} characters", class_="chip")]
    note = tag("p", record.problem, class_="warning small") if record.problem else None
    return tag(
        "article",
        _heading(record.facts, chips),
        note,
        _struck_out(record.text, edits) if record.text is not None else None,
        class_="sample",
        tabindex="-1",
    )


def cluster_card(cluster: Cluster) -> Markup:
    """The kept document beside some that were dropped for it; lines that only one side has are marked."""
    heads = [_prepared(cluster.survivor_text), *(_prepared(row["excerpt"] or "") for row in cluster.members)]
    columns = [_column("kept", cluster.survivor_url, cluster.survivor, heads[0], _union(heads[1:]))]
    for row, head in zip(cluster.members, heads[1:], strict=True):
        similarity = row["duplicate_similarity"]
        how = "same URL" if similarity is None else f"similarity {similarity:.3f}"
        if row["duplicate_partner"] not in (None, cluster.survivor):
            how += f" to {row['duplicate_partner'][:12]}"
        columns.append(_column(f"dropped: {how}", row["url"], row["id"], head, _lines(heads[0])))
    more = cluster.num_dropped - len(cluster.members)
    return tag(
        "article",
        tag(
            "p",
            tag("b", f"{cluster.num_dropped + 1:,} documents"),
            f", {more:,} of them not shown" if more else None,
            class_="cluster-size",
        ),
        tag("div", *columns, class_="columns"),
        class_="sample cluster",
        tabindex="-1",
    )


def _heading(facts: Mapping[str, Any], chips: Sequence[Node]) -> Markup:
    language = f"{facts['language'] or 'no language'} {number(facts['language_score'])}"
    told = f"{number(facts['num_characters'])} characters, {language}"
    return tag(
        "header",
        tag("p", _url(facts["url"]), class_="url"),
        tag(
            "p",
            tag("span", _verdict(facts), class_=f"verdict {facts['verdict']}"),
            *chips,
            tag("span", told, class_="muted"),
            tag("code", facts["id"]),
            class_="facts small",
        ),
    )


def _verdict(facts: Mapping[str, Any]) -> str:
    if facts["verdict"] == "kept":
        return "kept"
    parts = [f"dropped: {facts['dropped_rule']}"]
    if facts["dropped_value"] is not None:
        parts.append(number(facts["dropped_value"]))
    if facts["dropped_threshold"] is not None:
        bound = facts["dropped_bound"] or "threshold"
        parts.append(f"({bound} {number(facts['dropped_threshold'])})")
    if facts["detail"] and facts["dropped_stage"] != "rules":
        parts.append(facts["detail"][:200])
    return " ".join(parts)


def _url(url: str | None) -> str:
    return (url or "(no URL)")[:_MAX_URL_CHARACTERS]


def _prepared(text: str) -> str:
    return printable(text[:HEAD_CHARACTERS])


def _text(text: str) -> Markup:
    return tag("pre", _prepared(text), dir="auto")


def _column(label: str, url: str | None, id: str, text: str, other_lines: set[str]) -> Markup:
    lines: list[Node] = []
    for line in text.split("\n"):
        is_common = not line.strip() or line.strip() in other_lines
        lines.append(line if is_common else tag("mark", line))
        lines.append("\n")
    return tag(
        "div",
        tag("p", tag("b", label), class_="small"),
        tag("p", _url(url), Markup(" "), tag("code", id[:12]), class_="url small"),
        tag("pre", *lines[:-1], dir="auto"),
    )


def _lines(text: str) -> set[str]:
    """The lines of a head; its last one may be cut and counts as common only if it is not."""
    return {line.strip() for line in text.split("\n")}


def _union(texts: Sequence[str]) -> set[str]:
    return {line for text in texts for line in _lines(text)}


def _struck_out(text: str, edits: Sequence[Mapping[str, Any]]) -> Markup:
    """Each removed span with the text around it; overlapping surroundings become one passage."""
    passages: list[tuple[int, int]] = []
    shown = sorted((edit["start"], edit["end"]) for edit in edits)[:_MAX_SPANS]
    for start, end in shown:
        low, high = max(start - _CONTEXT_CHARACTERS, 0), min(end + _CONTEXT_CHARACTERS, len(text))
        if passages and low <= passages[-1][1]:
            passages[-1] = (passages[-1][0], max(high, passages[-1][1]))
        else:
            passages.append((low, high))
    blocks = [tag("pre", _passage(text, low, high, shown), dir="auto") for low, high in passages]
    more = len(edits) - len(shown)
    note = tag("p", f"{more:,} more removed", class_="muted small") if more else None
    return join([*blocks, note])


def _passage(text: str, low: int, high: int, spans: Sequence[tuple[int, int]]) -> Markup:
    parts: list[Node] = ["…" if low else None]
    position = low
    for start, end in spans:
        start, end = max(start, position), min(end, high)
        if start >= end:
            continue
        parts.append(printable(text[position:start]))
        parts.append(tag("del", _cut(printable(text[start:end]))))
        position = end
    parts += [printable(text[position:high]), "…" if high < len(text) else None]
    return join(parts)


def _cut(text: str) -> str:
    if len(text) <= _MAX_SPAN_CHARACTERS:
        return text
    half = _MAX_SPAN_CHARACTERS // 2
    return f"{text[:half]} […{len(text) - 2 * half:,} more characters…] {text[-half:]}"
