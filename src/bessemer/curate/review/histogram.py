"""Histograms of rule values with their thresholds, as inline SVG.

Legend: counts [groups, bins] of records kept, dropped by the rule itself, and dropped by something else. The
height of a bar is the square root of its count: tails are where thresholds lie, and would be invisible
beside the bulk.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from bessemer.curate.terminal import number
from bessemer.export.charts import Axis, ticks
from bessemer.export.markup import Node, tag

GROUPS = (("kept", "bar-kept"), ("dropped by this rule", "bar-failed"), ("dropped otherwise", "bar-other"))
_NUM_BINS = 40
_WIDTH, _HEIGHT = 420.0, 190.0
_LEFT, _RIGHT, _TOP, _BOTTOM = 44.0, 12.0, 22.0, 24.0
_LOG_SPREAD = 100.0
"""Values that spread over more than this factor are drawn on a logarithmic axis."""


@dataclass(frozen=True)
class Histogram:
    """Counts by bin; the outer bins also hold what lies beyond the edges."""

    edges: NDArray[np.float64]
    counts: NDArray[np.int64]
    """[groups, bins]."""
    is_logarithmic: bool
    has_less: bool
    """Values lie below the first edge."""
    has_more: bool


def count_values(
    values: NDArray[np.float64], groups: NDArray[np.int64], thresholds: Sequence[float]
) -> Histogram | None:
    """Bins between the 0.5 % and 99.5 % quantiles and the thresholds; None when no value is finite.

    `groups` numbers each value's place in GROUPS.
    """
    finite = np.isfinite(values)
    values, groups = values[finite], groups[finite]
    if not len(values):
        return None
    low, high = np.quantile(values, (0.005, 0.995))
    if low == high:
        low, high = values.min(), values.max()
    low, high = min(low, *thresholds, low), max(high, *thresholds, high)
    is_whole = bool(np.all(values == np.round(values)))
    is_logarithmic = low >= 0 and high > _LOG_SPREAD and float(np.median(values)) * 4 < high
    edges = _edges(float(low), float(high), is_whole, is_logarithmic)
    bins = np.clip(np.searchsorted(edges, values, side="right") - 1, 0, len(edges) - 2)
    flat = np.bincount(groups * (len(edges) - 1) + bins, minlength=len(GROUPS) * (len(edges) - 1))
    return Histogram(
        edges,
        flat.reshape(len(GROUPS), -1),
        is_logarithmic,
        bool(values.min() < edges[0]),
        bool(values.max() > edges[-1]),
    )


def _edges(low: float, high: float, is_whole: bool, is_logarithmic: bool) -> NDArray[np.float64]:
    if is_whole and high - low < _NUM_BINS:
        return np.arange(math.floor(low) - 0.5, math.ceil(high) + 1)
    if is_logarithmic:
        edges = np.expm1(np.linspace(math.log1p(low), math.log1p(high), _NUM_BINS + 1))
        # Bins without a whole number in them would be gaps.
        return np.unique(np.ceil(edges)) - 0.5 if is_whole else edges
    margin = (high - low) * 0.02 or 0.5
    start = low if low == 0 else low - margin
    return np.linspace(start, high + margin, _NUM_BINS + 1)


def draw(histogram: Histogram, name: str, bounds: Sequence[tuple[str, float]], is_enabled: bool) -> Markup:
    """The drawing; `bounds` are (min or max, threshold)."""
    edges, counts = histogram.edges, histogram.counts
    place = np.log1p if histogram.is_logarithmic else np.asarray
    x_axis = Axis(float(place(edges[0])), float(place(edges[-1])), _LEFT, _WIDTH - _RIGHT)
    tallest = math.sqrt(max(int(counts.sum(axis=0).max()), 1))
    y_axis = Axis(0.0, tallest, _HEIGHT - _BOTTOM, _TOP)
    starts = [x_axis.at(float(place(edge))) for edge in edges]
    return tag(
        "svg",
        tag("title", f"{name}: how many records have which value"),
        *_scale(histogram, x_axis, y_axis),
        *(node for bin in range(counts.shape[1]) for node in _bar(histogram, bin, starts, y_axis)),
        *(_threshold(bound, value, x_axis.at(float(place(value))), is_enabled) for bound, value in bounds),
        viewBox=f"0 0 {_WIDTH:g} {_HEIGHT:g}",
        role="img",
        class_="chart histogram",
    )


def _bar(histogram: Histogram, bin: int, starts: Sequence[float], y_axis: Axis) -> list[Markup]:
    """The groups of one bin on top of each other; heights share the square root of the sum."""
    counts = histogram.counts[:, bin].tolist()
    total = sum(counts)
    if not total:
        return []
    height = y_axis.start - y_axis.at(math.sqrt(total))
    left, width = starts[bin], max(starts[bin + 1] - starts[bin] - 0.8, 0.8)
    drawn: list[Node] = [tag("title", _told(histogram, bin, counts))]
    y = y_axis.start
    for count, (_, class_) in zip(counts, GROUPS, strict=True):
        if count:
            # A single record among thousands must still be seen.
            part = max(height * count / total, min(1.5, height))
            y -= part
            drawn.append(tag("rect", x=_f(left), y=_f(y), width=_f(width), height=_f(part), class_=class_))
    return [tag("g", *drawn)]


def _told(histogram: Histogram, bin: int, counts: Sequence[int]) -> str:
    low, high = number(float(histogram.edges[bin])), number(float(histogram.edges[bin + 1]))
    last = histogram.counts.shape[1] - 1
    if bin == 0 and histogram.has_less:
        span = f"below {high}"
    elif bin == last and histogram.has_more:
        span = f"{low} and above"
    else:
        span = f"{low} to {high}"
    parts = [f"{count:,} {name}" for count, (name, _) in zip(counts, GROUPS, strict=True) if count]
    return f"{span}: {', '.join(parts)}"


def _scale(histogram: Histogram, x_axis: Axis, y_axis: Axis) -> list[Markup]:
    drawn = []
    most = y_axis.high**2
    for count in (most / 100, most / 4, most):
        y = y_axis.at(math.sqrt(round(count)))
        if round(count) >= 1:
            drawn.append(
                tag("line", x1=_f(x_axis.start), x2=_f(x_axis.end), y1=_f(y), y2=_f(y), class_="grid")
            )
            drawn.append(tag("text", _short(round(count)), x=_f(_LEFT - 6), y=_f(y + 4), class_="tick end"))
    for value in _x_ticks(histogram):
        place = math.log1p(value) if histogram.is_logarithmic else value
        if x_axis.low <= place <= x_axis.high:
            label = _short(value)
            drawn.append(tag("text", label, x=_f(x_axis.at(place)), y=_f(_HEIGHT - 6), class_="tick middle"))
    return drawn


def _x_ticks(histogram: Histogram) -> list[float]:
    low, high = float(histogram.edges[0]), float(histogram.edges[-1])
    if not histogram.is_logarithmic:
        return ticks(max(low, 0.0) if low > -1 else low, high, 5)
    return [float(10**power) for power in range(math.ceil(math.log10(max(high, 1))) + 1) if 10**power >= low]


def _threshold(bound: str, value: float, x: float, is_enabled: bool) -> Markup:
    label = f"{bound} {number(value)}" + ("" if is_enabled else " (off)")
    is_right = x > _WIDTH * 0.7
    return tag(
        "g",
        tag("line", x1=_f(x), x2=_f(x), y1=_f(_TOP - 8), y2=_f(_HEIGHT - _BOTTOM), class_="threshold"),
        tag(
            "text",
            label,
            x=_f(x + (-4 if is_right else 4)),
            y=_f(_TOP - 8),
            class_="label end" if is_right else "label",
        ),
        class_=None if is_enabled else "off",
    )


def _short(value: float) -> str:
    for size, unit in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:.3g}{unit}"
    return f"{value:.3g}"


def _f(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")
