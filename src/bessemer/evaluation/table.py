"""The one table: a row per model, each figure with its 95 % interval."""

from collections.abc import Mapping

from bessemer.evaluation.statistics import Estimate

COLUMNS: tuple[tuple[str, str, str], ...] = (
    ("bits_per_byte", "bits per byte", "{:.3f}"),
    ("answer_accuracy", "right, taught objects", "{:.1%}"),
    ("answer_accuracy_held_out_objects", "right, pretraining only", "{:.1%}"),
    ("answer_accuracy_in_chat", "right, later in a chat", "{:.1%}"),
    ("made_up_rate", "made up", "{:.1%}"),
    ("stop_rate", "ends by itself", "{:.1%}"),
    ("answer_tokens", "tokens", "{:.1f}"),
)
"""(figure, heading, format) of the columns; results.json holds further figures."""


def format_estimate(estimate: Estimate, form: str) -> str:
    """`92.1% [90.3%, 93.6%]`, or a dash when there was nothing to measure."""
    if estimate.n == 0:
        return "–"
    return f"{form.format(estimate.value)} [{form.format(estimate.low)}, {form.format(estimate.high)}]"


def table_cells(results: Mapping[str, Mapping[str, Estimate]]) -> list[list[str]]:
    """Heading row and a row per model; figures that no model has get no column."""
    columns = [column for column in COLUMNS if any(column[0] in row for row in results.values())]
    rows = [["model", *(heading for _, heading, _ in columns)]]
    for model, row in results.items():
        rows.append([model, *(format_estimate(row[name], form) for name, _, form in columns)])
    return rows


def format_table(results: Mapping[str, Mapping[str, Estimate]]) -> str:
    """The table in plain text, columns aligned."""
    cells = table_cells(results)
    widths = [max(len(row[column]) for row in cells) for column in range(len(cells[0]))]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in cells
    ]
    return "\n".join([lines[0], "  ".join("-" * width for width in widths), *lines[1:]])
