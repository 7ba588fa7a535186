"""`bessemer doctor --parallel`: does every layout compute here what one process computes?"""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch

from bessemer.doctor import Check
from bessemer.errors import BessemerError
from bessemer.runner.context import Progress, Reporter
from bessemer.runner.executors import LOCAL
from bessemer.runner.progress import TeeReporter
from bessemer.training.parallel import torchrun
from bessemer.training.parallel.equivalence import Comparison, compare_layouts
from bessemer.training.parallel.reporters import Silent, SilentProgress

_COUNTS = (2, 4)
"""Processes by default: 4 are the fewest for layouts of two ways."""


def examine_parallel(
    processes: int | None, reporter: Reporter, on: str = LOCAL, runs_folder: Path = Path("runs")
) -> list[Check]:
    """One check for each layout; which one is at work is shown meanwhile.

    `processes`: default 2 and 4, or those that torchrun has started. They have a GPU each where there are as
    many, else they share the CPU. On a Ray cluster (`on`) they meet in the runs folder, which all nodes see,
    and have a GPU each where the cluster has any.
    """
    return [check for count in _counts(processes, on) for check in _examine(count, reporter, on, runs_folder)]


def _counts(processes: int | None, on: str) -> Sequence[int]:
    if torchrun.is_active():
        return (int(os.environ["WORLD_SIZE"]),)
    if processes is not None:
        return (processes,)
    num_gpus = torch.cuda.device_count() if on == LOCAL else 0
    return tuple(count for count in _COUNTS if num_gpus < 2 or count <= num_gpus)


def _examine(count: int, reporter: Reporter, on: str, runs_folder: Path) -> list[Check]:
    is_here, folder = on == LOCAL and not torchrun.is_active(), None
    if on != LOCAL:
        folder = runs_folder
        folder.mkdir(parents=True, exist_ok=True)
    noted = _Noted()
    try:
        with _hidden_gpus(is_needed=is_here and count > torch.cuda.device_count() > 0):
            rows = compare_layouts(count, TeeReporter(reporter, noted), on, folder)
    except (BessemerError, RuntimeError) as error:
        at = f" in the layout {noted.now}" if noted.now else ""
        mend = f"it ended{at}: run it again, and look for what this machine's processes lack"
        return [Check(f"parallel, {count} processes", "fail", str(error).strip(), mend)]
    return [_check(row) for row in rows]


class LayoutCheck(Check):
    """A line of the table of layouts."""

    name_width = 56


class _Noted(Silent):
    """Keeps which layout was last at work."""

    def __init__(self) -> None:
        self.now = ""

    def progress(self, description: str, total: float | None, unit: str) -> Progress:
        return _NotedProgress(self)


class _NotedProgress(SilentProgress):
    def __init__(self, noted: _Noted) -> None:
        self._noted = noted

    def set(self, completed: float, **shown: object) -> None:
        self._noted.now = str(shown.get("now", ""))


def _check(row: Comparison) -> Check:
    name = f"parallel, {row.processes} processes: {row.layout}, {row.model}"
    detail = f"loss {row.loss:.1e}, gradients {row.gradients:.1e}, own {row.own:.1e}, {row.seconds:.2f} s"
    if row.is_equal:
        return LayoutCheck(name, "ok", detail)
    mend = "this layout computes other numbers here: train with another, and report it with your versions"
    return LayoutCheck(name, "fail", detail, mend)


@contextmanager
def _hidden_gpus(*, is_needed: bool) -> Iterator[None]:
    """Processes that are started meanwhile see no GPU."""
    name = "CUDA_VISIBLE_DEVICES"
    before = os.environ.get(name)
    if is_needed:
        os.environ[name] = ""
    try:
        yield
    finally:
        if is_needed:
            os.environ.pop(name)
            if before is not None:
                os.environ[name] = before
