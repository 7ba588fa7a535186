"""Which files of a data set repository to read: by name, or by subset and split."""

import re
from collections.abc import Iterable, Sequence
from functools import lru_cache

from bessemer.collect.files import format_of
from bessemer.collect.hub.card import CARD_NAME, DataFiles, DatasetCard
from bessemer.collect.hub.config import HubConfig
from bessemer.errors import ConfigError

_TABLES = ("parquet", "arrow", "jsonl")
_ALL = "all"
_USUAL_SPLIT = "train"
_SHOWN = 12


def chosen_files(source: HubConfig, card: DatasetCard, names: Sequence[str]) -> list[str]:
    """The names to read, in order. Raises ConfigError, which names what there is, when none fits."""
    names = sorted(names)
    if source.files:
        chosen = _matching(names, source.files)
        asked = f"that match {', '.join(source.files)}"
    else:
        within, asked = _of_subset(source, card, names)
        chosen = _readable(within)
    if not chosen:
        raise ConfigError(
            f"data set {source.dataset!r} holds no files {asked}; it has {_some(names)}. Choose with files:"
        )
    return chosen[: source.max_files]


def _of_subset(source: HubConfig, card: DatasetCard, names: list[str]) -> tuple[list[str], str]:
    """Files of the subset and split, and what was asked for in words."""
    subset = _subset(source, card)
    if subset is None:
        split = source.split or _USUAL_SPLIT
        within = names if split == _ALL else [name for name in names if _is_of_split(name, split)]
        if source.split is None and not _readable(within):
            return names, "that can be read"
        return within, f"of split {split!r}"
    parts = [part for part in card.data_files if part.subset == subset]
    splits = list(dict.fromkeys(part.split for part in parts if part.split is not None))
    split = source.split or (_USUAL_SPLIT if _USUAL_SPLIT in splits else _ALL)
    if split != _ALL and split not in splits:
        raise ConfigError(
            f"subset {subset!r} of {source.dataset!r} has no split {split!r}; its card names "
            f"{_some(splits) if splits else 'none'}"
        )
    patterns = _patterns(part for part in parts if split in (_ALL, part.split))
    return _matching(names, patterns), f"of subset {subset!r}, which its card puts at {_some(patterns)}"


def _subset(source: HubConfig, card: DatasetCard) -> str | None:
    """The subset that is meant; None where the card divides nothing."""
    subsets = card.subsets
    if source.subset is not None:
        if source.subset not in subsets:
            told = _some(subsets) if subsets else "none"
            raise ConfigError(f"{source.dataset!r} has no subset {source.subset!r}; its card names {told}")
        return source.subset
    default = [part.subset for part in card.data_files if part.is_default] or subsets[:1]
    if len(subsets) > 1 and not any(part.is_default for part in card.data_files):
        raise ConfigError(
            f"{source.dataset!r} has several subsets: {_some(subsets)}; choose one with subset:"
        )
    return default[0] if default else None


def _patterns(parts: Iterable[DataFiles]) -> list[str]:
    return [pattern for part in parts for pattern in part.patterns]


def _is_of_split(name: str, split: str) -> bool:
    """Whether a path names the split as a word: `data/train-00000-of-00002.parquet`, `train/a.jsonl`.

    The convention of https://huggingface.co/docs/hub/datasets-file-names-and-splits.
    """
    return re.search(rf"(?<![A-Za-z]){re.escape(split)}(?![A-Za-z])", name, re.IGNORECASE) is not None


def _readable(names: list[str]) -> list[str]:
    """All tables; all documents where there is no table."""
    kinds = {name: format_of(name.rpartition("/")[2]) for name in names}
    tables = [name for name in names if kinds[name] in _TABLES]
    return tables or [name for name in names if kinds[name] not in ("auto", "code") and name != CARD_NAME]


def _matching(names: list[str], patterns: Iterable[str]) -> list[str]:
    compiled = [_compiled(pattern) for pattern in patterns]
    return [name for name in names if any(pattern.fullmatch(name) for pattern in compiled)]


@lru_cache(maxsize=256)
def _compiled(pattern: str) -> re.Pattern[str]:
    """A glob pattern over whole paths: `*` and `?` within a folder, `**` across folders."""
    pieces = re.split(r"(\*\*/|\*\*|\*|\?)", pattern)
    meaning = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    return re.compile("".join(meaning.get(piece) or re.escape(piece) for piece in pieces), re.DOTALL)


def _some(values: Sequence[str]) -> str:
    shown = ", ".join(values[:_SHOWN])
    return f"{shown} and {len(values) - _SHOWN} more" if len(values) > _SHOWN else shown or "nothing"
