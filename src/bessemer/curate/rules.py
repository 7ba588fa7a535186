"""The rules: a named value, and the bounds it must lie within (both inclusive).

Values are measured for every document whether its rule is enabled or not, and go to the ledger, so that
another threshold needs no re-run. Definitions and thresholds are published ones:

- `gopher.*`: Rae et al. 2021, "Scaling Language Models", appendix A.1.1. Words are parted by whitespace.
- `c4.*`: Raffel et al. 2020, section 2.2, in the final (TFDS) variant: at least three sentences.
- `fineweb.*`: Penedo et al. 2024, section 3.6, thresholds of the body text. Off by default: they are fitted
  to the text that trafilatura extracts, and reject far more of what other extractors give.

Edits are rules too: their value is the number of characters that they remove, and they drop no document.
`c4.citation_marks` is off by default, for it takes `[0]` and `[]` out of code as well.
"""

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import model_validator

from bessemer.config import Config
from bessemer.errors import ConfigError

Action = Literal["drop", "edit"]


class Bounds(Config):
    """New bounds for a rule; one that is left out keeps its published value."""

    min: float | None = None
    """Least value that is kept."""
    max: float | None = None
    """Greatest value that is kept."""

    @model_validator(mode="after")
    def _in_order(self) -> "Bounds":
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError(f"min {self.min} is above max {self.max}: no document could pass")
        return self


@dataclass(frozen=True)
class Rule:
    """A value by name, and the bounds that a kept document's value lies within."""

    name: str
    description: str
    min: float | None = None
    max: float | None = None
    enabled: bool = True
    action: Action = "drop"

    def fault(self, value: float) -> tuple[Literal["min", "max"], float] | None:
        """The bound that `value` breaks, and its threshold; None when it passes."""
        if self.min is not None and value < self.min:
            return "min", self.min
        if self.max is not None and value > self.max:
            return "max", self.max
        return None

    def fails(self, values: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Elementwise: which values break a bound."""
        failed = np.zeros(len(values), np.bool_)
        if self.min is not None:
            failed |= values < self.min
        if self.max is not None:
            failed |= values > self.max
        return failed


RULES: tuple[Rule, ...] = (
    Rule("c4.javascript_lines", "characters in lines that mention javascript", action="edit"),
    Rule("c4.policy_lines", "characters in lines about cookies, terms and privacy policies", action="edit"),
    Rule("c4.long_word_lines", "characters in lines with a word above 1,000 characters", action="edit"),
    Rule("c4.citation_marks", "characters in marks such as [12] and [edit]", enabled=False, action="edit"),
    Rule("gopher.word_count", "words", min=50, max=100_000),
    Rule("gopher.mean_word_length", "characters per word", min=3, max=10),
    Rule("gopher.hash_ratio", "hash signs per word", max=0.1),
    Rule("gopher.ellipsis_ratio", "ellipses per word", max=0.1),
    Rule("gopher.bullet_lines", "fraction of lines that start with a bullet", max=0.9),
    Rule("gopher.ellipsis_lines", "fraction of lines that end with an ellipsis", max=0.3),
    Rule("gopher.alphabetic_words", "fraction of words with a letter", min=0.8),
    Rule("gopher.stop_words", "distinct words of: the be to of and that have with", min=2),
    Rule("gopher.duplicate_lines", "fraction of lines that repeat an earlier one", max=0.30),
    Rule("gopher.duplicate_paragraphs", "fraction of paragraphs that repeat an earlier one", max=0.30),
    Rule("gopher.duplicate_line_characters", "fraction of characters in such lines", max=0.20),
    Rule("gopher.duplicate_paragraph_characters", "fraction of characters in such paragraphs", max=0.20),
    Rule("gopher.top_2_gram", "fraction of characters in the most frequent 2-gram", max=0.20),
    Rule("gopher.top_3_gram", "fraction of characters in the most frequent 3-gram", max=0.18),
    Rule("gopher.top_4_gram", "fraction of characters in the most frequent 4-gram", max=0.16),
    Rule("gopher.duplicate_5_grams", "fraction of characters in repeated 5-grams", max=0.15),
    Rule("gopher.duplicate_6_grams", "fraction of characters in repeated 6-grams", max=0.14),
    Rule("gopher.duplicate_7_grams", "fraction of characters in repeated 7-grams", max=0.13),
    Rule("gopher.duplicate_8_grams", "fraction of characters in repeated 8-grams", max=0.12),
    Rule("gopher.duplicate_9_grams", "fraction of characters in repeated 9-grams", max=0.11),
    Rule("gopher.duplicate_10_grams", "fraction of characters in repeated 10-grams", max=0.10),
    Rule("c4.sentences", "sentences, counted line by line", min=3),
    Rule("c4.curly_bracket", "opening curly brackets", max=0),
    Rule("c4.lorem_ipsum", "mentions of lorem ipsum", max=0),
    Rule("fineweb.terminal_lines", "fraction of lines that end a sentence", min=0.12, enabled=False),
    Rule("fineweb.duplicate_line_characters", "as gopher's, tighter bound", max=0.10, enabled=False),
    Rule("fineweb.short_lines", "fraction of lines below 30 characters", max=0.67, enabled=False),
    Rule("fineweb.newlines_per_word", "newlines per word", max=0.3, enabled=False),
)
"""In the order in which they are judged: the first that fails is named as the one that dropped."""

RULE_NAMES: tuple[str, ...] = tuple(rule.name for rule in RULES)
DROP_RULES: tuple[str, ...] = tuple(rule.name for rule in RULES if rule.action == "drop")


def apply_settings(settings: Mapping[str, bool | Bounds]) -> tuple[Rule, ...]:
    """RULES with a recipe's settings applied in order: on, off, or new bounds (which also switch on).

    A name may hold `*` (`fineweb.*`). Raises ConfigError that lists every fault.
    """
    rules = {rule.name: rule for rule in RULES}
    faults = []
    for pattern, setting in settings.items():
        names = [name for name in RULE_NAMES if fnmatchcase(name, pattern)]
        if not names:
            faults.append(f"unknown rule {pattern!r}{_nearest(pattern)}")
        for name in names:
            rule = rules[name]
            if isinstance(setting, bool):
                rules[name] = replace(rule, enabled=setting)
            elif rule.action == "edit":
                faults.append(f"{name} removes text and has no bounds: set it on or off")
            else:
                rules[name] = replace(rule, enabled=True, **setting.model_dump(exclude_none=True))
                faults += _fault_of(rules[name])
    if faults:
        raise ConfigError("curate.rules: " + "; ".join(faults))
    return tuple(rules.values())


def _fault_of(rule: Rule) -> list[str]:
    if rule.min is not None and rule.max is not None and rule.min > rule.max:
        return [f"{rule.name}: min {rule.min:g} is above max {rule.max:g}, so no document could pass"]
    return []


def _nearest(pattern: str) -> str:
    near = difflib.get_close_matches(pattern, RULE_NAMES, n=1, cutoff=0.0)
    return f" (nearest: {near[0]!r})" if near else ""


def describe(rules: Iterable[Rule]) -> dict[str, dict[str, Any]]:
    """Rules as plain data, for the ledger: name → description, min, max, enabled, action."""
    return {
        rule.name: {
            "description": rule.description,
            "min": rule.min,
            "max": rule.max,
            "enabled": rule.enabled,
            "action": rule.action,
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
