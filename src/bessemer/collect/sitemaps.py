"""Sitemaps (sitemaps.org protocol 0.9): lists of pages, lists of such lists, plain or gzipped.

XML is read with expat as a stream; a document that declares a type is refused before an entity can be
defined, so that nothing expands and nothing outside is read. Sizes and counts are bounded by the caller.
"""

import xml.parsers.expat
from dataclasses import dataclass, field

from bessemer.formats.http_message import Headers, decode_body

MAX_SITEMAP_BYTES = 52_428_800
"""sitemaps.org: a sitemap holds at most 50,000 URLs and 50 MiB, uncompressed."""
_STEP_BYTES = 1 << 16
_MAX_URL_CHARS = 2048
_GZIP_MAGIC = b"\x1f\x8b"


@dataclass(frozen=True)
class Sitemap:
    """What one file lists, in its order."""

    pages: tuple[str, ...] = ()
    sitemaps: tuple[str, ...] = ()
    fault: str | None = None
    """Why the file was not read to its end; what came before the fault counts."""


def parse_sitemap(headers: Headers, body: bytes, max_urls: int) -> Sitemap:
    """Read a sitemap as a server sent it: XML (`urlset` or `sitemapindex`) or text, a URL a line."""
    decoded = decode_body(headers, body, MAX_SITEMAP_BYTES)
    content, fault = decoded.content, decoded.fault
    if content.startswith(_GZIP_MAGIC):
        # `sitemap.xml.gz` is served as a file of its own kind, not as an encoding.
        unpacked = decode_body((("Content-Encoding", "gzip"),), content, MAX_SITEMAP_BYTES)
        content, fault = unpacked.content, fault or unpacked.fault
    start = content[:512].lstrip(b"\xef\xbb\xbf \t\r\n")
    is_xml = start.startswith(b"<") or content.startswith((b"\xff\xfe", b"\xfe\xff"))
    sitemap = _parse_xml(content, max_urls) if is_xml else _parse_text(content, max_urls)
    return Sitemap(sitemap.pages, sitemap.sitemaps, fault or sitemap.fault)


class _Refused(Exception):
    """Raised inside a parser's callbacks to stop it."""


@dataclass
class _Collector:
    """Takes `<loc>` texts out of a stream of XML events. Prefixes of namespaces do not matter."""

    max_urls: int
    pages: list[str] = field(default_factory=list)
    sitemaps: list[str] = field(default_factory=list)
    _path: list[str] = field(default_factory=list)
    _text: list[str] = field(default_factory=list)
    _num_chars: int = 0

    def doctype(self, *_: object) -> None:
        raise _Refused("declares a document type, which a sitemap has no use for")

    def start(self, name: str, _: object) -> None:
        name = name.rpartition(":")[2]
        if not self._path and name not in ("urlset", "sitemapindex"):
            raise _Refused(f"is no sitemap: its root is {name[:40]!r}")
        if len(self._path) > 16:
            raise _Refused("is nested too deeply")
        self._path.append(name)
        self._text, self._num_chars = [], 0

    def text(self, text: str) -> None:
        if self._path[-1] == "loc" and self._num_chars <= _MAX_URL_CHARS:
            self._text.append(text)
            self._num_chars += len(text)

    def end(self, _: str) -> None:
        path, text = self._path[-2:], "".join(self._text).strip()
        self._path.pop()
        if len(self._path) == 2 and text and self._num_chars <= _MAX_URL_CHARS:
            if path == ["url", "loc"]:
                self._add(self.pages, text)
            elif path == ["sitemap", "loc"]:
                self._add(self.sitemaps, text)

    def _add(self, urls: list[str], url: str) -> None:
        if len(self.pages) + len(self.sitemaps) >= self.max_urls:
            raise _Refused(f"lists more than {self.max_urls} URLs; the rest is left")
        urls.append(url)


def _parse_xml(content: bytes, max_urls: int) -> Sitemap:
    found = _Collector(max_urls)
    parser = xml.parsers.expat.ParserCreate()
    parser.buffer_text = True
    parser.StartDoctypeDeclHandler = found.doctype
    parser.StartElementHandler = found.start
    parser.CharacterDataHandler = found.text
    parser.EndElementHandler = found.end
    fault = None
    try:
        for position in range(0, len(content), _STEP_BYTES):
            parser.Parse(content[position : position + _STEP_BYTES], False)
        parser.Parse(b"", True)
    except _Refused as refusal:
        fault = str(refusal)
    except (xml.parsers.expat.ExpatError, ValueError, LookupError) as error:
        fault = f"is no XML: {error}"
    return Sitemap(tuple(found.pages), tuple(found.sitemaps), fault)


def _parse_text(content: bytes, max_urls: int) -> Sitemap:
    lines = content.decode("utf-8", "replace").removeprefix("\ufeff").split("\n", max_urls)
    urls = [line.strip() for line in lines[:max_urls]]
    pages = [url for url in urls if url.startswith(("http://", "https://")) and len(url) <= _MAX_URL_CHARS]
    is_cut = len(lines) > max_urls and bool(lines[-1].strip())
    fault = f"lists more than {max_urls} URLs; the rest is left" if is_cut else None
    return Sitemap(tuple(pages), (), fault if pages or fault else "is no sitemap: it lists no URL")
