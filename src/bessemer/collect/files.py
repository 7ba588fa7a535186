"""Which local files a collect stage reads, what kind each is, and what each is called in the corpus."""

import glob
import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import get_args
from urllib.parse import quote

from bessemer.collect.config import Format
from bessemer.collect.hub.card import CARD_NAME, DatasetCard, read_card
from bessemer.collect.readers.compressed import COMPRESSION_SUFFIXES
from bessemer.collect.readers.programming import programming_language
from bessemer.errors import BessemerError, ConfigError

_EXTENSIONS: dict[str, Format] = {
    ".warc": "warc",
    ".wet": "warc",
    ".txt": "text",
    ".text": "text",
    ".rst": "text",
    ".html": "html",
    ".htm": "html",
    ".xhtml": "html",
    ".md": "markdown",
    ".markdown": "markdown",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".srt": "transcript",
    ".vtt": "transcript",
    ".parquet": "parquet",
    ".arrow": "arrow",
    ".pdf": "pdf",
    ".epub": "epub",
}
"""Kinds beside source code, which `readers.programming` knows."""
_TABLES = ("parquet", "arrow", "jsonl")
_COMPRESSIBLE = ("text", "html", "markdown", "jsonl", "transcript", "code")
_DATASET_INFO, _DATASET_STATE, _DATASET_SPLITS = "dataset_info.json", "state.json", "dataset_dict.json"
_MAX_INFO_BYTES = 1 << 20


@dataclass(frozen=True)
class SourceFile:
    """One file to collect from."""

    path: Path
    name: str
    """Relative, with forward slashes; free of this machine's folders."""
    format: Format
    """`auto` when the extension says nothing: the file is reported and left out."""
    licence: str | None = None
    """What a data set says of its files."""
    url: str | None = None
    """Where it was downloaded from."""
    fault: str | None = None
    """Why there is nothing to read at `path`."""
    digest: str | None = None
    """What tells its content apart before it is there to be read."""

    @property
    def uri(self) -> str:
        """Its URL, else `file:` and the name, percent-encoded."""
        return self.url or "file:" + quote(os.fsencode(self.name))


def find_source_files(patterns: tuple[str, ...], file_format: Format) -> list[SourceFile]:
    """Every file that the patterns name, in the order of patterns, then of names; with its fault what is
    none, such as a broken link.

    Hidden files are left out, and of folders that `datasets.save_to_disk` wrote, all but the data set's
    own tables; so are dataset cards, which give the licence of the files below them.
    Raises BessemerError for a pattern that names nothing, and ConfigError for a single file whose extension
    does not say what it is.
    """
    found: dict[str, SourceFile] = {}
    for number, pattern in enumerate(patterns, start=1):
        root, paths = _expand(pattern)
        # Names begin with the folder's own name, and, where two folders share it, with a number.
        base = root.resolve().parent
        for path, licence in _without_bookkeeping(paths):
            name = (root.resolve() / path.relative_to(root)).relative_to(base).as_posix()
            if name in found:
                name = f"{number}/{name}"
            if fault := _fault_of(path):
                found[name] = SourceFile(path, name, "auto", fault=fault)
                continue
            kind = file_format if file_format != "auto" else format_of(path.name)
            if kind == "auto" and path == root:
                known = ", ".join(sorted(_EXTENSIONS))
                kinds = ", ".join(kind for kind in get_args(Format) if kind != "auto")
                raise ConfigError(
                    f"cannot tell what kind of file {pattern!r} is from its name (known: {known}, and those "
                    f"of programming languages); say so with format: {kinds}"
                )
            found[name] = SourceFile(path, name, kind, licence)
    return list(found.values())


def _fault_of(path: Path) -> str | None:
    """Why what stands in a folder is no file to read; None for a file."""
    if path.is_file():
        return None
    if path.is_dir():
        return "linked folder: links to folders are not followed; name the folder in path:"
    return "broken link: it leads nowhere" if path.is_symlink() else "no file: a pipe, socket or device"


def format_of(name: str) -> Format:
    """Kind by the extension before a suffix of compression; `auto` when that says nothing."""
    name = name.lower()
    suffix = next((suffix for suffix in COMPRESSION_SUFFIXES if name.endswith(suffix)), "")
    name = name.removesuffix(suffix)
    kind: Format = "code" if programming_language(name) else _EXTENSIONS.get(Path(name).suffix, "auto")
    is_readable = not suffix or kind in _COMPRESSIBLE or (kind == "warc" and suffix == ".gz")
    return kind if is_readable else "auto"


def _without_bookkeeping(paths: list[Path]) -> Iterator[tuple[Path, str | None]]:
    """Files and their licence; of a saved data set, the tables that its state names, in that order.

    Dataset cards give the licence of the files beside and below them, and are no documents.
    """
    folders = {path.parent for path in paths if path.name == _DATASET_STATE}
    tables = {folder: _tables_of(folder) for folder in folders}
    cards = _cards_among(paths)
    told: set[Path] = set()
    for path in paths:
        names = tables.get(path.parent)
        card = next((cards[folder] for folder in path.parents if folder in cards), None) if cards else None
        licence = card.licence if card else None
        if names is None:
            is_card = path.name == CARD_NAME and path.parent in cards
            if path.name != _DATASET_SPLITS and not is_card:
                yield path, licence
        elif path.parent not in told:
            told.add(path.parent)
            licence = _licence_of(path.parent) or licence
            here = {other.name: other for other in paths if other.parent == path.parent}
            yield from ((here[name], licence) for name in names if name in here)


def _cards_among(paths: list[Path]) -> dict[Path, DatasetCard]:
    """Dataset cards by folder: those with tables beside or below them."""
    with_tables = {folder for path in paths if format_of(path.name) in _TABLES for folder in path.parents}
    readmes = (path for path in paths if path.name == CARD_NAME and path.parent in with_tables)
    cards = {path.parent: read_card(path) for path in readmes}
    return {folder: card for folder, card in cards.items() if card is not None}


def _tables_of(folder: Path) -> list[str] | None:
    """File names of a data set that `datasets.save_to_disk` wrote; None when the folder is none."""
    state = _read_json(folder / _DATASET_STATE)
    files = state.get("_data_files")
    if not isinstance(files, list) or not (folder / _DATASET_INFO).is_file():
        return None
    names = [file.get("filename") for file in files if isinstance(file, dict)]
    return [name for name in names if isinstance(name, str)]


def _licence_of(folder: Path) -> str | None:
    licence = _read_json(folder / _DATASET_INFO).get("license")
    return licence if isinstance(licence, str) and licence.strip() else None


def _read_json(path: Path) -> dict[str, object]:
    try:
        with path.open("rb") as file:
            value = json.loads(file.read(_MAX_INFO_BYTES))
    except (OSError, ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _expand(pattern: str) -> tuple[Path, list[Path]]:
    """The folder that names are relative to (or the single file), and the files below it in order."""
    path = Path(pattern).expanduser()
    if path.is_file():
        return path.absolute(), [path.absolute()]
    if path.is_dir():
        paths = path.rglob("*")
    elif glob.has_magic(pattern):
        matches = [Path(match) for match in glob.glob(str(path), recursive=True)]
        path = _folder_before_magic(path)
        paths = [file for match in matches for file in (match.rglob("*") if match.is_dir() else [match])]
    else:
        raise BessemerError(f"path {pattern!r} names no file or folder; paths are relative to {Path.cwd()}")
    path = path.absolute()
    visible = {
        absolute
        for file in paths
        if not ((absolute := file.absolute()).is_dir() and not absolute.is_symlink())
        and not any(part.startswith(".") for part in absolute.relative_to(path).parts)
    }
    if not any(file.is_file() for file in visible):
        raise BessemerError(f"path {pattern!r} holds no files; give a folder, file or pattern that does")
    return path, sorted(visible, key=lambda file: file.relative_to(path).as_posix())


def _folder_before_magic(path: Path) -> Path:
    parts = path.parts
    plain = next(index for index, part in enumerate(parts) if re.search(r"[*?\[]", part))
    return Path(*parts[:plain])
