"""Files whose bytes are the page: text, Markdown, HTML and source code."""

import re
from collections.abc import Iterator
from pathlib import Path

from bessemer.collect.config import CollectConfig
from bessemer.collect.readers.compressed import DamagedFile, read_bounded
from bessemer.collect.readers.pages import Fault, Page
from bessemer.collect.readers.programming import programming_language

CONTENT_TYPES = {"text": "text/plain", "html": "text/html", "markdown": "text/markdown", "code": "text/plain"}
_SPDX = re.compile(rb"SPDX-License-Identifier:[ \t]*([A-Za-z0-9.+() -]{1,200})")
_HEAD_BYTES = 8192


def read_document(path: Path, file_format: str, config: CollectConfig) -> Iterator[Page | Fault]:
    """The file as one page, byte for byte. Its encoding is named when it is UTF-8, else left open.

    Source code carries its `programming_language`, and any file the licence of its SPDX header.
    """
    try:
        body = read_bounded(path, config.max_document_bytes)
    except DamagedFile as damage:
        yield Fault("", str(damage))
        return
    if body is None:
        yield Fault("", f"too long: more than {config.max_document_bytes} bytes")
        return
    about: dict[str, str] = {}
    if file_format == "code":
        if b"\0" in body:
            yield Fault("", "binary: the file holds NUL bytes")
            return
        language = programming_language(path.name)
        about |= {"programming_language": language} if language else {}
    licence = spdx_licence(body)
    about |= {"licence": licence} if licence else {}
    content_type = CONTENT_TYPES[file_format] + ("; charset=utf-8" if _is_utf8(body) else "")
    yield Page(content_type, body, about=about)


def spdx_licence(content: bytes) -> str | None:
    """The expression of an SPDX-License-Identifier line near the top (SPDX 2.3, annex E)."""
    found = _SPDX.search(content[:_HEAD_BYTES])
    if found is None:
        return None
    # A comment may close on the same line: `/* SPDX-License-Identifier: MIT */`, `<!-- … -->`.
    return found[1].decode().rstrip(" -").strip() or None


def _is_utf8(content: bytes) -> bool:
    try:
        content.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True
