"""What is changed about a page before its text is taken: for the parser's sake in the HTML, then in the tree.

None of it changes ordinary pages.
"""

import re

from resiliparse.parse.html import ElementNode, HTMLTree, Node

from bessemer.curate.kernels.page_shape import LONE_LETTERS, PageShape

MAX_OPTIONS = 1000
"""Options of forms that the parser gets to see. Its time is quadratic in those of one `<select>`, closed or
not: 10,000 took 0.4 s, 40,000 took 17 s."""
MAX_TABLES = 2000
"""Pages with more tables are not looked through for rows to mend."""
_OPTION = re.compile(r"</?opt(?:ion|group)\b[^<>]*>?", re.IGNORECASE)
_BLANKS = r"[ \t-\r]*"
_LETTERS = "".join(f"{chr(first)}-{chr(last)}" for first, last in LONE_LETTERS)
_LONE_LETTER = re.compile(f"(>{_BLANKS}[{_LETTERS}])(?={_BLANKS}<)")
_NOT_ALONE = "\\1\u2060"
"""The extractor takes an element with a single character of three UTF-8 bytes for an icon, and with it every
letter of many scripts that stands alone in a link or a cell, and check marks. A word joiner behind it, which
the normal form takes out again, keeps it."""
_REST_OF_TAG = re.compile(r"(?!\w)[^<>]*>")
"""What follows the name of an element in its start tag."""
GUTTERS = ("td.linenos", "td.gutter", "span.linenos")
"""Line numbers beside code, as Pygments and SyntaxHighlighter write them."""
_LONG_CELL = 300
"""Characters; a table with a longer cell is there for the layout or holds text, not figures."""
_BREAKS = "p, div, br"
"""Elements that start a new line."""
_FIGURES = f"table:has({_BREAKS}):not(:has(table, pre, ul, ol, form, script, h1, h2, h3))"
"""Tables of figures and short texts, whose cells hold line breaks."""
_HIDING_ATTRIBUTES = ("style", "hidden", "aria-hidden")


def prepare_html(html: str, shape: PageShape) -> str:
    """The page as the parser gets it."""
    html = html if shape.num_options <= MAX_OPTIONS else _drop_options(html)
    return _shelter_main(_LONE_LETTER.sub(_NOT_ALONE, html) if shape.lone_letters else html)


def _drop_options(html: str) -> str:
    """Without the tags of options where there are very many: their words stay inside `<select>`, unread."""
    return html if len(_OPTION.findall(html)) <= MAX_OPTIONS else _OPTION.sub(" ", html)


def _shelter_main(html: str) -> str:
    """Put `<main>` content two levels deeper, so that the extractor keeps its lists.

    It takes every unordered list within four levels of the root for navigation. HTML (Living Standard,
    section 4.4.14) forbids content repeated across pages, such as navigation, in `main`.
    """
    # Splitting takes a sixth of the time of a pattern that goes through the page.
    before, *behind = html.split("<main")
    if not behind:
        return html
    return (before + "".join(map(_deepened, behind))).replace("</main>", "</div></div></main>")


def _deepened(behind: str) -> str:
    """`<main` and what is behind it, with two more elements opened if that is a start tag."""
    rest = _REST_OF_TAG.match(behind)
    return f"<main{behind}" if rest is None else f"<main{rest[0]}<div><div>{behind[rest.end() :]}"


def mend_tables(tree: HTMLTree) -> None:
    """Keep each row of a table on a line where paragraphs or line breaks inside its cells would part it.

    Only tables of figures and short texts are changed: those in whose cells no other table, list or code lies
    and no text is longer than _LONG_CELL. What may be hidden stays in its element.
    """
    body = tree.body
    if body is None or len(body.get_elements_by_tag_name("table")) > MAX_TABLES:
        return
    for table in list(body.query_selector_all(_FIGURES)):
        cells = list(table.query_selector_all("td, th"))
        if all(len(cell.text or "") <= _LONG_CELL for cell in cells):
            for cell in cells:
                _join_lines(tree, cell)


def _join_lines(tree: HTMLTree, cell: ElementNode) -> None:
    for element in list(cell.query_selector_all(_BREAKS)):
        if any(element.hasattr(name) for name in _HIDING_ATTRIBUTES):
            continue
        parent = element.parent
        assert parent is not None
        children = [_blank(tree), *element.child_nodes, _blank(tree)]
        for child in children:
            parent.insert_before(child, element)
        element.decompose()


def _blank(tree: HTMLTree) -> Node:
    node = tree.create_text_node(" ")
    assert node is not None
    return node
