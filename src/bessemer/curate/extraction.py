"""From the bytes of a page to its main text and title, or to the reason why there is none."""

import codecs
import re
from dataclasses import dataclass

from resiliparse.extract.html2text import extract_plain_text
from resiliparse.parse.encoding import detect_encoding
from resiliparse.parse.html import HTMLTree

from bessemer.curate.kernels.nesting import nesting_depth

TITLE_CHARACTERS = 300
_CHARSET = re.compile(r"charset\s*=\s*[\"']?\s*([\w.:-]+)", re.IGNORECASE)
_BYTE_ORDER_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_SURROGATE = re.compile("[\ud800-\udfff]")
_CONTROL = re.compile("[\x00-\x08\x0e-\x1f\x7f-\x84\x86-\x9f\ufffe\uffff]")
_REPLACEMENTS = {
    **dict.fromkeys(("\r\n", "\r", "\x0b", "\x0c", "\x85", "\u2028", "\u2029"), "\n"),
    **dict.fromkeys(("\xa0", "\u2007", "\u202f"), " "),
}
"""Other line ends, and spaces of fixed width or that must not break."""
_MAIN_START = re.compile(r"<main\b[^<>]*>")
_BLANK_LINES = re.compile(r"\n{3,}")


@dataclass(frozen=True)
class Extracted:
    """What a page gave."""

    text: str
    """Lines end in one newline, have no trailing whitespace, and at most one blank line between them."""
    title: str | None
    undecodable: float
    """Fraction of characters that did not decode (U+FFFD) or were control characters."""


class ExtractionFault(Exception):
    """A page that gives no text: by which rule, and the value and threshold or the reason in words."""

    def __init__(self, rule: str, detail: str = "", value: float | None = None, limit: float | None = None):
        super().__init__(detail or rule)
        self.rule, self.detail, self.value, self.limit = rule, detail, value, limit


def decode(content: bytes, content_type: str = "") -> tuple[str, str]:
    """Text and the name of its encoding.

    In the order of the WHATWG encoding sniffing algorithm: byte order mark, charset of the HTTP header,
    declaration in the document, statistics; but what is valid UTF-8 is taken for it whatever was
    declared, for longer texts are not so by chance. Undecodable bytes become U+FFFD.
    """
    for mark, encoding in _BYTE_ORDER_MARKS:
        if content.startswith(mark):
            return content[len(mark) :].decode(encoding, "replace"), encoding
    try:
        return content.decode("utf-8"), "utf-8"
    except UnicodeDecodeError:
        encoding = _declared(content_type) or _detected(content)
    return content.decode(encoding, "replace"), encoding


def _declared(content_type: str) -> str | None:
    match = _CHARSET.search(content_type)
    return _text_codec(match[1]) if match else None


def _detected(content: bytes) -> str:
    return _text_codec(detect_encoding(content, from_html_meta=True) or "") or "utf-8"


def _text_codec(label: str) -> str | None:
    """Python's name of a text encoding, or None. Latin-1 and ASCII mean Windows-1252 (WHATWG Encoding)."""
    try:
        name = codecs.lookup(label).name
        "".encode(name)
    except LookupError:
        return None
    return "cp1252" if name in ("iso8859-1", "ascii") else name


def extract_html(html: str, max_nesting: int) -> Extracted:
    """The main content of an HTML page: lists, tables, `<pre>` and code indentation stay as they are.

    Raises ExtractionFault when elements nest deeper than `max_nesting` or the parser gives up.
    """
    depth = nesting_depth(html)
    if depth > max_nesting:
        raise ExtractionFault("extract.nesting", "elements nest too deeply", depth, max_nesting)
    try:
        tree = HTMLTree.parse(_shelter_main(html))
        text = extract_plain_text(
            tree,
            preserve_formatting=True,
            main_content=True,
            list_bullets=True,
            alt_texts=False,
            comments=False,
            post_meta=False,
        )
        title = tree.title
    except ValueError as error:  # base of every exception that the parser documents
        raise ExtractionFault("extract.parser", f"{type(error).__name__}: {error}") from error
    except BaseException as error:
        # A panic of the parser's native code arrives as an exception class that cannot be imported.
        if type(error).__name__ != "PanicException":
            raise
        raise ExtractionFault("extract.parser", f"the parser failed: {error}") from error
    return clean(text, title)


def _shelter_main(html: str) -> str:
    """Put `<main>` content two levels deeper, so that the extractor keeps its lists.

    It takes every unordered list within four levels of the root for navigation. HTML (Living Standard,
    section 4.4.14) forbids content repeated across pages, such as navigation, in `main`.
    """
    if "<main" not in html:
        return html
    return _MAIN_START.sub(r"\g<0><div><div>", html).replace("</main>", "</div></div></main>")


def clean(text: str, title: str | None = None) -> Extracted:
    """Plain text in normal form: see `Extracted.text`. Fixed spaces become spaces, control characters go."""
    if not text.isascii() and _SURROGATE.search(text):
        text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    for other, plain in _REPLACEMENTS.items():
        text = text.replace(other, plain)
    num_characters = len(text)
    num_replaced = text.count("\ufffd")
    text, num_controls = _CONTROL.subn("", text)
    text = "\n".join(line.rstrip() for line in text.split("\n"))
    text = _BLANK_LINES.sub("\n\n", text).strip("\n")
    undecodable = (num_replaced + num_controls) / num_characters if num_characters else 0.0
    return Extracted(text if text.strip() else "", _clean_title(title), undecodable)


def _clean_title(title: str | None) -> str | None:
    if not title:
        return None
    title = title.encode("utf-8", "replace").decode()
    return " ".join(_CONTROL.sub("", title[: 10 * TITLE_CHARACTERS]).split())[:TITLE_CHARACTERS] or None
