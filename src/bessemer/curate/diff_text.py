"""The answer of `compare` as text for a terminal."""

from collections.abc import Mapping
from typing import Any

from bessemer.curate.terminal import number, printable

_MAX_REASONS = 12


def format_comparison(answer: Mapping[str, Any], names: tuple[str, str]) -> str:
    """Settings, funnel, documents kept by one only, values; `names` are those of the two runs."""
    lines = [f"{'':<40} {names[0]:>16} {names[1]:>16}"]
    for label in ("records", "kept"):
        lines.append(_row(label, answer[label]))
    lines += [_row(f"dropped by {name}", pair) for name, pair in answer["funnel"].items() if name != "kept"]
    lines += _different("settings", {**answer["settings"], **_told_rules(answer["rules"])})
    for side, name in (("kept_only_before", names[0]), ("kept_only_after", names[1])):
        lines += _kept_only(answer[side], name)
    lines += _values(answer)
    return printable("\n".join(lines))


def _row(label: str, pair: Mapping[str, int]) -> str:
    change = pair["after"] - pair["before"]
    told = f"  {change:+,}" if change else ""
    return f"{label:<40} {pair['before']:>16,} {pair['after']:>16,}{told}"


def _told_rules(rules: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, str]]:
    return {name: {side: _bounds(pair[side]) for side in ("before", "after")} for name, pair in rules.items()}


def _bounds(rule: Mapping[str, Any] | None) -> str:
    if rule is None:
        return "(no such rule)"
    told = " ".join(f"{bound} {number(rule[bound])}" for bound in ("min", "max") if rule[bound] is not None)
    return (told or "on") if rule["enabled"] else f"off {told}".strip()


def _different(what: str, pairs: Mapping[str, Mapping[str, Any]]) -> list[str]:
    if not pairs:
        return ["", f"the same {what}"]
    told = [f"  {name:<38} {pair['before']} → {pair['after']}" for name, pair in pairs.items()]
    return ["", f"different {what}", *told]


def _kept_only(side: Mapping[str, Any], name: str) -> list[str]:
    lines = ["", f"{side['documents']:,} documents only {name} keeps: {side['characters']:,} characters"]
    reasons = list(side["by_reason"].items())
    lines += [f"  {count:>8,}  {reason}" for reason, count in reasons[:_MAX_REASONS]]
    if len(reasons) > _MAX_REASONS:
        lines.append(f"  {sum(count for _, count in reasons[_MAX_REASONS:]):>8,}  other reasons")
    lines += [f"    {row['id'][:12]}  {row['reason']:<32}  {row['url'] or '-'}" for row in side["listed"]]
    return lines


def _values(answer: Mapping[str, Any]) -> list[str]:
    compared = answer["compared"]
    if not answer["values"]:
        lines = ["", f"all values of the {compared:,} documents in both are equal"]
    else:
        lines = ["", f"of {compared:,} documents in both, the value differs for"]
        for name, change in answer["values"].items():
            mean = (
                f", by {change['mean_change']:+.4g} on average" if change["mean_change"] is not None else ""
            )
            lines.append(f"  {change['documents']:>8,}  {name}{mean}")
    if answer["not_in_both"]:
        lines.append(f"measured by one run only: {', '.join(answer['not_in_both'])}")
    return lines
