"""The rules as a ledger recorded them, changed by settings, and judged again from the recorded values.

Rules are read from the ledger, not from this program's table, so that ledgers of other versions answer too.
A rule judges one value, and edits and language come before the rules; so new bounds need nothing but
the values. What cannot be replayed so: edits (they change the text that was measured), and rules whose
values the run did not measure.
"""

import difflib
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Literal

import polars as pl

from bessemer.config import parse_count
from bessemer.errors import BessemerError, ConfigError
from bessemer.formats.ledger import read_rules, scan_ledger

BEFORE_RULES = ("read", "extract", "language", "edit")
"""Stages that drop a document before the rules judge it."""
_SWITCHES = {"on": True, "true": True, "off": False, "false": False}
_SWITCH_ON = {"enabled": True}


@dataclass(frozen=True)
class RecordedRule:
    """A rule of a ledger: a kept document's value lies within the bounds, both inclusive."""

    name: str
    description: str = ""
    min: float | None = None
    max: float | None = None
    enabled: bool = True
    action: str = "drop"
    needs: str | None = None
    """The key of `curate` without which it cannot be switched on."""

    @property
    def judges(self) -> bool:
        """Whether it drops documents."""
        return self.enabled and self.action == "drop"

    def fault(self, value: float) -> tuple[Literal["min", "max"], float] | None:
        """The bound that `value` breaks, and its threshold; None when it passes."""
        if self.min is not None and value < self.min:
            return "min", self.min
        if self.max is not None and value > self.max:
            return "max", self.max
        return None

    def fails(self) -> pl.Expr:
        """Which values of the rule's column break a bound; NaN and null break none, as when curating."""
        value = pl.col(self.name)
        broken = pl.lit(False)
        if self.min is not None:
            broken = broken | (value < self.min)
        if self.max is not None:
            broken = broken | (value > self.max)
        # Polars orders NaN above every number.
        return (broken & value.is_not_nan()).fill_null(False)

    def settings(self) -> dict[str, Any]:
        """What can be set about it."""
        return {"enabled": self.enabled, "min": self.min, "max": self.max}


def recorded_rules(folder: Path) -> dict[str, RecordedRule]:
    """The rules of a ledger by name, in the order in which they were judged. Raises BessemerError."""
    known = {field.name for field in fields(RecordedRule)}
    return {
        name: RecordedRule(name, **{key: value for key, value in facts.items() if key in known - {"name"}})
        for name, facts in read_rules(folder).items()
    }


def with_settings(
    rules: Mapping[str, RecordedRule], settings: Sequence[str]
) -> tuple[dict[str, RecordedRule], dict[str, RecordedRule]]:
    """All rules after the settings, and those among them that a setting names.

    A setting is `NAME.min=5`, `NAME.max=12`, `NAME=on` or `NAME=off`; a name may hold `*`, which matches
    variants (`NAME@datatrove`) only with an `@`. New bounds also switch a rule on, as in a recipe, and a
    pattern that switches on leaves rules that need something else from the config as they are.
    Raises ConfigError that lists every fault.
    """
    changed = dict(rules)
    named: dict[str, None] = {}
    faults = []
    for setting in settings:
        try:
            pattern, change = _parse(setting, rules)
            names = [name for name in rules if _matches(name, pattern)]
            for name in names:
                if not (change == _SWITCH_ON and rules[name].needs and name != pattern):
                    changed[name] = _apply(changed[name], change)
            named |= dict.fromkeys(names)
        except ConfigError as error:
            faults.append(f"{setting}: {error}")
    faults += [
        f"{name}: min {rule.min:g} is above max {rule.max:g}, so no document could pass"
        for name, rule in changed.items()
        if rule.min is not None and rule.max is not None and rule.min > rule.max
    ]
    if faults:
        raise ConfigError("\n  ".join(["these settings do not work:", *faults]))
    return changed, {name: changed[name] for name in rules if name in named}


def _parse(setting: str, rules: Iterable[str]) -> tuple[str, dict[str, Any]]:
    """(name or pattern, fields to replace)."""
    way, equals, value = (part.strip() for part in setting.rpartition("="))
    if not equals or not way:
        raise ConfigError("write it as RULE.max=12, RULE.min=5, RULE=on or RULE=off")
    stem, _, bound = way.rpartition(".")
    if bound in ("min", "max") and way not in rules:
        _check_name(stem, rules)
        return stem, {bound: _number(value), "enabled": True}
    _check_name(way, rules)
    if value.lower() not in _SWITCHES:
        raise ConfigError(f"expected on or off, got {value!r}; bounds are set as {way}.max={value or 12}")
    return way, {"enabled": _SWITCHES[value.lower()]}


def _check_name(pattern: str, rules: Iterable[str]) -> None:
    names = list(rules)
    if any(_matches(name, pattern) for name in names):
        return
    near = difflib.get_close_matches(pattern, names, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(map(repr, near))}?" if near else _families(names)
    raise ConfigError(f"the ledger has no rule {pattern!r}; {hint}")


def _families(names: Iterable[str]) -> str:
    families = sorted({name.partition(".")[0] for name in names})
    known = ", ".join(f"{family}.*" for family in families)
    return f"known: {known}; other settings of curation (languages, duplicates) are no rules: run again"


def _matches(name: str, pattern: str) -> bool:
    """As in a recipe: variants (`NAME@VARIANT`) only by a pattern that has `@` itself."""
    return fnmatchcase(name, pattern) and ("@" in pattern or "@" not in name)


def _number(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        try:
            number = float(str(parse_count(text)))
        except ValueError:
            raise ConfigError(f"expected a number, got {text!r}") from None
    if not math.isfinite(number):
        raise ConfigError(f"expected a finite number, got {text!r}")
    return number


def _apply(rule: RecordedRule, change: Mapping[str, Any]) -> RecordedRule:
    if rule.action != "drop" and {"min", "max"} & set(change):
        raise ConfigError(f"{rule.name} removes text and has no bounds: set it on or off")
    if change.get("enabled") and rule.action == "drop":
        changed = replace(rule, **change)
        if changed.min is None and changed.max is None:
            raise ConfigError(f"{rule.name} has no bound; give it one: {rule.name}.max=…")
        return changed
    return replace(rule, **change)


def replay(folder: Path, rules: Mapping[str, RecordedRule]) -> pl.LazyFrame:
    """The ledger with two more columns.

    `failed_rule`: the first rule that the record's values fail, null where none or the record never came to
    the rules. `is_judged`: whether it came to them.
    Raises BessemerError when a judging rule's values are not in the ledger.
    """
    ledger = scan_ledger(folder)
    columns = set(ledger.collect_schema().names())
    missing = [rule.name for rule in rules.values() if rule.judges and rule.name not in columns]
    if missing:
        raise BessemerError(f"the ledger holds no values of {', '.join(missing)}: {how_to_measure(missing)}")
    is_judged = ~pl.col("dropped_stage").fill_null("").is_in(BEFORE_RULES)
    judging = [rule for rule in rules.values() if rule.judges]
    first = pl.coalesce(
        [*(pl.when(rule.fails()).then(pl.lit(rule.name)) for rule in judging), pl.lit(None, pl.String)]
    )
    return ledger.with_columns(is_judged=is_judged, failed_rule=pl.when(is_judged).then(first))


def how_to_measure(names: Sequence[str]) -> str:
    """What to do about rules without values."""
    options = " ".join(f"--set 'curate.rules.{name}=on'" for name in names[:3])
    return f"run again with {options}, which measures them"
