"""Charts as inline SVG: pure functions from numbers to markup. Colours come from the page's style.

Legend: a point is (x, y) in data units; the drawing is in user units of the viewBox, y downwards.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from markupsafe import Markup

from bessemer.export.markup import tag
from bessemer.runner.progress import compact

Point = tuple[float, float]

_WIDTH, _HEIGHT = 640.0, 260.0
_LEFT, _RIGHT, _TOP, _BOTTOM = 56.0, 14.0, 12.0, 40.0
_MAX_POINTS = 400
_MAX_TOOLTIPS = 60


@dataclass(frozen=True)
class Axis:
    """Maps data to drawing along one direction."""

    low: float
    high: float
    start: float
    end: float

    def at(self, value: float) -> float:
        """Place of a value in user units."""
        return self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start)


def line_chart(points: Sequence[Point], *, x_label: str, y_label: str, is_noisy: bool = False) -> Markup:
    """One quantity over another, x from 0; a noisy one as its moving average over faint raw values.

    Points that are not finite are left out; fewer than two give a sentence instead of a drawing.
    """
    finite = [point for point in points if all(map(math.isfinite, point))]
    if len(finite) < 2:
        return tag("p", f"{y_label}: fewer than two values were logged.", class_="muted")
    ys = [y for _, y in finite]
    averages = moving_average(ys, smoothing(len(ys))) if is_noisy else ys
    trend = [(x, y) for (x, _), y in zip(finite, averages, strict=True)]
    y_ticks = ticks(*_visible_range(ys, [y for _, y in trend]))
    x_ticks = ticks(0, finite[-1][0])
    x_axis = Axis(0, max(finite[-1][0], 1e-9), _LEFT, _WIDTH - _RIGHT)
    y_axis = Axis(y_ticks[0], y_ticks[-1], _HEIGHT - _BOTTOM, _TOP)
    raw = _path(thinned(finite), x_axis, y_axis, "raw") if is_noisy else None
    return tag(
        "svg",
        tag("title", f"{y_label} over {x_label}"),
        *_grid(x_ticks, y_ticks, x_axis, y_axis),
        tag("text", x_label, x=_f((_LEFT + _WIDTH - _RIGHT) / 2), y=_f(_HEIGHT - 4), class_="label middle"),
        raw,
        _path(thinned(trend), x_axis, y_axis, "trend"),
        _dots(trend, x_axis, y_axis) if len(trend) <= 12 else None,
        *_tooltips(finite, trend, x_axis, x_label, y_label, shows_both=is_noisy),
        viewBox=f"0 0 {_WIDTH:g} {_HEIGHT:g}",
        role="img",
        class_="chart",
    )


def bar_chart(rows: Sequence[tuple[str, float, str, str]], *, label: str) -> Markup:
    """Horizontal bars: rows of (name, value, tooltip, style class); each bar states its value."""
    step, width, name_width, value_width = 24.0, 480.0, 225.0, 55.0
    largest = max((value for _, value, _, _ in rows), default=0) or 1
    height = step * len(rows)
    axis = Axis(0, largest, name_width + 8, width - value_width)
    drawn = []
    for number, (name, value, tooltip, class_) in enumerate(rows):
        y = number * step
        end = axis.at(value)
        length = max(end - axis.start, 1.5 if value else 0.0)
        drawn.append(
            tag(
                "g",
                tag("title", tooltip),
                tag("text", name, x=_f(name_width), y=_f(y + 16), class_="label end"),
                tag(
                    "rect",
                    x=_f(axis.start),
                    y=_f(y + 4),
                    width=_f(length),
                    height="15",
                    rx="2",
                    class_=class_,
                ),
                tag("text", f"{value:,.0f}", x=_f(axis.start + length + 6), y=_f(y + 16), class_="label"),
            )
        )
    return tag(
        "svg",
        tag("title", label),
        *drawn,
        viewBox=f"0 0 {width:g} {height:g}",
        role="img",
        class_="chart bars",
    )


def interval_chart(rows: Sequence[tuple[str, float, float, float]], *, label: str) -> Markup:
    """Shares between 0 and 1 with intervals: rows of (name, value, low, high), a dot on a whisker."""
    step, name_width, foot = 28.0, 130.0, 22.0
    height = step * len(rows) + foot
    axis = Axis(0.0, 1.0, name_width + 14, _WIDTH - 30)
    drawn = [
        tag(
            "g",
            tag("line", x1=_f(axis.at(x)), x2=_f(axis.at(x)), y1="0", y2=_f(height - foot), class_="grid"),
            tag("text", f"{x:.0%}", x=_f(axis.at(x)), y=_f(height - 6), class_="tick middle"),
        )
        for x in (0.0, 0.25, 0.5, 0.75, 1.0)
    ]
    for number, (name, value, low, high) in enumerate(rows):
        y = number * step + step / 2
        whisker = {"x1": _f(axis.at(low)), "x2": _f(axis.at(high)), "y1": _f(y), "y2": _f(y)}
        is_known = math.isfinite(value)
        told = f"{value:.1%}, 95 % interval {low:.1%} to {high:.1%}" if is_known else "nothing was asked"
        drawn.append(
            tag(
                "g",
                tag("title", f"{name}: {told}"),
                tag("text", name, x=_f(name_width), y=_f(y + 4), class_="label end"),
                tag("line", **whisker, class_="whisker") if is_known else None,
                tag("circle", cx=_f(axis.at(value)), cy=_f(y), r="5", class_="dot") if is_known else None,
            )
        )
    return tag(
        "svg", tag("title", label), *drawn, viewBox=f"0 0 {_WIDTH:g} {height:g}", role="img", class_="chart"
    )


def ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Round values (1, 2 or 5 times a power of ten apart) that cover [low, high], about `count`."""
    if not high > low:
        low, high = low - 0.5, high + 0.5
    rough = (high - low) / count
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * m for m in (1, 2, 5, 10) if power * m >= rough * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [number * step for number in range(first, last + 1)]


def smoothing(count: int) -> float:
    """Decay of the moving average for so many values: it spans a 25th of them, and 25 at most, so that
    short curves are not dragged and long ones are calm."""
    return 1 - 1 / min(max(count / 25, 1.0), 25.0)


def moving_average(values: Sequence[float], decay: float) -> list[float]:
    """Exponential moving average with the start-up bias divided out (Kingma & Ba 2015, section 3)."""
    average, weight, averages = 0.0, 0.0, []
    for value in values:
        average = decay * average + (1 - decay) * value
        weight = decay * weight + (1 - decay)
        averages.append(average / weight)
    return averages


def thinned(points: Sequence[Point], limit: int = _MAX_POINTS) -> list[Point]:
    """At most `limit` points, evenly spaced, the first and the last included."""
    return [points[number] for number in evenly(len(points), limit)]


def _visible_range(raw: Sequence[float], trend: Sequence[float]) -> tuple[float, float]:
    """Everything, but for a top that only single raw values reach: they would flatten the rest."""
    ordered = sorted(raw)
    usual = ordered[min(len(ordered) - 1, math.ceil(0.995 * len(ordered)))]
    return min(ordered[0], *trend), max(usual, *trend)


def _grid(x_ticks: Sequence[float], y_ticks: Sequence[float], x_axis: Axis, y_axis: Axis) -> list[Markup]:
    drawn = []
    for y in y_ticks:
        place = _f(y_axis.at(y))
        drawn.append(tag("line", x1=_f(x_axis.start), x2=_f(x_axis.end), y1=place, y2=place, class_="grid"))
        drawn.append(tag("text", _tick(y), x=_f(x_axis.start - 8), y=_f(y_axis.at(y) + 4), class_="tick end"))
    for x in x_ticks:
        if x_axis.low <= x <= x_axis.high:
            drawn.append(
                tag("text", _tick(x), x=_f(x_axis.at(x)), y=_f(y_axis.start + 16), class_="tick middle")
            )
    return drawn


def _path(points: Sequence[Point], x_axis: Axis, y_axis: Axis, class_: str) -> Markup:
    places = (f"{_f(x_axis.at(x))} {_f(max(y_axis.at(y), y_axis.end))}" for x, y in points)
    return tag("path", d="M" + "L".join(places), class_=class_)


def _dots(points: Sequence[Point], x_axis: Axis, y_axis: Axis) -> Markup:
    return tag(
        "g",
        *(tag("circle", cx=_f(x_axis.at(x)), cy=_f(y_axis.at(y)), r="3", class_="dot") for x, y in points),
    )


def _tooltips(
    raw: Sequence[Point],
    trend: Sequence[Point],
    x_axis: Axis,
    x_label: str,
    y_label: str,
    *,
    shows_both: bool,
) -> list[Markup]:
    """Invisible strips side by side over the drawing, each telling the values in its middle."""
    chosen = evenly(len(raw), _MAX_TOOLTIPS)
    middles = [x_axis.at(raw[number][0]) for number in chosen]
    edges = [x_axis.start, *((a + b) / 2 for a, b in pairwise(middles)), x_axis.end]
    strips = []
    for number, (start, end) in zip(chosen, pairwise(edges), strict=True):
        told = f"{compact(raw[number][0])} {x_label}: {y_label} {trend[number][1]:.4g}"
        if shows_both:
            told += f" (this step {raw[number][1]:.4g})"
        strips.append(
            tag(
                "rect",
                tag("title", told),
                x=_f(start),
                y=_f(_TOP),
                width=_f(end - start),
                height=_f(_HEIGHT - _TOP - _BOTTOM),
                class_="hover",
            )
        )
    return strips


def evenly(count: int, limit: int) -> list[int]:
    """At most `limit` numbers below `count`, evenly spaced, with both ends."""
    if count <= limit:
        return list(range(count))
    return [round(i * (count - 1) / (limit - 1)) for i in range(limit)]


def _tick(value: float) -> str:
    return "0" if value == 0 else compact(value)


def _f(value: float) -> str:
    """A coordinate with as many digits as can be seen."""
    return f"{value:.1f}".removesuffix(".0")
