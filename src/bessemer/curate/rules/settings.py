"""From a recipe's settings to the rules in force, and from values to the rules that a document fails."""

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bessemer.curate.rules.rule import VARIANT, Bounds, Rule
from bessemer.errors import ConfigError


def apply_settings_to(rules: Sequence[Rule], settings: Mapping[str, bool | Bounds]) -> tuple[Rule, ...]:
    """The rules with a recipe's settings applied in order: on, off, or new bounds (which also switch on).

    A name may hold `*` (`fineweb.*`); a pattern means variants only when it names one (`gopher.*@datatrove`),
    and leaves rules that need something else from the config (a word list) as they are when it switches on.
    Raises ConfigError that lists every fault.
    """
    changed = {rule.name: rule for rule in rules}
    faults = []
    for pattern, setting in settings.items():
        names = matching(changed, pattern)
        if not names:
            faults.append(f"unknown rule {pattern!r}{_nearest(pattern, list(changed))}")
        for name in names:
            rule = changed[name]
            if isinstance(setting, bool):
                if not (setting and rule.needs and name != pattern):
                    changed[name] = replace(rule, enabled=setting)
            elif rule.action == "edit":
                faults.append(f"{name} removes text and has no bounds: set it on or off")
            else:
                changed[name] = replace(rule, enabled=True, **setting.model_dump())
                faults += _fault_of(changed[name])
    if faults:
        raise ConfigError("curate.rules: " + "; ".join(faults))
    return tuple(changed.values())


def matching(names: Iterable[str], pattern: str) -> list[str]:
    """The rule names that a pattern of a recipe means."""
    return [
        name for name in names if fnmatchcase(name, pattern) and (VARIANT in pattern or VARIANT not in name)
    ]


def _fault_of(rule: Rule) -> list[str]:
    if rule.min is not None and rule.max is not None and rule.min > rule.max:
        return [f"{rule.name}: min {rule.min:g} is above max {rule.max:g}, so no document could pass"]
    return []


def _nearest(pattern: str, names: Sequence[str]) -> str:
    near = difflib.get_close_matches(pattern, names, n=1, cutoff=0.0)
    return f" (nearest: {near[0]!r})" if near else ""


def describe(rules: Iterable[Rule]) -> dict[str, dict[str, Any]]:
    """Rules as plain data, for the ledger: name → description, min, max, enabled, action, needs."""
    return {
        rule.name: {
            "description": rule.description,
            "min": rule.min,
            "max": rule.max,
            "enabled": rule.enabled,
            "action": rule.action,
            "needs": rule.needs,
        }
        for rule in rules
    }


def failed_rules(rules: Sequence[Rule], values: Mapping[str, NDArray[np.float64]]) -> list[list[Rule]]:
    """Per document, the enabled rules that its values fail, in the order of judgement."""
    judged = [rule for rule in rules if rule.enabled and rule.action == "drop"]
    num_documents = len(next(iter(values.values()), np.zeros(0)))
    failed: list[list[Rule]] = [[] for _ in range(num_documents)]
    for rule in judged:
        for document in np.flatnonzero(rule.fails(values[rule.name])):
            failed[document].append(rule)
    return failed
