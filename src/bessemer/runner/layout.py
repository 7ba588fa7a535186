"""Where things lie in a run folder.

runs/<name>/
  recipe.yaml            the recipe as resolved
  log.txt                what was said, with times
  <stage>/               a finished artifact: files, manifest.json, metrics.jsonl
  <stage>.forecast.json  what `run --dry-run` predicted of it, and what happened
  .<stage>.partial/      an unfinished stage: key, output/, scratch/, attempts.json, metrics.jsonl
  .<name>.old/           a folder on its way out
  .lock                  held while a process works here
"""

from dataclasses import dataclass
from pathlib import Path

from bessemer.runner.manifest import MANIFEST_NAME


@dataclass(frozen=True)
class RunFolder:
    """Paths inside one run folder."""

    root: Path

    @property
    def recipe(self) -> Path:
        return self.root / "recipe.yaml"

    @property
    def log(self) -> Path:
        return self.root / "log.txt"

    @property
    def lock(self) -> Path:
        return self.root / ".lock"

    def artifact(self, stage: str) -> Path:
        return self.root / stage

    def forecast(self, stage: str) -> Path:
        return self.root / f"{stage}.forecast.json"

    def partial(self, stage: str) -> "PartialFolder":
        return PartialFolder(self.root / f".{stage}.partial")

    def artifacts(self) -> list[Path]:
        """Folders of finished artifacts, sorted by name."""
        folders = [path.parent for path in self.root.glob(f"*/{MANIFEST_NAME}")]
        return sorted(folder for folder in folders if not folder.name.startswith("."))


@dataclass(frozen=True)
class PartialFolder:
    """Paths of a stage that is not finished."""

    root: Path

    @property
    def key(self) -> Path:
        """Digest of what the work was begun for; written last when the folder is made."""
        return self.root / "key"

    @property
    def output(self) -> Path:
        return self.root / "output"

    @property
    def scratch(self) -> Path:
        return self.root / "scratch"

    @property
    def attempts(self) -> Path:
        return self.root / "attempts.json"

    @property
    def metrics(self) -> Path:
        return self.root / "metrics.jsonl"

    def read_key(self) -> str | None:
        """The key, or None when the folder is absent or was never completely made."""
        try:
            return self.key.read_text(encoding="utf-8")
        except FileNotFoundError:
            return None
