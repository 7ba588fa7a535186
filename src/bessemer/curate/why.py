"""Why a document was kept or dropped: everything that the ledger knows about it."""

import difflib
from pathlib import Path
from typing import Any

import polars as pl

from bessemer.curate.rules import Rule
from bessemer.errors import BessemerError
from bessemer.formats.ledger import LEDGER_FIELDS, read_rules, scan_ledger

_MIN_PREFIX = 4
_MAX_SHOWN = 5


def explain(artifact_folder: Path, document: str) -> dict[str, Any]:
    """What became of a document, found by id, a prefix of it (4 digits or more), or URL.

    Returns plain data for JSON: `document`, and `records`, one entry for each record of the ledger that
    matches (a page captured twice has two), with its facts, `rules` (name, value, min, max, enabled,
    passed), `edits`, and `duplicate` (survivor and partner with their URLs, similarity) where it is one.
    Raises BessemerError, which names the nearest URLs, when there is none, or when a prefix fits several
    ids.
    """
    ledger = scan_ledger(artifact_folder)
    rows = _find(ledger, document)
    rules = read_rules(artifact_folder)
    return {"document": document, "records": [_explain_row(row, rules, ledger) for row in rows]}


def _find(ledger: pl.LazyFrame, document: str) -> list[dict[str, Any]]:
    wanted = document.strip()
    prefix = wanted.lower() if len(wanted) >= _MIN_PREFIX else None
    matches = (pl.col("id") == wanted) | (pl.col("url") == wanted)
    if prefix is not None:
        matches = matches | pl.col("id").str.starts_with(prefix)
    rows = ledger.filter(matches).collect().to_dicts()
    if not rows:
        raise BessemerError(f"no record of {document!r} in the ledger.{_nearest(ledger, wanted)}")
    ids = sorted({row["id"] for row in rows})
    if len(ids) > 1 and all(row["url"] != wanted for row in rows):
        listed = "\n  ".join(f"{row['id']}  {row['url']}" for row in rows[:_MAX_SHOWN])
        raise BessemerError(f"{document!r} is the start of {len(ids)} ids; give more digits:\n  {listed}")
    return rows


def _nearest(ledger: pl.LazyFrame, wanted: str) -> str:
    urls = ledger.select(pl.col("url").drop_nulls().unique().sort()).collect()["url"].to_list()
    within = [url for url in urls if wanted.lower() in url.lower()]
    near = within or difflib.get_close_matches(wanted, urls, n=_MAX_SHOWN, cutoff=0.4)
    return " Nearest:\n  " + "\n  ".join(near[:_MAX_SHOWN]) if near else ""


def _explain_row(row: dict[str, Any], rules: dict[str, Any], ledger: pl.LazyFrame) -> dict[str, Any]:
    facts = {field.name: row[field.name] for field in LEDGER_FIELDS}
    duplicate = None
    if facts["duplicate_survivor"] is not None:
        duplicate = {
            "survivor": facts["duplicate_survivor"],
            "survivor_url": _url_of(ledger, facts["duplicate_survivor"]),
            "partner": facts["duplicate_partner"],
            "partner_url": _url_of(ledger, facts["duplicate_partner"]),
            "similarity": facts["duplicate_similarity"],
        }
    verdicts = [_explain_rule(name, rule, row[name]) for name, rule in rules.items()]
    return facts | {"duplicate": duplicate, "rules": verdicts}


def _explain_rule(name: str, rule: dict[str, Any], value: float | None) -> dict[str, Any]:
    passed = None
    if value is not None and rule["action"] == "drop":
        passed = Rule(name=name, **rule).fault(value) is None
    return {"name": name, "value": value, **rule, "passed": passed}


def _url_of(ledger: pl.LazyFrame, id: str) -> str | None:
    urls = ledger.filter(pl.col("id") == id).select("url").head(1).collect()["url"].to_list()
    return urls[0] if urls else None


def format_explanation(explanation: dict[str, Any]) -> str:
    """The explanation as text for a terminal."""
    return "\n\n".join(_format_record(record) for record in explanation["records"])


def _format_record(record: dict[str, Any]) -> str:
    lines = [
        f"{record['url'] or '(no URL)'}",
        f"  id         {record['id']}",
        f"  title      {record['title'] or '-'}",
        f"  record     {record['file']} at {record['offset']:,}, {record['record_type'] or 'damaged'}, "
        f"{record['content_type'] or '-'}, {record['fetched_at'] or '-'}",
        f"  text       {_number(record['num_characters'])} characters, {_number(record['num_bytes'])} bytes",
        f"  language   {record['language'] or '-'} {_number(record['language_score'])}",
        f"  verdict    {record['verdict']}{_because(record)}",
    ]
    duplicate = record["duplicate"]
    if duplicate is not None:
        lines.append(f"  duplicate  of {duplicate['survivor_url']} ({duplicate['survivor']})")
        if duplicate["similarity"] is not None:
            lines.append(f"             {duplicate['similarity']:.3f} similar to {duplicate['partner_url']}")
    if record["edits"]:
        edits = ", ".join(f"{edit['rule']} {edit['start']}-{edit['end']}" for edit in record["edits"][:8])
        more = f", {len(record['edits']) - 8} more" if len(record["edits"]) > 8 else ""
        lines.append(f"  edits      {edits}{more}")
    if any(rule["value"] is not None for rule in record["rules"]):
        lines.append("  rules")
        lines += [_format_rule(rule) for rule in record["rules"]]
    return "\n".join(lines)


def _because(record: dict[str, Any]) -> str:
    if record["dropped_rule"] is None:
        return ""
    parts = [f" by {record['dropped_rule']}"]
    if record["dropped_value"] is not None:
        parts.append(f": {_number(record['dropped_value'])}")
    if record["dropped_threshold"] is not None:
        bound = f"{record['dropped_bound']} " if record["dropped_bound"] else "threshold "
        parts.append(f" ({bound}{_number(record['dropped_threshold'])})")
    if record["detail"]:
        parts.append(f" - {record['detail']}")
    return "".join(parts)


def _format_rule(rule: dict[str, Any]) -> str:
    bounds = " ".join(
        f"{bound} {_number(rule[bound])}" for bound in ("min", "max") if rule[bound] is not None
    )
    if rule["action"] == "edit":
        mark = "edit" if rule["enabled"] else "off"
    elif not rule["enabled"]:
        mark = "off" if rule["passed"] else "off, would fail"
    else:
        mark = "pass" if rule["passed"] else "FAIL"
    return f"    {rule['name']:<38} {_number(rule['value']):>12}  {bounds:<20} {mark}"


def _number(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{int(value):,}" if float(value).is_integer() else f"{value:.4g}"
