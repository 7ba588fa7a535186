"""Which local files a collect stage reads, what kind each is, and what each is called in the corpus."""

import glob
import os
import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from bessemer.collect.config import Format
from bessemer.errors import BessemerError, ConfigError

_EXTENSIONS: dict[str, Format] = {
    ".warc": "warc",
    ".warc.gz": "warc",
    ".wet": "warc",
    ".wet.gz": "warc",
    ".txt": "text",
    ".text": "text",
    ".html": "html",
    ".htm": "html",
    ".xhtml": "html",
    ".md": "markdown",
    ".markdown": "markdown",
    ".jsonl": "jsonl",
    ".jsonl.gz": "jsonl",
    ".ndjson": "jsonl",
    ".ndjson.gz": "jsonl",
    ".parquet": "parquet",
}


@dataclass(frozen=True)
class SourceFile:
    """One file to collect from."""

    path: Path
    name: str
    """Relative, with forward slashes; free of this machine's folders."""
    format: Format
    """`auto` when the extension says nothing: the file is reported and left out."""

    @property
    def uri(self) -> str:
        """`file:` and the name, percent-encoded."""
        return "file:" + quote(os.fsencode(self.name))


def find_source_files(patterns: tuple[str, ...], file_format: Format) -> list[SourceFile]:
    """Every file that the patterns name, in the order of patterns, then of names.

    Hidden files are left out. Raises BessemerError for a pattern that names nothing, and ConfigError
    for a single file whose extension does not say what it is.
    """
    found: dict[str, SourceFile] = {}
    for number, pattern in enumerate(patterns, start=1):
        root, paths = _expand(pattern)
        # Names begin with the folder's own name, and, where two folders share it, with a number.
        base = root.resolve().parent
        for path in paths:
            name = (root.resolve() / path.relative_to(root)).relative_to(base).as_posix()
            if name in found:
                name = f"{number}/{name}"
            kind = file_format if file_format != "auto" else format_of(path)
            if kind == "auto" and path == root:
                known = ", ".join(sorted(_EXTENSIONS))
                raise ConfigError(
                    f"cannot tell what kind of file {pattern!r} is from its name (known: {known}); "
                    "say so with format: text, html, markdown, jsonl, parquet or warc"
                )
            found[name] = SourceFile(path, name, kind)
    return list(found.values())


def format_of(path: Path) -> Format:
    """Kind by the longest known extension, `auto` when none is known."""
    name = path.name.lower()
    known = [extension for extension in _EXTENSIONS if name.endswith(extension)]
    return _EXTENSIONS[max(known, key=len)] if known else "auto"


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
        if (absolute := file.absolute()).is_file()
        and not any(part.startswith(".") for part in absolute.relative_to(path).parts)
    }
    if not visible:
        raise BessemerError(f"path {pattern!r} holds no files; give a folder, file or pattern that does")
    return path, sorted(visible, key=lambda file: file.relative_to(path).as_posix())


def _folder_before_magic(path: Path) -> Path:
    parts = path.parts
    plain = next(index for index, part in enumerate(parts) if re.search(r"[*?\[]", part))
    return Path(*parts[:plain])
