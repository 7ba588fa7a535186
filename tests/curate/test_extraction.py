"""Pages in every state give clean text or a reason, and never an exception that nobody expects."""

import json
import re

import pytest
from curate_helpers import html_page

from bessemer.curate.extraction import ExtractionFault, clean, decode, extract_html
from bessemer.curate.extraction.config import ExtractionConfig
from bessemer.curate.kernels.page_shape import page_shape
from bessemer.curate.language import identify_language
from bessemer.curate.records import read_candidate
from bessemer.formats.warc import WarcDamage, WarcRecord


def record(
    body: bytes, content_type: str = "text/html", type: str = "resource", uri: str = "file:a"
) -> WarcRecord:
    headers = (("WARC-Type", type), ("WARC-Target-URI", uri), ("Content-Type", content_type))
    return WarcRecord("pages.warc.gz", 0, 0, headers, body)


def response(body: bytes, content_type: str = "text/html", status: int = 200) -> WarcRecord:
    head = f"HTTP/1.1 {status} X\r\nContent-Type: {content_type}\r\n\r\n".encode()
    return record(head + body, "application/http", "response", "https://example.org/a")


def read(item: WarcRecord | WarcDamage, max_page_bytes: int = 1 << 20):
    return read_candidate(item, ExtractionConfig(max_page_bytes=max_page_bytes))


def test_code_in_pre_keeps_its_lines_and_indentation():
    html = "<main><h1>Loops</h1><p>Write this:</p><pre>for x in y:\n    print(x)\n\n    done()</pre></main>"
    assert "for x in y:\n    print(x)\n\n    done()" in extract_html(html, 100).text


def test_lists_tables_and_title_are_there_and_navigation_and_scripts_are_not():
    html = (
        "<html><title> A  title </title><body><nav><a href=x>Home</a></nav><main><p>A paragraph that is long "
        "enough to be the content of the page.</p><ul><li>first point</li><li>second point</li></ul>"
        "<table><tr><td>cell</td></tr></table></main><script>var x = 1</script></body></html>"
    )
    extracted = extract_html(html, 100)
    assert extracted.title == "A title"
    for piece in ("first point", "second point", "cell"):
        assert piece in extracted.text
    for piece in ("Home", "var x"):
        assert piece not in extracted.text


_AROUND = "<p>" + "A paragraph that is long enough to be the content of the page. " * 4 + "</p>"


@pytest.mark.parametrize(
    ("row", "line"),
    [
        ("<td>a<td>b<td>c", "a\t\tb\t\tc"),
        ("<th scope=row>a<td></td><td>c", "a\t\t\t\tc"),
        ("<td><p>a</p><td><div>b</div><div>bb</div><td>c<br>cc", "a\t\tb bb\t\tc cc"),
        ("<td><p>a <b>strong</b> <a href=x>link</a></p><td>b", "a strong link\t\tb"),
        ("<td><div style='display:none'>hidden</div><p>a</p><td>b", "a\t\tb"),
    ],
)
def test_a_row_of_a_table_is_a_line_with_two_tabs_between_its_cells(row: str, line: str):
    table = f"<table><tr>{row}</tr><tr><td>x<td>y<td>z</tr></table>"
    text = extract_html(f"<main>{_AROUND}{table}{_AROUND}</main>", 100).text
    rows = [[cell.strip() for cell in row.split("\t\t")] for row in text.split("\n") if "\t" in row]
    assert rows == [line.split("\t\t"), ["x", "y", "z"]]


def test_cells_with_lists_code_or_long_text_keep_their_lines():
    long = "<p>First paragraph of a page laid out by a table.</p><p>" + "Second paragraph. " * 30
    for cell in ("<ul><li>a<li>b</ul>", "<pre>x = 1\ny = 2</pre>", long):
        text = extract_html(f"<main>{_AROUND}<table><tr><td>{cell}<td>z</table>{_AROUND}</main>", 100).text
        first, second = {"<u": ("a", "b"), "<p": ("x = 1", "y = 2")}.get(cell[:2], ("", ""))
        if cell == long:
            first, second = "First paragraph of a page laid out by a table.", "Second paragraph. Second"
        assert re.search(rf"{re.escape(first)}\n+[ •]*{re.escape(second)}", text)


@pytest.mark.parametrize(
    ("content", "content_type", "text", "encoding"),
    [
        ("naïve".encode(), "text/html; charset=latin-1", "naïve", "utf-8"),
        ("naïve".encode("cp1252"), "text/html; charset=ISO-8859-1", "naïve", "cp1252"),
        ("Привет".encode("koi8-r"), 'text/html; charset="KOI8-R"', "Привет", "koi8-r"),
        ('<meta charset="koi8-r">Привет'.encode("koi8-r"), "", '<meta charset="koi8-r">Привет', "koi8-r"),
        (b"\xff\xfeh\x00i\x00", "", "hi", "utf-16-le"),
        (b"\xef\xbb\xbfhi", "", "hi", "utf-8"),
        (
            "A naïve café owner’s “no”".encode("cp1252"),
            "charset=nonsense",
            "A naïve café owner’s “no”",
            "cp1252",
        ),
        (b"", "", "", "utf-8"),
    ],
)
def test_encodings_are_recognised(content: bytes, content_type: str, text: str, encoding: str):
    assert decode(content, content_type) == (text, encoding)


def test_plain_text_comes_into_normal_form():
    extracted = clean("a\r\nb \x07\xa0c  \rd\u2028e\n\n\n\nf\n\n", " T\n t ")
    assert extracted.text == "a\nb  c\nd\ne\n\nf"
    assert extracted.title == "T t"
    assert clean("\ud83d\ude00 \ud800").text == "😀 \ufffd"
    assert clean(" \n\t\n").text == ""


def test_pages_nested_ten_thousand_levels_deep_are_dropped_and_flat_ones_are_not():
    with pytest.raises(ExtractionFault, match="nest too deeply"):
        extract_html("<div>" * 10_000 + "deep" + "</div>" * 10_000, 2000)
    flat = "<div><p>text<br>more</div>" * 3000
    assert page_shape(flat).depth == 1
    assert page_shape("<ul><li><UL><LI>x</ul></ul><!-- no --> a < b").depth == 2
    assert extract_html(flat, 2000).text


@pytest.mark.parametrize(
    ("item", "rule"),
    [
        (response(b""), "extract.empty"),
        (response(b"<html><body></body></html>"), "extract.empty"),
        (response(b"<p>x</p>", status=404), "read.http_status"),
        (response(b"%PDF-1.7", "application/pdf"), "read.content_type"),
        (response(b"\x00\x01\x02\x03binary" * 50), "extract.undecodable"),
        (response(b"\xfd\x81\x9d" * 50, "text/plain; charset=utf-8"), "extract.undecodable"),
        (response(b"<p>" + b"word " * 400_000), "read.page_bytes"),
        (response(b"<div>" * 5000 + b"x"), "extract.nesting"),
        (record(b"no HTTP here", "application/http", "response"), "read.no_http"),
        (record(b"HTTP/1.1 200 OK\r\n\r\n", "application/http", "revisit"), "read.revisit"),
        (record(b"{not json", "application/json"), "extract.json_row"),
        (record(b"[" * 100_000, "application/json"), "extract.json_row"),
        (record(b'{"text": 3}', "application/json"), "extract.json_row"),
        (response(b'{"text": "an API answer"}', "application/json"), "read.content_type"),
        (WarcDamage("pages.warc.gz", 7, 100, "cut short"), "read.damaged"),
    ],
)
def test_what_gives_no_document_is_dropped_with_the_rule_that_says_why(item, rule: str):
    candidate = read(item)
    assert candidate.drop is not None
    assert candidate.drop.rule == rule


def test_a_line_of_fifty_million_characters_is_read_or_dropped_but_never_fatal():
    body = b"word " * 10_000_000
    assert read(record(body, "text/plain"), 100 << 20).text.startswith("word word")
    drop = read(record(body, "text/plain"), 16 << 20).drop
    assert drop is not None
    assert drop.rule == "read.page_bytes"


def test_rows_of_a_data_set_give_text_and_keep_their_other_columns():
    row = {
        "text": "Some text.",
        "url": "https://a.org/1",
        "id": 7,
        "tags": ["x"],
        "title": "T",
        "source": "set",
    }
    candidate = read(record(json.dumps(row).encode(), "application/json", uri="file:rows.jsonl#3"))
    assert (candidate.text, candidate.url, candidate.title) == ("Some text.", "https://a.org/1", "T")
    assert (candidate.source, candidate.metadata) == ("set", {"id": 7, "tags": ["x"]})
    assert candidate.drop is None
    assert not candidate.is_page_capture


def test_plain_text_of_wet_files_and_pages_without_a_content_type_are_read():
    assert read(record("Größe".encode(), "text/plain", "conversion")).text == "Größe"
    assert read(record(html_page("t", ["A paragraph of text."]), "")).drop is None


def test_the_same_page_has_the_same_id_and_another_url_or_content_another():
    first, again = read(response(b"<p>a</p>")), read(response(b"<p>a</p>"))
    assert first.id == again.id
    assert first.id != read(response(b"<p>b</p>")).id
    assert len(first.id) == 32


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("The house by the river was sold last year, and nobody knows who lives in it now. " * 3, "en"),
        ("Das Haus am Fluss wurde letztes Jahr verkauft, und niemand weiß, wer darin wohnt. " * 3, "de"),
        ("吾輩は猫である。名前はまだ無い。どこで生れたかとんと見当がつかぬ。" * 4, "ja"),
    ],
)
def test_languages_are_told_apart(text: str, code: str):
    language = identify_language(text)
    assert language.code == code
    assert language.score > 0.65


def test_code_around_the_words_does_not_hide_the_language():
    text = (
        "def f(x, y=0):\n    return x.y[3]\n" * 20
        + "Return the sum of all elements over the given axis. " * 5
    )
    assert identify_language(text).code == "en"
