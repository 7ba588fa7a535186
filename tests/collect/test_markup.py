"""Links and meta elements, with a browser's parser (lexbor, in resiliparse) as the oracle."""

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from resiliparse.parse.html import ElementNode, HTMLTree

from bessemer.collect.links import read_markup
from bessemer.collect.markup import tags_of
from bessemer.formats.http_message import HttpResponse

HTML = HttpResponse(200, "OK", (("Content-Type", "text/html"),), b"")
BASE = "http://a.test/dir/page"


def links(page: str, follow_all: bool = False, max_links: int = 0) -> list[str]:
    return list(read_markup(BASE, HTML, page.encode(), follow_all, max_links).links)


def hrefs_of_the_tree(page: str) -> list[str]:
    document = HTMLTree.parse(page).document
    assert document is not None
    return [
        node.getattr("href") or ""
        for node in document
        if isinstance(node, ElementNode) and node.tag == "a" and node.hasattr("href")
    ]


def hrefs_of_the_scan(page: str) -> list[str]:
    return [attributes["href"] for tag, attributes in tags_of(page) if tag == "a" and "href" in attributes]


PAGES = [
    "<a href=\"/1\">x</a><A HREF=/2>x</A><a\nhref = '/3' >x</a><a/href=/4>x</a>",
    '<a title="a > b" href="/1"><a title=it\'s href=/2><a href="/&amp;3&copy;">',
    '<!-- <a href="/no"> --><a href="/1"><!--><a href="/2">--><!-- a -- > b --><a href="/3">',
    '<script>"<a href=/no>"</script><style><a href="/no"></style><a href="/1">',
    '<title><a href="/no"></title><textarea><a href="/no"></textarea><a href="/1">',
    '<script><a href="/no"></scripts><a href="/no"></SCRIPT ><a href="/1">',
    '<a href="/1" href="/no"><a data-href="/no" href="/2"><abbr href="/no"><a>',
]


@pytest.mark.parametrize("page", PAGES)
def test_tags_are_found_as_a_browser_finds_them(page):
    assert hrefs_of_the_scan(page) == hrefs_of_the_tree(page)


MARKUP = st.lists(
    st.sampled_from(
        [
            *("<a ", "href=", '"', "'", ">", "<", "/1", "/", " ", "<!--", "-->", "x", "=", "&amp;", "</a>"),
            *("<script>", "</script>", "<title>", "</title>", "\n", "<p>", "!", "-"),
        ]
    ),
    max_size=25,
).map("".join)


@settings(max_examples=300)
@given(MARKUP)
def test_any_markup_gives_links_of_the_page_only(page):
    # A tag that the page ends in is no tag to a browser; the scan may take it.
    closed = page + "\"'>-->"
    found = hrefs_of_the_scan(closed)
    assert all(len(href) <= len(closed) for href in found)
    links(page)


def test_links_are_resolved_deduplicated_and_limited():
    page = '<base href="/b/"><base href="/c/"><a href="x#1"><a href="x#2"><a href="#3">'
    page += '<area href="../y"><frame src=z>'
    assert links(page) == ["http://a.test/b/x", "http://a.test/y", "http://a.test/b/z"]
    markup = read_markup(BASE, HTML, page.encode(), False, 2)
    assert (len(markup.links), markup.num_links_left) == (2, 1)


def test_nofollow_links_are_followed_on_demand_only():
    page = '<a rel="noopener NOFOLLOW" href="/no"><a href="/yes" rel=next>'
    assert links(page) == ["http://a.test/yes"]
    assert len(links(page, follow_all=True)) == 2


def test_meta_elements_are_given_by_name_or_http_equiv():
    page = '<META NAME="Robots" CONTENT="noai">'
    page += "<meta http-equiv=X-Robots-Tag content='noindex'><meta charset=x>"
    assert read_markup(BASE, HTML, page.encode(), False, 0).metas == (
        ("robots", "noai"),
        ("x-robots-tag", "noindex"),
        ("", ""),
    )


@pytest.mark.parametrize(
    "piece",
    ["<a ", '<a href="', "<!--", "<script>", "<a x='", "<", "<a x=", "<a = ", "<title", "<a href=/x "],
)
def test_hostile_pages_take_time_in_proportion(piece):
    """A megabyte takes about half a second on a slow machine; in quadratic time it would take minutes."""
    started = time.process_time()
    list(tags_of(piece * (1_000_000 // len(piece))))
    assert time.process_time() - started < 8.0


@pytest.mark.parametrize(
    ("content", "target"),
    [
        ("0; url=/new", "http://a.test/new"),
        ("5;URL='new#part'", "http://a.test/dir/new"),
        ('0,"/quoted"', "http://a.test/quoted"),
        ("0 /bare", "http://a.test/bare"),
        ("300", None),
        ("soon; url=/no", None),
    ],
)
def test_a_refresh_is_a_link(content, target):
    page = f"<meta http-equiv=Refresh content='{content}'>" if "'" not in content else ""
    page = page or f'<meta http-equiv=Refresh content="{content}">'
    assert links(page) == ([target] if target else [])


def test_the_first_licence_link_is_the_licence_of_the_page():
    page = '<link rel="License" href="/cc-by"><a rel="license nofollow" href="/other">x</a><link href="/no">'
    markup = read_markup(BASE, HTML, page.encode(), False, 0)
    assert (markup.licence, markup.links) == ("http://a.test/cc-by", ())
