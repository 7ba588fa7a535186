"""The shell of the report page: one self-contained HTML file that loads nothing from anywhere."""

from collections.abc import Sequence
from importlib.resources import files

from markupsafe import Markup

from bessemer.export.markup import Node, tag

_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
"""Content-Security-Policy: should markup ever slip through, the browser still runs and loads nothing."""


def page(
    title: str,
    subtitle: Node,
    links: Sequence[tuple[str, str]],
    body: Sequence[Node],
    refresh_s: float | None = None,
) -> str:
    """A whole HTML document; `links` are (section id, text) of the contents line.

    With `refresh_s` the browser loads the page anew after so many seconds.
    """
    style = files("bessemer.export").joinpath("report.css").read_text(encoding="utf-8")
    contents = tag("nav", *(tag("a", text, href=f"#{id}") for id, text in links), aria_label="Contents")
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", http_equiv="Content-Security-Policy", content=_POLICY),
        tag("meta", name="color-scheme", content="light dark"),
        *([tag("meta", http_equiv="refresh", content=f"{refresh_s:g}")] if refresh_s else []),
        tag("title", title),
        tag("style", Markup(style)),
    )
    top = tag("header", tag("h1", title), tag("p", subtitle, class_="muted"), contents)
    document = tag("html", head, tag("body", top, tag("main", *body)), lang="en")
    return f"<!doctype html>\n{document}\n"
