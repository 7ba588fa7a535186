"""The text layer of PDF files, by pypdf (extra `pdf`).

Pages come in order, parted by a blank line. A scanned file has no text layer: it is reported, not read
by optical character recognition.
"""

import re
from pathlib import Path

from bessemer.collect.readers.converted import Converted, Unreadable

PDF_EXTRA = "pip install 'bessemer[pdf]'"
_HYPHENATED = re.compile(r"(?<=[a-zß-öø-ÿ])-[ \t]*\n[ \t]*(?=[a-zß-öø-ÿ])")
_TRAILING_SPACE = re.compile(r"[ \t]+(?=\n)")


def convert_pdf(path: Path, max_bytes: int) -> Converted:
    """All pages' text; pages that cannot be read are reported by number.

    Raises Unreadable, and whatever pypdf raises for a file that it cannot make sense of.
    """
    from pypdf import PdfReader
    from pypdf.errors import PyPdfError

    reader = PdfReader(path, strict=False)
    if reader.is_encrypted and not reader.decrypt(""):
        raise Unreadable("encrypted: the file needs a password")
    converted = Converted("", without_text="no text layer; its pages may be scanned images")
    pages: list[str] = []
    num_chars = 0
    for number, page in enumerate(reader.pages, start=1):
        try:
            text = page.extract_text()
        except (PyPdfError, ValueError, TypeError, KeyError, IndexError, AttributeError) as error:
            reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
            converted.faults.append((f"page {number}", f"damaged page: unreadable ({reason})"))
            continue
        text = _tidy(text)
        num_chars += len(text)
        if num_chars > max_bytes:
            raise Unreadable(f"too long: more than {max_bytes} characters by page {number}")
        if text:
            pages.append(text)
    converted.text = "\n\n".join(pages)
    converted.about = _facts(reader)
    return converted


def _tidy(text: str) -> str:
    """Without hyphens at line ends and trailing spaces."""
    text = text.replace("\r\n", "\n").replace("\r", "\n").replace("\0", "")
    return _TRAILING_SPACE.sub("", _HYPHENATED.sub("", text)).strip()


def _facts(reader) -> dict[str, str]:  # type: ignore[no-untyped-def]
    try:
        information = reader.metadata or {}
        found = {"title": information.get("/Title"), "author": information.get("/Author")}
    except Exception:  # the text is worth more than what the file says about itself
        return {}
    return {name: str(value) for name, value in found.items() if value}
