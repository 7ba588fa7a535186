"""Which records the page shows: at random, and on both sides of a threshold."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from bessemer.curate.replay import RecordedRule
from bessemer.curate.review.ledger import ReviewLedger


@dataclass(frozen=True)
class Chosen:
    """Rows of one group of samples, in the order in which they are shown."""

    title: str
    rows: Sequence[int]
    value_of: str | None = None
    """The column whose value explains the choice."""
    values: Sequence[float] = ()


@dataclass
class RuleSamples:
    """Everything that is shown of one rule."""

    name: str
    num_dropped: int
    """Records that this rule dropped, being the first that they failed."""
    num_failing: int
    """Records of the part that came to the rules and break its bounds, whether it is on or not."""
    groups: list[Chosen] = field(default_factory=list)


def sample_rule(ledger: ReviewLedger, rule: RecordedRule, num_dropped: int, per_group: int) -> RuleSamples:
    """Random records that the rule dropped, and those with values just beyond and just within its bounds.

    Of a rule that is off, those that would fail take the place of those that were dropped.
    """
    values = ledger.values(rule.name)
    judged = ledger.is_judged() & ~np.isnan(values)
    fails = judged & _fails(values, rule)
    samples = RuleSamples(rule.name, num_dropped, int(fails.sum()))
    dropped = _dropped_by(ledger, rule.name) if rule.enabled else fails
    is_kept = (ledger.table["verdict"] == "kept").to_numpy()
    for bound, threshold in (("min", rule.min), ("max", rule.max)):
        if threshold is None:
            continue
        beyond = fails & (values < threshold if bound == "min" else values > threshold)
        verb = "Just below the least" if bound == "min" else "Just above the greatest"
        _add(
            samples, f"{verb}, {threshold:g}", _nearest(ledger, beyond, values, threshold, per_group), values
        )
        within = judged & ~fails & is_kept
        title = f"Kept, just within {bound} {threshold:g}"
        _add(samples, title, _nearest(ledger, within, values, threshold, per_group), values)
    # Last, so that where few were dropped they stand beside the threshold; shown first.
    title = "Dropped, at random" if rule.enabled else "Would be dropped, at random"
    _add(samples, title, _random(ledger, dropped, per_group + _shown(samples)), values, per_group)
    if samples.groups and samples.groups[-1].title == title:
        samples.groups.insert(0, samples.groups.pop())
    return samples


def sample_reason(ledger: ReviewLedger, name: str, num_dropped: int, per_group: int) -> RuleSamples:
    """Random records that something other than a rule on a value dropped."""
    samples = RuleSamples(name, num_dropped, num_dropped)
    dropped = _dropped_by(ledger, name)
    _add(samples, "Dropped, at random", _random(ledger, dropped, per_group), np.zeros(0))
    if name == "language.score":
        scores = ledger.values("language_score")
        is_kept = (ledger.table["verdict"] == "kept").to_numpy()
        _add(samples, "Just below the least score", _extreme(ledger, dropped, -scores, per_group), scores)
        _add(samples, "Kept with the lowest scores", _extreme(ledger, is_kept, scores, per_group), scores)
    return samples


def _fails(values: NDArray[np.float64], rule: RecordedRule) -> NDArray[np.bool_]:
    failed = np.zeros(len(values), np.bool_)
    if rule.min is not None:
        failed |= values < rule.min
    if rule.max is not None:
        failed |= values > rule.max
    return failed


def _dropped_by(ledger: ReviewLedger, name: str) -> NDArray[np.bool_]:
    return (ledger.table["dropped_rule"].fill_null("") == name).to_numpy()


def _random(ledger: ReviewLedger, which: NDArray[np.bool_], count: int) -> list[int]:
    return _extreme(ledger, which, np.zeros(len(which)), count)


def _nearest(
    ledger: ReviewLedger, which: NDArray[np.bool_], values: NDArray[np.float64], threshold: float, count: int
) -> list[int]:
    return _extreme(ledger, which, np.abs(values - threshold), count)


def _extreme(
    ledger: ReviewLedger, which: NDArray[np.bool_], distances: NDArray[np.float64], count: int
) -> list[int]:
    """The rows of least distance; equal ones in random order."""
    rows = np.flatnonzero(which)
    order = np.lexsort((rows, ledger.order[rows], distances[rows]))
    return rows[order[:count]].tolist()


def _shown(samples: RuleSamples) -> int:
    return sum(len(group.rows) for group in samples.groups)


def _add(
    samples: RuleSamples,
    title: str,
    rows: Sequence[int],
    values: NDArray[np.float64],
    limit: int | None = None,
) -> None:
    """Append a group of the rows that no earlier group shows, unless none is left."""
    shown = {row for group in samples.groups for row in group.rows}
    fresh = [row for row in rows if row not in shown][:limit]
    if fresh:
        told = [float(values[row]) for row in fresh] if len(values) else []
        samples.groups.append(Chosen(title, fresh, samples.name, told))
