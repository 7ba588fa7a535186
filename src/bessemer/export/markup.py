"""HTML and SVG as values: whatever is not markup already is escaped, so no text can become a tag."""

from collections.abc import Iterable

from markupsafe import Markup, escape

Node = str | Markup | None
"""A child of an element: text (escaped), markup (kept), or nothing."""

_VOID = frozenset({"meta", "link", "br", "hr", "img"})


def tag(name: str, /, *children: Node, **attributes: object) -> Markup:
    """An element. Underscores in attribute names become hyphens, one at the end falls away (`class_`).

    Attributes that are None are left out; values and children are escaped unless they are markup.
    """
    written = Markup("").join(
        Markup(' {}="{}"').format(key.rstrip("_").replace("_", "-"), str(value))
        for key, value in attributes.items()
        if value is not None
    )
    opening = Markup("<{}{}>").format(Markup(name), written)
    return opening if name in _VOID else opening + join(children) + Markup("</{}>").format(Markup(name))


def join(children: Iterable[Node]) -> Markup:
    """Children one after another."""
    return Markup("").join(escape(child) for child in children if child is not None)


def table(headings: Iterable[Node], rows: Iterable[Iterable[Node]], class_: str | None = None) -> Markup:
    """A table that scrolls by itself where the page is narrower."""
    head = tag("thead", tag("tr", *(tag("th", heading, scope="col") for heading in headings)))
    body = tag("tbody", *(tag("tr", *(tag("td", cell) for cell in row)) for row in rows))
    return tag("div", tag("table", head, body, class_=class_), class_="scroll", tabindex="0")


def section(id: str, title: str, *children: Node, lead: str | None = None) -> Markup:
    """A titled part of the page."""
    introduction = tag("p", lead, class_="lead") if lead else None
    return tag("section", tag("h2", title), introduction, *children, id=id)
