"""E-books: EPUB 2 and 3 (W3C EPUB 3.3), read in the order of the spine.

An EPUB is a zip file: META-INF/container.xml names the package document, whose spine lists the chapters
(XHTML) in reading order. Nothing is unpacked to disk, and sizes are counted while reading, whatever the
zip's own directory claims.
"""

import posixpath
import zipfile
import zlib
from pathlib import Path
from urllib.parse import unquote

from resiliparse.extract.html2text import extract_plain_text

from bessemer.collect.readers.converted import Converted, Unreadable
from bessemer.collect.readers.decoding import decode_text
from bessemer.collect.readers.xml import BadXml, Element, parse_xml

_CONTAINER = "META-INF/container.xml"
_ENCRYPTION = "META-INF/encryption.xml"
_FONT_ENCRYPTION = ("http://www.idpf.org/2008/embedding", "http://ns.adobe.com/pdf/enc#RC")
"""Algorithms that obfuscate fonts only (EPUB 3.3, section 4.4)."""
_CHAPTER_TYPES = ("application/xhtml+xml", "text/html", "application/x-dtbook+xml")
_MAX_INDEX_BYTES = 8 << 20
_MAX_ENTRIES = 20_000
_MARKUP_FACTOR = 4
"""Chapters may hold so many times more bytes of markup than the text may."""
_FACTS = {"title": "title", "creator": "author", "rights": "licence", "language": "book_language"}
_DAMAGE = (
    *(zipfile.BadZipFile, zlib.error, EOFError, KeyError, NotImplementedError, RuntimeError, OSError),
    UnicodeDecodeError,  # of a name in front of an entry
)


def convert_epub(path: Path, max_bytes: int) -> Converted:
    """The chapters' text, parted by blank lines; chapters that cannot be read are reported by name.

    Raises Unreadable when the file is no EPUB, is encrypted, or is larger than it may be.
    """
    try:
        book = zipfile.ZipFile(path)
    except _DAMAGE as error:
        raise Unreadable(f"damaged EPUB file: {error}") from error
    with book:
        if len(book.infolist()) > _MAX_ENTRIES:
            raise Unreadable(f"too many parts: more than {_MAX_ENTRIES} files in the EPUB")
        package_name = _package_name(book)
        package = _xml(book, package_name)
        _refuse_encrypted(book)
        converted = Converted("", _facts(package), without_text="no chapter of the book holds text")
        chapters = []
        remaining = _MARKUP_FACTOR * max_bytes
        for name in _spine(package, posixpath.dirname(package_name)):
            content = _read(book, name, remaining)
            if isinstance(content, str):
                converted.faults.append((name, content))
                continue
            remaining -= len(content)
            if text := _chapter_text(content):
                chapters.append(text)
    converted.text = "\n\n".join(chapters)
    return converted


def _package_name(book: zipfile.ZipFile) -> str:
    roots = _xml(book, _CONTAINER).all("rootfile")
    names = [root.attributes["full-path"] for root in roots if root.attributes.get("full-path")]
    if not names:
        raise Unreadable("damaged EPUB file: its container names no package document")
    return names[0]


def _xml(book: zipfile.ZipFile, name: str) -> Element:
    content = _read(book, name, _MAX_INDEX_BYTES)
    if isinstance(content, str):
        raise Unreadable(f"damaged EPUB file: {name}: {content}")
    try:
        return parse_xml(content)
    except BadXml as error:
        raise Unreadable(f"damaged EPUB file: {name}: {error}") from error


def _read(book: zipfile.ZipFile, name: str, max_bytes: int) -> bytes | str:
    """A part's content, or why it has none. Raises Unreadable for a part that is too long."""
    try:
        entry = book.getinfo(name)
    except KeyError:
        return "missing chapter: the EPUB has no such part"
    if entry.flag_bits & 1:
        return "encrypted: the part needs a password"
    if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        return "bad chapter: EPUB allows no other compression than deflate"
    try:
        with book.open(entry) as file:
            content = file.read(max_bytes + 1)
    except _DAMAGE as error:
        return f"damaged chapter: {' '.join(str(error).split())[:200]}"
    if len(content) > max_bytes:
        raise Unreadable(f"too long: {name} takes the EPUB beyond what is read of it")
    return content


def _refuse_encrypted(book: zipfile.ZipFile) -> None:
    if _ENCRYPTION not in book.namelist():
        return
    methods = _xml(book, _ENCRYPTION).all("EncryptionMethod")
    if any(method.attributes.get("Algorithm") not in _FONT_ENCRYPTION for method in methods):
        raise Unreadable("encrypted: the book is under digital rights management")


def _spine(package: Element, folder: str) -> list[str]:
    """Names of the chapters in reading order, each once; navigation documents are left out."""
    items = {item.attributes.get("id"): item.attributes for item in package.all("item")}
    names: dict[str, None] = {}
    for reference in package.all("itemref"):
        item = items.get(reference.attributes.get("idref"), {})
        is_chapter = item.get("media-type", "").strip().lower() in _CHAPTER_TYPES
        if is_chapter and "nav" not in item.get("properties", "").split() and item.get("href"):
            href = unquote(item["href"].partition("#")[0])
            names[posixpath.normpath(posixpath.join(folder, href))] = None
    return list(names)


def _facts(package: Element) -> dict[str, str]:
    """Title, author, licence and language, from the package's Dublin Core metadata."""
    facts: dict[str, str] = {}
    for metadata in package.all("metadata"):
        for element, fact in _FACTS.items():
            values = [found.text for found in metadata.all(element) if found.text.strip()]
            if values:
                facts.setdefault(fact, ", ".join(values))
    return facts


def _chapter_text(content: bytes) -> str:
    """All text of a chapter in order."""
    return extract_plain_text(
        decode_text(content),
        preserve_formatting=True,
        main_content=False,
        list_bullets=True,
        alt_texts=False,
    ).strip()
