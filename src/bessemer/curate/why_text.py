"""The answer of `explain` as text for a terminal."""

from collections.abc import Mapping
from typing import Any

from bessemer.curate.terminal import number, one_line, printable

_MAX_EDITS = 12


def format_explanation(explanation: Mapping[str, Any]) -> str:
    """Every record, from where it lies to where it ended."""
    return printable("\n\n".join(map(_format_record, explanation["records"])))


def _format_record(record: Mapping[str, Any]) -> str:
    lines = [
        f"{record['url'] or '(no URL)'}",
        f"  id         {record['id']}",
        f"  title      {record['title'] or '-'}",
        f"  record     {record['file']} at {record['offset']:,}, {record['record_type'] or 'damaged'}, "
        f"{record['content_type'] or '-'}, {record['fetched_at'] or '-'}",
        f"  text       {number(record['num_characters'])} characters, {number(record['num_bytes'])} bytes",
        *_extractor(record),
        f"  language   {record['language'] or '-'} {number(record['language_score'])}{_second(record)}",
        f"  verdict    {record['verdict']}{_because(record)}",
        *_duplicate(record["duplicate"]),
        *_stands_for(record["stands_for"]),
        *_whereabouts(record),
        *_edits(record),
    ]
    if any(rule["value"] is not None for rule in record["rules"]):
        lines.append("  rules")
        lines += map(_format_rule, record["rules"])
    return "\n".join(lines)


def _because(record: Mapping[str, Any]) -> str:
    if record["dropped_rule"] is None:
        return ""
    parts = [f" by {record['dropped_rule']}"]
    if record["dropped_value"] is not None:
        parts.append(f": {number(record['dropped_value'])}")
    if record["dropped_threshold"] is not None:
        bound = f"{record['dropped_bound']} " if record["dropped_bound"] else "threshold "
        parts.append(f" ({bound}{number(record['dropped_threshold'])})")
    if record["detail"]:
        parts.append(f" - {record['detail']}")
    return "".join(parts)


def _extractor(record: Mapping[str, Any]) -> list[str]:
    """Nothing where there was no choice, or the ledger is older than the choice."""
    if record.get("extractor_reason") is None:
        return []
    return [f"  extractor  {record['extractor']}: {record['extractor_reason']}"]


def _second(record: Mapping[str, Any]) -> str:
    if record.get("second_language") is None:
        return ""
    return f", {record['second_language_share']:.0%} of it {record['second_language']}"


def _duplicate(duplicate: Mapping[str, Any] | None) -> list[str]:
    if duplicate is None:
        return []
    others = duplicate["cluster_size"] - 1
    told = f", which stands for {others:,} dropped {'duplicate' if others == 1 else 'duplicates'}"
    lines = [f"  duplicate  of {duplicate['survivor_url']} ({duplicate['survivor']}){told}"]
    if duplicate["similarity"] is not None:
        lines.append(f"             {duplicate['similarity']:.3f} similar to {duplicate['partner_url']}")
    return lines


def _stands_for(duplicates: Mapping[str, Any] | None) -> list[str]:
    if duplicates is None:
        return []
    listed = duplicates["listed"]
    lines = [f"  stands for {duplicates['documents']:,} dropped as duplicates"]
    for row in listed:
        similarity = "-" if row["similarity"] is None else f"{row['similarity']:.3f}"
        lines.append(f"    {row['rule']:<26} {similarity:>9}  {row['url'] or row['id']}")
    more = duplicates["documents"] - len(listed)
    return [*lines, f"    … {more:,} more"] if more else lines


def _whereabouts(record: Mapping[str, Any]) -> list[str]:
    lines = [f"  document   {place['file']}, row {place['row']:,}" for place in record["documents"]]
    lines += [
        f"  tokens     {place['stage']}: {place['file']}, {place['start']:,} to {place['end']:,} "
        f"({place['end'] - place['start']:,} tokens, {place['split']})"
        for place in record["tokens"]
    ]
    return lines


def _edits(record: Mapping[str, Any]) -> list[str]:
    edits = record["edits"]
    if not edits:
        return []
    lines = [f"  edits      {len(edits):,} ({record['original']})"]
    for edit in edits[:_MAX_EDITS]:
        removed = f"  {one_line(edit['text'])!r}" if edit["text"] is not None else ""
        lines.append(f"    {edit['rule']:<26} {edit['start']:>9,} to {edit['end']:,}{removed}")
    if len(edits) > _MAX_EDITS:
        lines.append(f"    … {len(edits) - _MAX_EDITS:,} more (--json lists all)")
    return lines


def _format_rule(rule: Mapping[str, Any]) -> str:
    bounds = " ".join(f"{bound} {number(rule[bound])}" for bound in ("min", "max") if rule[bound] is not None)
    if rule["action"] == "edit":
        mark = "edit" if rule["enabled"] else "off"
    elif rule["value"] is None:
        mark = "not measured" if rule["enabled"] else "off, not measured"
    elif not rule["enabled"]:
        mark = "off" if rule["passed"] else "off, would fail"
    else:
        mark = "pass" if rule["passed"] else "FAIL"
    return f"    {rule['name']:<38} {number(rule['value']):>12}  {bounds:<20} {mark}"
