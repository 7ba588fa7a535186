"""What a page links to, under which licence it says it is, and what its meta elements say."""

import re
from dataclasses import dataclass

from resiliparse.parse.encoding import bytes_to_str, detect_encoding

from bessemer.collect.markup import tags_of
from bessemer.formats.http_message import HttpResponse
from bessemer.urls import canonical_url

_HTML_TYPES = frozenset({"text/html", "application/xhtml+xml"})
_MAX_SCANNED_BYTES = 16 << 20
"""Links beyond this are not found: a page of links alone has a hundred thousand of them by then."""
_REFRESH = re.compile(
    r"\s*\.?\d[\d.]*\s*[;,\s]\s*(?:url\s*=\s*)?(?:\"([^\"]*)|'([^']*)|(.*))", re.IGNORECASE | re.DOTALL
)
_MAX_REFRESH_CHARS = 4096


@dataclass(frozen=True)
class PageMarkup:
    """What a crawler reads in a page."""

    links: tuple[str, ...] = ()
    """Canonical URLs, each once, in document order."""
    metas: tuple[tuple[str, str], ...] = ()
    """Name (or http-equiv) in lower case and content of each meta element."""
    num_links_left: int = 0
    """Further links beyond the limit."""
    licence: str | None = None
    """Where the first link marked `rel=license` leads: the licence of the page (HTML standard, 4.6.6.8)."""


def media_type(response: HttpResponse) -> str:
    """Content-Type without parameters, in lower case; empty when absent."""
    return (response.header("Content-Type") or "").partition(";")[0].strip().lower()


def read_markup(
    url: str, response: HttpResponse, content: bytes, follow_all: bool, max_links: int
) -> PageMarkup:
    """Links and meta elements of a page; `content` is the decoded body.

    Unless `follow_all`, links marked nofollow are left out. `max_links` bounds the links; 0 does not. A meta
    refresh is a link too: pages that moved often hold nothing else.
    """
    if media_type(response) not in _HTML_TYPES:
        return PageMarkup()
    content = content[:_MAX_SCANNED_BYTES]
    hrefs: dict[str, None] = {}
    metas: list[tuple[str, str]] = []
    base, licence = "", ""
    for tag, attributes in tags_of(bytes_to_str(content, detect_encoding(content) or "utf-8")):
        if tag == "meta":
            name = attributes.get("name") or attributes.get("http-equiv") or ""
            metas.append((name.strip().lower(), attributes.get("content", "")))
            if attributes.get("http-equiv", "").strip().lower() == "refresh":
                hrefs[_refresh_target(attributes.get("content", ""))] = None
            continue
        if tag == "base":
            base = base or attributes.get("href", "")
            continue
        relations = attributes.get("rel", "").lower().split()
        if "license" in relations:
            licence = licence or attributes.get("href", "")
        if tag != "link" and (follow_all or "nofollow" not in relations):
            # Without its fragment first: an index links to one page a thousand times.
            hrefs[attributes.get("src" if tag == "frame" else "href", "").partition("#")[0]] = None
    base_url = (canonical_url(base, url) if base else None) or url
    links = dict.fromkeys(link for href in hrefs if href and (link := canonical_url(href, base_url)))
    kept = list(links)[: max_links or None]
    licence_url = canonical_url(licence, base_url) if licence else None
    return PageMarkup(tuple(kept), tuple(metas), len(links) - len(kept), licence_url)


def _refresh_target(content: str) -> str:
    """Where `<meta http-equiv=refresh content="0; url=…">` leads; empty when it only loads the page again."""
    found = _REFRESH.match(content[:_MAX_REFRESH_CHARS])
    if found is None:
        return ""
    return (found[1] or found[2] or found[3] or "").strip().partition("#")[0]
