"""Markup and charts: nothing slips through unescaped, and what is drawn is where the numbers say."""

import math
from html.parser import HTMLParser
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bessemer.export.charts import (
    bar_chart,
    evenly,
    interval_chart,
    line_chart,
    moving_average,
    smoothing,
    ticks,
)
from bessemer.export.markup import tag

TEXTS = st.text(st.characters(exclude_categories=("Cc", "Cs")))
FLOATS = st.floats(-1e9, 1e9)


class Reader(HTMLParser):
    """An independent reading of markup: start tags with attributes, and the text."""

    def __init__(self, markup: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(markup)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


@given(TEXTS, TEXTS)
def test_a_parser_reads_back_any_text_and_attribute_and_no_other_tag(text: str, value: str) -> None:
    read = Reader(tag("p", text, title=value))
    assert read.tags == [("p", {"title": value})]
    assert read.text == text


@pytest.mark.parametrize("attack", ["<script>x</script>", '" onload="x', "</svg><b>", "&lt;"])
def test_names_in_charts_are_text(attack: str) -> None:
    charts = [
        bar_chart([(attack, 3, attack, "bar")], label=attack),
        interval_chart([(attack, 0.5, 0.4, 0.6)], label=attack),
        line_chart([(0, 1), (1, 2)], x_label=attack, y_label=attack),
    ]
    for chart in charts:
        root = ElementTree.fromstring(chart)
        assert any(element.text and attack in element.text for element in root.iter())
        assert {element.tag for element in root.iter()} <= {
            "svg",
            "g",
            "title",
            "text",
            "rect",
            "line",
            "path",
            "circle",
        }


@given(FLOATS, FLOATS)
def test_ticks_cover_the_range_at_a_round_distance(a: float, b: float) -> None:
    low, high = min(a, b), max(a, b)
    if high - low < 1e-6 * max(1, abs(low), abs(high)):
        return
    marks = ticks(low, high)
    step = marks[1] - marks[0]
    assert marks[0] <= low + 1e-6 * step
    assert marks[-1] >= high - 1e-6 * step
    assert np.allclose(np.diff(marks), step, rtol=1e-6)
    mantissa = step / 10 ** math.floor(math.log10(step) + 1e-9)
    assert min(abs(mantissa - m) for m in (1, 2, 5, 10)) < 1e-3
    assert 2 <= len(marks) <= 8


def test_ticks_of_a_single_value_surround_it() -> None:
    marks = ticks(3.0, 3.0)
    assert marks[0] < 3 < marks[-1]


def test_the_moving_average_weighs_the_past_by_powers_of_the_decay() -> None:
    values, decay = [3.0, 1.0, 4.0, 1.0, 5.0], 0.8
    expected = []
    for end in range(1, 6):
        weights = decay ** np.arange(end)[::-1]
        expected.append(np.average(values[:end], weights=weights))
    assert moving_average(values, decay) == pytest.approx(expected)


def test_smoothing_leaves_short_curves_as_they_are() -> None:
    assert smoothing(10) == 0.0
    assert 0.9 < smoothing(10_000) < 1


def test_evenly_takes_both_ends_and_no_number_twice() -> None:
    for count in (1, 2, 7, 60, 61, 1000):
        chosen = evenly(count, 60)
        assert (chosen[0], chosen[-1]) == (0, count - 1)
        assert len(set(chosen)) == len(chosen) == min(count, 60)


def _places(chart: str, class_: str) -> list[tuple[float, float]]:
    path = next(e for e in ElementTree.fromstring(chart).iter("path") if e.get("class") == class_)
    pairs = [point.split() for point in (path.get("d") or "").removeprefix("M").split("L")]
    return [(float(x), float(y)) for x, y in pairs]


def test_a_line_falls_where_its_values_fall_and_stays_inside() -> None:
    points = [(float(step), 5.0 - 0.04 * step) for step in range(100)]
    places = _places(line_chart(points, x_label="tokens", y_label="loss"), "trend")
    xs, ys = zip(*places, strict=True)
    assert list(xs) == sorted(xs)
    assert list(ys) == sorted(ys)  # y grows downwards
    assert all(0 <= x <= 640 for x in xs)
    assert all(0 <= y <= 260 for y in ys)


def test_values_that_are_not_finite_are_left_out_of_a_line() -> None:
    clean = [(1.0, 3.0), (2.0, 2.0), (4.0, 1.0)]
    dirty = [*clean[:2], (3.0, math.nan), clean[2], (5.0, math.inf)]
    drawn = [line_chart(points, x_label="steps", y_label="loss") for points in (dirty, clean)]
    assert drawn[0] == drawn[1]


def test_a_single_value_gives_a_sentence_in_place_of_a_line() -> None:
    assert "<svg" not in line_chart([(1.0, 2.0)], x_label="steps", y_label="loss")


def test_a_long_curve_stays_a_small_drawing() -> None:
    points = [(float(step), math.sin(step)) for step in range(100_000)]
    assert len(line_chart(points, x_label="steps", y_label="loss", is_noisy=True)) < 40_000


def test_bars_are_as_long_as_their_values() -> None:
    chart = bar_chart([("a", 10, "", "bar"), ("b", 5, "", "bar"), ("none", 0, "", "bar")], label="x")
    lengths = [float(rect.get("width") or "nan") for rect in ElementTree.fromstring(chart).iter("rect")]
    assert lengths[1] == pytest.approx(lengths[0] / 2, abs=0.1)
    assert lengths[2] == 0
