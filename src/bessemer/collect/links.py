"""The links of a page, in document order."""

from resiliparse.parse.encoding import bytes_to_str, detect_encoding
from resiliparse.parse.html import ElementNode, HTMLTree

from bessemer.collect.urls import canonical_url
from bessemer.formats.http_message import HttpResponse

_TAGS = frozenset({"a", "area", "base", "meta"})
_HTML_TYPES = frozenset({"text/html", "application/xhtml+xml"})


def media_type(response: HttpResponse) -> str:
    """Content-Type without parameters, in lower case; empty when absent."""
    return (response.header("Content-Type") or "").partition(";")[0].strip().lower()


def extract_links(url: str, response: HttpResponse, content: bytes, follow_all: bool) -> list[str]:
    """Canonical URLs that a page links to, each once, in document order.

    `content` is the decoded body. Unless `follow_all`, links marked nofollow are left out.
    """
    if media_type(response) not in _HTML_TYPES:
        return []
    tree = HTMLTree.parse(bytes_to_str(content, detect_encoding(content) or "utf-8"))
    if tree.document is None:
        return []
    # One walk over the tree: resiliparse's element collections search anew at every step.
    elements = [node for node in tree.document if isinstance(node, ElementNode) and node.tag in _TAGS]
    if not follow_all and any(_is_nofollow_page(element) for element in elements):
        return []
    base = next((_attribute(element, "href") for element in elements if element.tag == "base"), "")
    base_url = canonical_url(base, url) or url
    links: dict[str, None] = {}
    for anchor in (element for element in elements if element.tag in ("a", "area")):
        if not follow_all and "nofollow" in _attribute(anchor, "rel").lower().split():
            continue
        href = _attribute(anchor, "href")
        link = canonical_url(href, base_url) if href else None
        if link is not None:
            links[link] = None
    return list(links)


def _is_nofollow_page(element: ElementNode) -> bool:
    if element.tag != "meta" or _attribute(element, "name").lower() != "robots":
        return False
    directives = _attribute(element, "content").lower().replace(",", " ").split()
    return "nofollow" in directives or "none" in directives


def _attribute(element: ElementNode, name: str) -> str:
    return element.getattr(name) or ""
