"""Dataset cards: what the head of a data set's README.md says about licence, subsets and splits.

The head is YAML between two lines of `---`; the hub gives the same as JSON (`cardData`). The layout of
`configs` is that of https://huggingface.co/docs/hub/datasets-manual-configuration.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

CARD_NAME = "README.md"
_MAX_HEAD_BYTES = 4 << 20
"""`dataset_info` of a data set with hundreds of subsets takes a megabyte."""
_FENCE = re.compile(r"^---[ \t]*$", re.MULTILINE)
_MAX_PATTERNS = 10_000
_MARKS = frozenset(
    {"license", "dataset_info", "configs", "task_categories", "size_categories", "pretty_name"}
)
"""Any of these makes the head a dataset card's: a README.md may have a head for other reasons."""


@dataclass(frozen=True)
class DataFiles:
    """Where the rows of one split of a subset are."""

    subset: str
    split: str | None
    """None where the card does not divide the subset."""
    patterns: tuple[str, ...]
    is_default: bool = False


@dataclass(frozen=True)
class DatasetCard:
    """What a card says; everything is optional."""

    licence: str | None = None
    data_files: tuple[DataFiles, ...] = ()

    @property
    def subsets(self) -> list[str]:
        """Names of the subsets, in the card's order."""
        return list(dict.fromkeys(each.subset for each in self.data_files))


def read_card(path: Path) -> DatasetCard | None:
    """The card in a README.md; None when the file has none, or none that can be read."""
    try:
        with path.open("rb") as file:
            return parse_card(file.read(_MAX_HEAD_BYTES))
    except OSError:
        return None


def parse_card(content: bytes) -> DatasetCard | None:
    """The card at the head of a README.md; None when there is none that can be understood."""
    text = content.decode("utf-8", "replace").removeprefix("\ufeff").replace("\r\n", "\n")
    fences = list(_FENCE.finditer(text))[:2]
    if len(fences) < 2 or text[: fences[0].start()].strip():
        return None
    try:
        head = yaml.load(
            text[fences[0].end() : fences[1].start()], getattr(yaml, "CSafeLoader", yaml.SafeLoader)
        )
    except (yaml.YAMLError, ValueError, TypeError, OverflowError, RecursionError, AttributeError):
        return None
    if not isinstance(head, dict) or _MARKS.isdisjoint(key for key in head if isinstance(key, str)):
        return None
    return card_of(head)


def card_of(head: object) -> DatasetCard:
    """The card from its head as a mapping. What does not follow the layout is left out."""
    if not isinstance(head, dict):
        return DatasetCard()
    configs = head.get("configs")
    told = [each for each in configs if isinstance(each, dict)] if isinstance(configs, list) else []
    data_files = [files for config in told for files in _data_files(config)]
    return DatasetCard(_licence(head), tuple(data_files[:_MAX_PATTERNS]))


def _licence(head: dict[Any, Any]) -> str | None:
    """`license`: one identifier or several; `other` stands for the one that `license_name` names."""
    value = head.get("license")
    names = [
        name for name in (value if isinstance(value, list) else [value]) if isinstance(name, str) and name
    ]
    other = head.get("license_name")
    if isinstance(other, str) and other:
        names = [other if name == "other" else name for name in names]
    return " AND ".join(names)[:300] or None


def _data_files(config: dict[Any, Any]) -> list[DataFiles]:
    name = config.get("config_name", "default")
    if not isinstance(name, str):
        return []
    is_default = config.get("default") is True or name == "default"
    folder = config.get("data_dir")
    prefix = f"{folder.strip('/')}/" if isinstance(folder, str) and folder.strip("/. ") else ""
    value = config.get("data_files")
    if value is None:
        return [DataFiles(name, None, (f"{prefix}**",), is_default)] if prefix else []
    if isinstance(value, dict):
        value = [{"split": split, "path": path} for split, path in value.items()]
    entries = value if isinstance(value, list) else [value]
    found, plain = [], []
    for entry in entries:
        if isinstance(entry, dict):
            patterns, split = _texts(entry.get("path")), entry.get("split")
            if patterns:
                found.append(
                    DataFiles(
                        name,
                        split if isinstance(split, str) else None,
                        tuple(prefix + pattern for pattern in patterns),
                        is_default,
                    )
                )
        else:
            plain += _texts(entry)
    if plain:
        found.append(DataFiles(name, None, tuple(prefix + pattern for pattern in plain), is_default))
    return found


def _texts(value: object) -> list[str]:
    values = value if isinstance(value, list) else [value]
    return [each.removeprefix("./") for each in values if isinstance(each, str) and 0 < len(each) < 1000]
