"""The main text of an HTML page, by resiliparse (Bevendorff et al. 2018), in bounded time and memory."""

import re

from resiliparse.extract.html2text import extract_plain_text
from resiliparse.parse.html import HTMLTree

from bessemer.curate.extraction.normal_form import clean
from bessemer.curate.extraction.page import Extracted, ExtractionFault
from bessemer.curate.kernels.page_shape import PageShape, page_shape

MAX_TAGS = 1_000_000
"""Most `<` signs; the parsed page takes about 750 bytes for each."""
MAX_STEPS = 50_000_000
"""Largest sum of nesting depths over all tags; 20 million took 0.4 s."""
MAX_COPIES = 1_000_000
"""Most formatting elements made anew; 2 million took 4 s and 0.9 GB."""
_MAIN_START = re.compile(r"<main\b[^<>]*>")


def check_shape(shape: PageShape, max_nesting: int) -> None:
    """Raises ExtractionFault for a page that would take seconds or gigabytes to parse."""
    for rule, detail, value, limit in (
        ("extract.nesting", "elements nest too deeply", shape.depth, max_nesting),
        ("extract.tags", "too many tags", shape.num_tags, MAX_TAGS),
        ("extract.steps", "too many tags too deep", shape.steps, MAX_STEPS),
        ("extract.copies", "formatting elements left open", shape.copies, MAX_COPIES),
    ):
        if value > limit:
            raise ExtractionFault(rule, detail, value, limit)


def extract_html(html: str, max_nesting: int) -> Extracted:
    """The main content of an HTML page: lists, tables, `<pre>` and code indentation stay as they are.

    Raises ExtractionFault when elements nest deeper than `max_nesting`, the page would make
    too much work (see `check_shape`), or the parser gives up.
    """
    check_shape(page_shape(html), max_nesting)
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
