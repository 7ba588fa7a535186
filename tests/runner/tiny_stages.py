"""Three small stages for the tests of the runner, and a script that runs them: `tiny_stages.py FOLDER`."""

import json
import random
import sys
import time
from pathlib import Path
from typing import Literal

from bessemer.config import Config, Count
from bessemer.recipe import Recipe, parse_recipe
from bessemer.runner.context import Metrics, Progress, Reporter, StageContext
from bessemer.runner.files import write_atomically
from bessemer.runner.manifest import open_artifact
from bessemer.runner.run import run_recipe
from bessemer.stages import Need, Stage, stage_table

RECIPE = """
name: tiny
seed: 1
stages:
  - words: {count: 6}
  - letters
  - compare
"""


class WordsConfig(Config):
    """Random words."""

    count: Count = 6
    """How many files of one word."""
    pause_s: float = 0.0
    """Sleep before each, so that a test can kill in between."""
    path: str = ""
    """A file whose content is added."""


class Style(Config):
    """A nested config."""

    case: Literal["lower", "upper"] = "lower"
    """Which letters."""


class LettersConfig(Config):
    """Sorted letters of every word."""

    style: Style = Style()
    """How they look."""


class CompareConfig(Config):
    """Nothing to choose."""


class Quiet:
    """A reporter that remembers what was said."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def say(self, text: str) -> None:
        self.said.append(text)

    def progress(self, description: str, total: float | None, unit: str) -> Progress:
        return _NoProgress()


class _NoProgress:
    def advance(self, amount: float = 1) -> None: ...
    def set(self, completed: float, **shown: object) -> None: ...
    def __enter__(self) -> "_NoProgress":
        return self

    def __exit__(self, *error: object) -> None: ...


def words(config: WordsConfig, context: StageContext) -> Metrics:
    """Writes one file a step with the state of its generator in scratch: resumable."""
    state = context.scratch / "state.json"
    start, drawn = json.loads(state.read_bytes()) if state.exists() else (0, 0)
    draw = random.Random(context.seed)
    for _ in range(drawn):
        draw.random()
    for step in range(start, config.count):
        time.sleep(config.pause_s)
        length = 3 + int(draw.random() * 5)
        word = "".join(chr(97 + int(draw.random() * 26)) for _ in range(length))
        drawn += 1 + length
        write_atomically(context.output / f"word-{step}.txt", word.encode())
        context.log(step, length=length)
        write_atomically(state, json.dumps([step + 1, drawn]).encode())
    if config.path:
        write_atomically(context.output / "added.txt", Path(config.path).read_bytes())
    return {"words": config.count, "flops": 1e6}


def letters(config: LettersConfig, context: StageContext) -> Metrics:
    """Writes everything in one go: not resumable, overwrites what a killed attempt left."""
    found = context.input("words").files("word-*.txt")
    for path in found:
        text = "".join(sorted(path.read_text()))
        (context.output / path.name).write_text(text.upper() if config.style.case == "upper" else text)
    return {"files": len(found)}


def compare(config: CompareConfig, context: StageContext) -> Metrics:
    """Looks at every earlier `letters`; one file holds a measurement."""
    digests = [artifact.manifest.digest for artifact in context.inputs["letters"]]
    (context.output / "digests.txt").write_text("\n".join(digests))
    (context.output / "timing.txt").write_text(str(time.perf_counter_ns()))
    return {}


TABLE = stage_table(
    [
        Stage("words", WordsConfig, (), "words", words, outside_files=lambda c: [c.path] if c.path else []),
        Stage("letters", LettersConfig, (Need("words"),), "letters", letters),
        Stage(
            "compare",
            CompareConfig,
            (Need("letters", every=True), Need("words", optional=True)),
            "comparison",
            compare,
            measured=("timing.*",),
        ),
    ]
)


def tiny_recipe(text: str = RECIPE, *overrides: str) -> Recipe:
    return parse_recipe(text, "tiny.yaml", overrides, TABLE)


def run_tiny(folder: Path, *overrides: str, reporter: Reporter | None = None) -> dict[str, str]:
    """Run the recipe; stage → digest."""
    results = run_recipe(tiny_recipe(RECIPE, *overrides), folder, reporter or Quiet())
    return {result.stage: result.artifact.manifest.digest for result in results}


def digests_of(folder: Path) -> dict[str, str]:
    """Stage → digest of every visible artifact, each verified."""
    return {
        path.parent.name: open_artifact(path.parent).manifest.digest
        for path in sorted(folder.glob("[!.]*/manifest.json"))
    }


if __name__ == "__main__":
    run_tiny(Path(sys.argv[1]), *sys.argv[2:])
