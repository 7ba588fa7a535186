"""The table of docs/equivalence.md, written from what was measured, and read back by the test that checks it.

python -m bessemer.training.parallel.equivalence_page docs/equivalence.md
"""

import math
import re
import sys
from collections.abc import Iterable
from pathlib import Path

from bessemer.runner.progress import reporter_for
from bessemer.training.parallel.equivalence import (
    GRADIENT_TOLERANCE,
    LOSS_TOLERANCE,
    OWN_TOLERANCE,
    Comparison,
    compare_layouts,
)

PROCESSES = (2, 4)
_SMALLEST = 1e-7
"""Bounds below float32's rounding (6e-8) would say nothing."""
_MARGIN = 2.0
"""Other processors sum in other orders."""
_STEPS = (1, 2, 5, 10)
_ROW = re.compile(r"\| (.+) \| (\d+) \| (dense|experts) \| ≤ (\S+) \| ≤ (\S+) \| ≤ (\S+) \|")

Bounds = tuple[float, float, float]
"""Of the loss, of gradients over the largest of all, and of gradients over the largest of their own."""


def bound(value: float) -> float:
    """Twice the value, rounded up to 1, 2 or 5 times a power of ten; 1e-7 at least."""
    wanted = max(_SMALLEST, _MARGIN * value) * (1 - 1e-9)
    power = 10.0 ** math.floor(math.log10(wanted))
    return next(step * power for step in _STEPS if step * power >= wanted)


def page(rows: Iterable[Comparison]) -> str:
    """The whole document."""
    lines = [
        f"| {row.layout} | {row.processes} | {row.model} | "
        f"≤ {bound(row.loss):.0e} | ≤ {bound(row.gradients):.0e} | ≤ {bound(row.own):.0e} |"
        for row in rows
    ]
    return (
        "# One step in every layout\n\n"
        "A step of a small model, in float32, in processes that gloo connects, against the same step in one "
        "process: packed\ndocuments that cross every border, uneven targets, a micro-batch a row, gradients "
        "accumulated. The loss is compared, and\nthe gradients before clipping and before any optimizer. "
        "Written by `make equivalence` from what was measured on a CPU, each\nfigure doubled and rounded up; "
        "the tests measure again and check that nothing exceeds its bound.\n`bessemer doctor --parallel` "
        f"does the same on your machines, and fails beyond {LOSS_TOLERANCE:.0e} of the loss, "
        f"{GRADIENT_TOLERANCE:.0e} of all\ngradients or {OWN_TOLERANCE:.0e} of a parameter's own.\n\n"
        "*Loss*: relative. *Gradients*: largest difference of an entry over the largest entry of all. *Own*: "
        "over the largest of its\nown parameter.\n\n"
        "| layout | processes | model | loss | gradients | own |\n|---|---|---|---|---|---|\n"
        + "\n".join(lines)
        + "\n"
    )


def bounds(text: str) -> dict[tuple[str, int, str], Bounds]:
    """The table of a page, by layout, processes and model."""
    return {
        (layout, int(processes), model): (float(loss), float(gradients), float(own))
        for layout, processes, model, loss, gradients, own in _ROW.findall(text)
    }


def main() -> None:
    """Measure, and write the page to the path that is given."""
    path, reporter = Path(sys.argv[1]), reporter_for(sys.stderr)
    rows = [row for processes in PROCESSES for row in compare_layouts(processes, reporter)]
    wrong = [row.layout for row in rows if not row.is_equal]
    if wrong:
        sys.exit(f"{path} is left as it was, for these layouts compute other numbers: {', '.join(wrong)}")
    path.write_text(page(rows), encoding="utf-8")


if __name__ == "__main__":
    main()
