"""The rules of curation: named values with bounds, by the publication that they come from.

Values are measured for every document whether its rule is enabled or not (but for those on demand), and go to
the ledger, so that another threshold needs no re-run. A name with `@` is a variant: the same rule as one
publication or tool defines it, to the letter. docs/rules.md has the table.
"""

from collections.abc import Mapping

from bessemer.curate.rules import bigscience, c4, fineweb, gopher, refinedweb
from bessemer.curate.rules.rule import Action, Bounds, Rule
from bessemer.curate.rules.settings import apply_settings_to, describe, failed_rules

__all__ = [
    "DROP_RULES",
    "RULES",
    "RULE_NAMES",
    "Action",
    "Bounds",
    "Rule",
    "apply_settings",
    "describe",
    "failed_rules",
]

RULES: tuple[Rule, ...] = (
    *c4.EDITS,
    *refinedweb.EDITS,
    *gopher.RULES,
    *c4.RULES,
    *fineweb.RULES,
    *refinedweb.RULES,
    *bigscience.RULES,
    *gopher.VARIANTS,
    *c4.VARIANTS,
    *fineweb.VARIANTS,
)
"""In the order in which they are judged: the first that fails is named as the one that dropped."""

RULE_NAMES: tuple[str, ...] = tuple(rule.name for rule in RULES)
DROP_RULES: tuple[str, ...] = tuple(rule.name for rule in RULES if rule.action == "drop")


def apply_settings(settings: Mapping[str, bool | Bounds]) -> tuple[Rule, ...]:
    """RULES with a recipe's settings applied; see `settings.apply_settings_to`. Raises ConfigError."""
    return apply_settings_to(RULES, settings)
