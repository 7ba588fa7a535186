"""The tags of a page that matter to a crawler, found without building a tree.

Follows the tokenizer of the HTML standard (section 13.2.5) as far as links need it: comments, raw text
elements, attributes with and without quotes. Takes time in proportion to the page, whatever a hostile
page holds: what is not closed runs to the end, as in a browser.
"""

import html
import re
from collections.abc import Iterator

_OPENING = re.compile(
    r"<(?:(!--)"
    r"|(script|style|textarea|title|xmp|iframe|noembed|noframes)(?=[\s/>])"
    r"|(a|area|base|link|meta|frame)(?=[\s/]))",
    re.IGNORECASE,
)
_ATTRIBUTE = re.compile(
    r"[\s/]*+(?:(?P<end>>)|(?P<name>[^\s/>=][^\s/>=]*+)"
    r"(?:\s*+=\s*+(?:\"(?P<double>[^\"]*+)\"?|'(?P<single>[^']*+)'?|(?P<bare>[^\s>]*+)))?)"
)
_CLOSING = {
    name: re.compile(f"</{name}(?=[\\s/>])", re.IGNORECASE)
    for name in ("script", "style", "textarea", "title", "xmp", "iframe", "noembed", "noframes")
}
_WANTED = frozenset({"href", "src", "rel", "name", "content", "http-equiv"})


def tags_of(page: str) -> Iterator[tuple[str, dict[str, str]]]:
    """`a`, `area`, `base`, `link`, `meta` and `frame` tags in order: name and attributes, both in lower case.

    Only attributes that a crawler reads are given; of several with one name, the first.
    """
    position = 0
    while opening := _OPENING.search(page, position):
        comment, raw, tag = opening.groups()
        if comment:
            # `<!-->` is a whole comment, hence the search from within the opening.
            end = page.find("-->", opening.start() + 2)
            position = len(page) if end < 0 else end + 3
        elif raw:
            closing = _CLOSING[raw.lower()].search(page, opening.end())
            position = closing.end() if closing else len(page)
        else:
            attributes, position = _attributes(page, opening.end())
            yield tag.lower(), attributes


def _attributes(page: str, position: int) -> tuple[dict[str, str], int]:
    """Attributes of a tag, and where it ends."""
    attributes: dict[str, str] = {}
    while match := _ATTRIBUTE.match(page, position):
        position = match.end()
        end, name, double, single, bare = match.groups()
        if end:
            return attributes, position
        name = name.lower()
        if name in _WANTED and name not in attributes:
            value = double or single or bare or ""
            attributes[name] = html.unescape(value) if "&" in value else value
    return attributes, position + 1
