"""Rendering the built-in corpus: two child processes at a time, a deadline for each name.

A name whose module crashes its process is reported, and the rest of its group goes on in a fresh process.
One that is late gets much more time, and if it is late again the stage stops: leaving it out would make
the corpus depend on how busy the machine was. The children get an environment of their own: nothing of
the user's is there to leak.
"""

import importlib.util
import json
import os
import pydoc_data.topics
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bessemer.collect.builtin.names import STDLIB_MODULES, modules_of
from bessemer.collect.config import CollectConfig
from bessemer.errors import BessemerError

_NUM_PROCESSES = 2
"""More would not help: importing and inspecting the largest package takes half of the whole time."""
_PATIENCE = 10.0
"""A name that was late gets so many times the deadline."""
_START_DEADLINE_S = 120.0
"""For a child to start; a loaded machine takes long over the first imports."""


@dataclass(frozen=True)
class Group:
    """Names that one child process renders, in order."""

    kind: str
    """`topics`, `modules`, or `packages`: see `render.Renderer`."""
    names: tuple[str, ...]


@dataclass(frozen=True)
class Rendered:
    """The pages of the corpus and what is missing from it."""

    pages: dict[str, str]
    """Path below the root, without `.html` → HTML, in a fixed order."""
    failures: dict[str, str]
    """Name → reason."""


def corpus_groups(config: CollectConfig) -> tuple[list[Group], dict[str, str]]:
    """What to render, in the order of the corpus, and the packages that are not installed."""
    if config.builtin_modules is not None:
        return [Group("modules", config.builtin_modules)], {}
    packages = {name: importlib.util.find_spec(name) is not None for name in config.builtin_packages}
    groups = [
        Group("topics", tuple(sorted(pydoc_data.topics.topics))),
        Group("modules", STDLIB_MODULES),
        *(Group("packages", modules_of(name)) for name, is_there in packages.items() if is_there),
    ]
    missing = {name: "not installed" for name, is_there in packages.items() if not is_there}
    return groups, missing


def render_corpus(config: CollectConfig, folder: Path, advance: Callable[[], None]) -> Rendered:
    """Render every page. Deterministic for one installation of Python and the packages.

    `folder` is where the children run; `advance` is called after each name. Raises BessemerError when
    a child cannot start, or when a name is late twice.
    """
    groups, failures = corpus_groups(config)
    folder.mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor(_NUM_PROCESSES) as executor:
        # Packages take longest, so they start first; the result keeps the order of the corpus.
        started = {
            group: executor.submit(render_group, group, folder, config.builtin_deadline_s, advance)
            for group in reversed(groups)
        }
        answers = [started[group].result() for group in groups]
    pages: dict[str, str] = {}
    for answer in (answer for group in answers for answer in group):
        pages.update(answer["pages"])
        if answer["faults"]:
            failures[answer["name"]] = "; ".join(answer["faults"])
    return Rendered(pages, failures)


def render_group(
    group: Group, folder: Path, deadline_s: float, advance: Callable[[], None]
) -> list[dict[str, Any]]:
    """The child's answer for each name of a group, in order; a new child follows one that stopped early."""
    answers: list[dict[str, Any]] = []
    while len(answers) < len(group.names):
        names = group.names[len(answers) :]
        try:
            fault = _run_child(Group(group.kind, names), folder, deadline_s, answers, advance)
        except _Late:
            late = Group(group.kind, group.names[len(answers) :][:1])
            fault = _run_patiently(late, folder, _PATIENCE * deadline_s, answers, advance)
        if fault is not None:
            answers.append({"name": group.names[len(answers)], "pages": {}, "faults": [fault]})
    return answers


def _run_patiently(
    group: Group, folder: Path, deadline_s: float, answers: list[dict[str, Any]], advance: Callable[[], None]
) -> str | None:
    """Render one name again, with more time. Raises BessemerError when it is late again."""
    try:
        return _run_child(group, folder, deadline_s, answers, advance)
    except _Late:
        raise BessemerError(
            f"the built-in corpus: {group.names[0]} was not documented within {deadline_s:g} s. If the "
            "machine is slow or busy, raise builtin_deadline_s; if the module hangs, leave it out "
            "(builtin_modules, builtin_packages)"
        ) from None


class _Late(Exception):
    """A child gave no answer within its deadline."""


def _run_child(
    group: Group, folder: Path, deadline_s: float, answers: list[dict[str, Any]], advance: Callable[[], None]
) -> str | None:
    """Append the child's answers. Returns why it crashed, None when it did not. Raises _Late."""
    request = json.dumps({"kind": group.kind, "names": group.names})
    process = subprocess.Popen(
        # -P keeps the working directory off the import path.
        [sys.executable, "-P", "-m", "bessemer.collect.builtin.render"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        cwd=folder,
        env=_clean_environment(),
        encoding="utf-8",
    )
    assert process.stdin is not None
    assert process.stdout is not None
    num_answers = 0
    with process, _Watchdog(process) as watchdog:
        watchdog.allow(_START_DEADLINE_S)
        with suppress(BrokenPipeError):  # a child that is gone already gives no answer either
            process.stdin.write(request)
            process.stdin.close()
        if not process.stdout.readline():
            raise BessemerError(
                "the process that documents Python did not start; to see why, run: "
                f"{sys.executable} -P -m bessemer.collect.builtin.render < /dev/null"
            )
        watchdog.allow(deadline_s)
        for line in process.stdout:
            answers.append(json.loads(line))
            num_answers += 1
            advance()
            watchdog.allow(deadline_s)
    if num_answers == len(group.names):
        return None
    if watchdog.has_killed:
        raise _Late
    return f"crashed the process that documents it (exit code {process.returncode})"


class _Watchdog:
    """Kills a process that goes on without news for longer than it is allowed. A context manager."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.has_killed = False
        self._process = process
        self._timer: threading.Timer | None = None

    def __enter__(self) -> "_Watchdog":
        return self

    def __exit__(self, *error: object) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def allow(self, seconds: float) -> None:
        """Start waiting anew."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer = threading.Timer(seconds, self._kill)
        self._timer.daemon = True
        self._timer.start()

    def _kill(self) -> None:
        self.has_killed = True
        self._process.kill()


def _clean_environment() -> dict[str, str]:
    """Nothing of the user's, and what makes rendering the same each time."""
    kept = {name: os.environ[name] for name in ("SYSTEMROOT",) if name in os.environ}
    return kept | {
        "HOME": os.sep + "nonexistent",
        "LANG": "C.UTF-8",
        "OMP_NUM_THREADS": "1",
        "PATH": os.defpath,
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONHASHSEED": "0",
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
        "PYTHONUTF8": "1",
        "TZ": "UTC",
    }
