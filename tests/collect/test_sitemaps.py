"""Sitemaps: what they list, in every form, and what they must not do."""

import gzip
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bessemer.collect.sitemaps import parse_sitemap

NAMESPACE = 'xmlns="http://www.sitemaps.org/schemas/sitemap/0.9"'


def urlset(*urls: str) -> bytes:
    items = "".join(f"<url><loc> {url}\n</loc><lastmod>2024-01-01</lastmod></url>" for url in urls)
    return f'<?xml version="1.0" encoding="UTF-8"?><urlset {NAMESPACE}>{items}</urlset>'.encode()


def test_pages_and_sitemaps_are_listed_in_order():
    assert parse_sitemap((), urlset("http://a/1?x=1&amp;y=2", "http://a/2"), 10).pages == (
        "http://a/1?x=1&y=2",
        "http://a/2",
    )
    index = (
        b"<s:sitemapindex xmlns:s='x'><s:sitemap><s:loc>http://a/s.xml</s:loc></s:sitemap></s:sitemapindex>"
    )
    sitemap = parse_sitemap((), index, 10)
    assert (sitemap.pages, sitemap.sitemaps, sitemap.fault) == ((), ("http://a/s.xml",), None)


def test_locations_of_pictures_are_no_pages():
    body = (
        b"<urlset><url><loc>http://a/1</loc><image:image xmlns:image='i'><image:loc>http://a/i.png</image:loc>"
        b"</image:image></url></urlset>"
    )
    assert parse_sitemap((), body, 10).pages == ("http://a/1",)


@pytest.mark.parametrize("headers", [(), (("Content-Encoding", "gzip"),)])
def test_gzipped_sitemaps_are_read_as_files_and_as_encodings(headers):
    assert parse_sitemap(headers, gzip.compress(urlset("http://a/1")), 10).pages == ("http://a/1",)


def test_other_encodings_and_plain_text_are_read():
    latin = '<?xml version="1.0" encoding="iso-8859-1"?><urlset><url><loc>http://a/é</loc></url></urlset>'
    assert parse_sitemap((), latin.encode("latin-1"), 10).pages == ("http://a/é",)
    assert parse_sitemap((), latin.replace("iso-8859-1", "utf-16").encode("utf-16"), 10).pages == (
        "http://a/é",
    )
    assert parse_sitemap((), b"\xef\xbb\xbfhttp://a/1\r\n\nftp://a/2\nhttps://a/3", 10).pages == (
        "http://a/1",
        "https://a/3",
    )


def test_what_comes_before_a_fault_counts():
    whole = urlset("http://a/1", "http://a/2")
    sitemap = parse_sitemap((), whole[:-40], 10)
    assert sitemap.pages[0] == "http://a/1"
    assert sitemap.fault is not None
    assert sitemap.fault.startswith("is no XML")
    cut = parse_sitemap((), urlset("http://a/1", "http://a/2", "http://a/3"), 2)
    assert cut.pages == ("http://a/1", "http://a/2")
    assert cut.fault == "lists more than 2 URLs; the rest is left"


def test_pages_that_are_no_sitemaps_are_named():
    assert "root is 'html'" in (parse_sitemap((), b"<html><body/></html>", 10).fault or "")
    assert "lists no URL" in (parse_sitemap((), b"hello", 10).fault or "")


def test_entities_are_neither_expanded_nor_fetched():
    laughs = "".join(f'<!ENTITY l{n} "{f"&l{n - 1};" * 10}">' for n in range(1, 12))
    bomb = f'<!DOCTYPE u [<!ENTITY l0 "ha">{laughs}]><urlset><url><loc>&l11;</loc></url></urlset>'
    outside = (
        '<!DOCTYPE u [<!ENTITY x SYSTEM "file:///etc/passwd">]><urlset><url><loc>&x;</loc></url></urlset>'
    )
    remote = '<!DOCTYPE urlset SYSTEM "http://a/x.dtd"><urlset><url><loc>http://a/1</loc></url></urlset>'
    for text in (bomb, outside, remote):
        started = time.process_time()
        sitemap = parse_sitemap((), text.encode(), 10)
        assert sitemap.pages == ()
        assert "document type" in (sitemap.fault or "")
        assert time.process_time() - started < 0.5


def test_a_compressed_bomb_is_bounded():
    bomb = gzip.compress(b"<urlset>" + bytes(80_000_000).replace(b"\0", b" "), 9)
    sitemap = parse_sitemap((), bomb, 10)
    assert "decompresses to more" in (sitemap.fault or "")


def test_endless_locations_and_nesting_are_left_out():
    assert (
        parse_sitemap((), b"<urlset><url><loc>http://a/" + b"x" * 9000 + b"</loc></url></urlset>", 9).pages
        == ()
    )
    assert "nested too deeply" in (parse_sitemap((), b"<urlset>" + b"<a>" * 90_000, 9).fault or "")


@given(st.binary(max_size=300) | st.text(st.sampled_from("<>/urlseto c'=&;"), max_size=200).map(str.encode))
def test_any_bytes_are_read_without_an_error(body):
    parse_sitemap((), body, 10)
