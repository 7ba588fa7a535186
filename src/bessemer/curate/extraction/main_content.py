"""The main text of an HTML page, by resiliparse (Bevendorff et al. 2018), in bounded time and memory."""

from dataclasses import replace

from resiliparse.extract.html2text import extract_plain_text
from resiliparse.parse.html import HTMLTree

from bessemer.curate.extraction.normal_form import clean
from bessemer.curate.extraction.page import Extracted, ExtractionFault
from bessemer.curate.extraction.preparation import GUTTERS, mend_tables, prepare_html
from bessemer.curate.kernels.page_shape import PageShape, page_shape

MAX_TAGS = 1_000_000
"""Most `<` signs; the parsed page takes about 750 bytes for each."""
MAX_STEPS = 50_000_000
"""Largest sum of nesting depths over all tags; 20 million took 0.4 s."""
MAX_COPIES = 1_000_000
"""Most formatting elements made anew; 2 million took 4 s and 0.9 GB."""
MAX_ATTRIBUTES = 500
"""Most attributes on a tag; the parser's time is quadratic in them, 10,000 took 0.2 s."""


def check_shape(shape: PageShape, max_nesting: int) -> None:
    """Raises ExtractionFault for a page that would take seconds or gigabytes to parse."""
    for rule, detail, value, limit in (
        ("extract.nesting", "elements nest too deeply", shape.depth, max_nesting),
        ("extract.tags", "too many tags", shape.num_tags, MAX_TAGS),
        ("extract.steps", "too many tags too deep", shape.steps, MAX_STEPS),
        ("extract.copies", "formatting elements left open", shape.copies, MAX_COPIES),
        ("extract.attributes", "too many attributes on a tag", shape.most_attributes, MAX_ATTRIBUTES),
    ):
        if value > limit:
            raise ExtractionFault(rule, detail, value, limit)


def extract_html(html: str, max_nesting: int) -> Extracted:
    """The main content of an HTML page: lists, tables, `<pre>` and code indentation stay as they are.

    A table's rows are lines, its cells parted by two tabs.
    Raises ExtractionFault when elements nest deeper than `max_nesting`, the page would make
    too much work (see `check_shape`), or the parser gives up.
    """
    shape = page_shape(html)
    check_shape(shape, max_nesting)
    try:
        tree = HTMLTree.parse(prepare_html(html, shape))
        if shape.tables_of_figures:
            mend_tables(tree)
        text = extract_plain_text(
            tree,
            preserve_formatting=True,
            main_content=True,
            list_bullets=True,
            alt_texts=False,
            comments=False,
            post_meta=False,
            skip_elements=GUTTERS if "linenos" in html or "gutter" in html else None,
        )
        title = tree.title
    except ValueError as error:  # base of every exception that the parser documents
        raise ExtractionFault("extract.parser", f"{type(error).__name__}: {error}") from error
    except BaseException as error:
        # A panic of the parser's native code arrives as an exception class that cannot be imported.
        if type(error).__name__ != "PanicException":
            raise
        raise ExtractionFault("extract.parser", f"the parser failed: {error}") from error
    return replace(clean(text, title), extractor="resiliparse")
