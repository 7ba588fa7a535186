"""Sections of the report about the models: training curves, figures with intervals, answers side by side."""

import json
import math
from collections.abc import Mapping
from typing import Any

from markupsafe import Markup

from bessemer.evaluation.table import COLUMNS
from bessemer.export.charts import Point, interval_chart, line_chart
from bessemer.export.figures import estimate_text
from bessemer.export.markup import section, table, tag
from bessemer.export.samples import GROUPS, questions_shown, verdict_text
from bessemer.export.view import RunView, StageView

_TITLES = {
    "pretrain": "Pretraining",
    "midtrain": "Mid-training",
    "sft": "Instruction tuning",
    "dpo": "Preference optimisation",
}
_CURVES = (
    ("loss", "loss", "nats", True),
    ("validation_bits_per_byte", "held-out text", "bits per byte", False),
    ("accuracy", "chosen answer preferred", "share of pairs", True),
)
"""(name in metrics.jsonl, title, unit, whether single values are noisy)."""
_MAX_ANSWER_CHARACTERS = 320


def training_section(view: RunView) -> Markup | None:
    """Curves of every training stage, also of one that is still at work."""
    figures = [
        figure for stage in view.of_stage_kind(*_TITLES) for figure in _curves(stage) if figure is not None
    ]
    if not figures:
        return None
    return section(
        "training",
        "Training",
        tag("div", *figures, class_="pair"),
        lead="A bold line is a moving average, the faint one behind it the single steps.",
    )


def _curves(stage: StageView) -> list[Markup]:
    """A figure for each quantity that the stage has logged."""
    rows = read_metrics(stage)
    tokens_per_step = next((row["tokens"] / row["step"] for row in rows if row.get("tokens")), 0)
    figures = []
    for name, title, unit, is_noisy in _CURVES:
        points: list[Point] = [
            (row["step"] * tokens_per_step if tokens_per_step else row["step"], float(row[name]))
            for row in rows
            if isinstance(row.get(name), (int, float))
        ]
        if not points:
            continue
        chart = line_chart(
            points, x_label="tokens" if tokens_per_step else "steps", y_label=unit, is_noisy=is_noisy
        )
        caption = tag(
            "figcaption", f"{_TITLES[stage.kind]}: {title} ", tag("span", f"({unit}) · {stage.name}")
        )
        figures.append(tag("figure", caption, chart, class_="panel"))
    return figures


def read_metrics(stage: StageView) -> list[Mapping[str, Any]]:
    """Whole lines of the stage's metrics.jsonl with a step; a line that is just being written is skipped."""
    if stage.metrics_path is None or not stage.metrics_path.is_file():
        return []
    rows = []
    for line in stage.metrics_path.read_text(encoding="utf-8").split("\n"):
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if isinstance(row, dict) and isinstance(row.get("step"), int) and row["step"] > 0:
            rows.append(row)
    return rows


def evaluation_section(view: RunView) -> Markup | None:
    """A row a model, each figure with its 95 % interval, and the definition of right."""
    if not view.results:
        return None
    rows = [
        [model, *(_figure_cell(*estimate_text(row.get(name), form)) for name, _, form in COLUMNS)]
        for model, row in view.results.items()
    ]
    asked = "; ".join(f"{words}: {count:,}" for words, count in _questions_by_group(view).items() if count)
    charts = [
        tag("figure", tag("figcaption", title), interval_chart(points, label=title), class_="panel")
        for figure, title in (
            ("answer_accuracy", "Right about taught objects"),
            ("made_up_rate", "Makes something up about names that do not exist"),
        )
        if (points := _interval_rows(view, figure))
    ]
    return section(
        "evaluation",
        "Evaluation",
        table(["model", *(heading for _, heading, _ in COLUMNS)], rows, class_="figures"),
        tag("div", *charts, class_="pair"),
        tag(
            "p",
            f"{view.key_definition} Questions asked, in phrasings that training never used: {asked}.",
            class_="muted small",
        )
        if asked
        else None,
        lead="Small figures are 95 % intervals. Every model answers the same questions, greedily.",
    )


def _figure_cell(value: str, interval: str) -> Markup:
    return tag("span", value, tag("small", interval) if interval else None)


def _interval_rows(view: RunView, figure: str) -> list[tuple[str, float, float, float]]:
    return [
        (model, row[figure].value, row[figure].low, row[figure].high)
        for model, row in view.results.items()
        if figure in row and math.isfinite(row[figure].value)
    ]


def _questions_by_group(view: RunView) -> dict[str, int]:
    rows = next(iter(view.answers.values()), ())
    return {words: sum(row["group"] == group for row in rows) for group, words in GROUPS.items()}


def answers_section(view: RunView) -> Markup | None:
    """The same questions put to every model, side by side."""
    if not any(view.answers.values()):
        return None
    by_text = {model: {row["text"]: row for row in rows} for model, rows in view.answers.items()}
    reference = list(view.answers.values())[-1]
    cards = []
    for place in questions_shown(reference):
        question = reference[place]
        answers = [
            _answer(model, rows[question["text"]])
            for model, rows in by_text.items()
            if question["text"] in rows
        ]
        cards.append(
            tag(
                "div",
                tag("p", question["text"]),
                tag("span", GROUPS.get(question["group"], question["group"]), class_="chip"),
                tag("span", f" documentation: {question['reference']}", class_="muted small")
                if question.get("key")
                else None,
                tag("div", *answers, class_="answers"),
                class_="question",
            )
        )
    return section(
        "answers",
        "Questions and answers",
        *cards,
        lead=(
            "Chosen by rule, not by looks: the first questions of each kind. An answer that is cut off "
            "reached the length limit."
        ),
    )


def _answer(model: str, row: Mapping[str, Any]) -> Markup:
    mark = {"right": "✓", "wrong": "✗"}.get(row["verdict"], "○")
    text = " ".join(row["answer"].split()) or "(nothing)"
    shown = text if len(text) <= _MAX_ANSWER_CHARACTERS else text[:_MAX_ANSWER_CHARACTERS] + " …"
    ended = "" if row.get("ended", True) else ", cut off"
    return tag(
        "div",
        tag(
            "div",
            tag("span", model),
            tag("span", f"{mark} {verdict_text(row)}{ended}", class_="verdict"),
            class_="who",
        ),
        shown,
        class_=f"answer {row['verdict'] if row['verdict'] in ('right', 'wrong') else 'refused'}",
    )
