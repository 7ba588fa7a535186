"""The answer of `what_if` as text for a terminal."""

from collections.abc import Mapping
from typing import Any

from bessemer.curate.terminal import printable

_MAX_RULES = 8
_MAX_LANGUAGES = 6


def format_what_if(answer: Mapping[str, Any]) -> str:
    """What would change, in the order in which it happens: rules, then duplicates, then documents."""
    kept = answer["kept"]
    lines = [*map(_setting, answer["rules"].items()), ""]
    passing, dropped = answer["newly_passing"], answer["newly_dropped"]
    lines += _side("pass the rules now", passing, "dropped before by")
    lines += _duplicates_among(passing)
    lines += _side("are dropped now that were kept", dropped, "dropped now by")
    lines += _freed(answer)
    low, high = kept["at_least"], kept["at_most"]
    lines += ["", f"documents kept: {kept['before']:,} before, {_range(low, high)} now"]
    lines += [f"  {name:<38} drops {_change(counts)}" for name, counts in _moved(answer)]
    lines += _notes(answer)
    return printable("\n".join(lines))


def _setting(item: tuple[str, Mapping[str, Any]]) -> str:
    name, rule = item
    before, after = _bounds(rule["before"]), _bounds(rule["after"])
    return f"{name}: {before} → {after}" if before != after else f"{name}: {after}, as before"


def _bounds(rule: Mapping[str, Any]) -> str:
    told = " ".join(f"{bound} {rule[bound]:g}" for bound in ("min", "max") if rule[bound] is not None)
    return (told or "on") if rule["enabled"] else f"off ({told})" if told else "off"


def _side(what: str, side: Mapping[str, Any], by: str) -> list[str]:
    lines = [
        f"{side['records']:,} records {what}: {side['characters']:,} characters, "
        f"about {side['tokens']:,} tokens"
    ]
    if side["records"]:
        lines.append(f"  {by}: {_tally(side['by_rule'], _MAX_RULES)}")
        lines.append(f"  languages: {_tally(side['by_language'], _MAX_LANGUAGES)}")
        lines += [
            f"  {row['id'][:12]}  {row['num_characters'] or 0:>8,}  {row['rule']:<32}  {row['url'] or '-'}"
            for row in side["listed"]
        ]
        more = side["records"] - len(side["listed"])
        lines += [f"  … {more:,} more (--limit 0 lists all)"] if more else []
    return lines


def _duplicates_among(passing: Mapping[str, Any]) -> list[str]:
    if not passing["records"]:
        return []
    lines = []
    if passing["url_duplicates"]:
        lines.append(f"  {passing['url_duplicates']:,} of them are captures of a URL that passes already")
    lines.append(
        "  They were never compared with others: at the rate of this run, about "
        f"{passing['expected_duplicates']:,} of them are duplicates. They may also join clusters."
    )
    return lines


def _freed(answer: Mapping[str, Any]) -> list[str]:
    freed, absorbed = answer["freed_duplicates"], answer["duplicates_now_dropped"]
    lines = []
    if absorbed["records"]:
        lines.append(f"{absorbed['records']:,} duplicates would be dropped by a rule already")
    if freed["clusters"]:
        lines.append(
            f"{freed['clusters']:,} duplicate clusters lose members: "
            f"{_range(freed['at_least'], freed['at_most'])} of their other documents would be kept instead"
        )
    return lines


def _moved(answer: Mapping[str, Any]) -> list[tuple[str, Mapping[str, int]]]:
    """Rules that drop another number of records now."""
    return [item for item in answer["dropped_by_rule"].items() if item[1]["before"] != item[1]["after"]]


def _notes(answer: Mapping[str, Any]) -> list[str]:
    notes = []
    for edit in answer["edits"]:
        done = "removed from" if edit["enabled"] else "left in"
        notes.append(
            f"{edit['rule']} edits texts before they are measured, so its verdicts cannot be replayed: "
            f"{edit['characters']:,} characters would be {done} {edit['records']:,} records. "
            "Run again to see."
        )
    if not answer["tokens_measured"]:
        notes.append("Tokens assume 4 characters each: the run has no tokens of these documents yet.")
    if answer["unexplained"]:
        notes.append(
            f"{answer['unexplained']:,} recorded verdicts do not follow from the recorded values and bounds: "
            "the ledger was changed, or made by a version with other rules; trust these numbers less."
        )
    return ["", *notes] if notes else []


def _tally(counts: Mapping[str, int], limit: int) -> str:
    told = ", ".join(f"{name} {count:,}" for name, count in list(counts.items())[:limit])
    return told + (f", {len(counts) - limit} more" if len(counts) > limit else "")


def _range(low: int, high: int) -> str:
    return f"{low:,}" if low == high else f"between {low:,} and {high:,}"


def _change(counts: Mapping[str, int]) -> str:
    return f"{counts['before']:,} → {counts['after']:,}"
