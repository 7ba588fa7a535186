"""Canonical URLs and the address check."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bessemer.collect.addresses import is_public
from bessemer.urls import canonical_url, host_of, origin_of, request_target

URLS = st.builds(
    "{}://{}{}{}".format,
    st.sampled_from(["http", "HTTPS", "ftp"]),
    st.sampled_from(
        ["Example.COM", "example.com:80", "example.com:443", "user:pw@a.b:8080", "bücher.de", "[::1]"]
    ),
    st.text(st.sampled_from("/.aé%2Ff~ ?#&=+;:@!"), max_size=30).map(lambda text: "/" + text),
    st.text(max_size=10).map(lambda text: "?" + text),
)


@given(URLS)
def test_canonical_urls_are_their_own_canonical_form(url):
    canonical = canonical_url(url)
    if canonical is not None:
        assert canonical_url(canonical) == canonical
        assert canonical.isascii()
        assert "#" not in canonical


@given(st.text(max_size=60))
def test_any_text_has_a_canonical_form_or_none(text):
    canonical = canonical_url(text, base="http://a.test/b/c?d")
    assert canonical is None or canonical_url(canonical) == canonical


@pytest.mark.parametrize(
    ("url", "canonical"),
    [
        ("HTTP://EXAMPLE.com:80", "http://example.com/"),
        ("https://example.com:443/a", "https://example.com/a"),
        ("http://example.com:8080/a#b", "http://example.com:8080/a"),
        ("http://user:secret@example.com/", "http://example.com/"),
        ("http://example.com/a/./b/../../c", "http://example.com/c"),
        ("http://example.com/../..", "http://example.com/"),
        ("http://example.com/%7euser/%2fx%3f", "http://example.com/~user/%2Fx%3F"),
        ("http://example.com/%2e%2E/a", "http://example.com/a"),
        ("http://example.com/a b?c d&e=é", "http://example.com/a%20b?c%20d&e=%C3%A9"),
        ("http://example.com/?b=2&a=1", "http://example.com/?b=2&a=1"),
        ("http://example.com./", "http://example.com/"),
        ("http://bücher.example/", "http://xn--bcher-kva.example/"),
        ("  http://example.com/a\n", "http://example.com/a"),
        ("http://[2001:DB8::1]:80/", "http://[2001:db8::1]/"),
    ],
)
def test_spellings_of_one_page_are_one_url(url, canonical):
    assert canonical_url(url) == canonical


@pytest.mark.parametrize(
    "url",
    ["", "mailto:a@b.c", "javascript:void(0)", "http://", "http:///a", "http://a:99999/", "http://a b/"],
)
def test_what_cannot_be_fetched_has_no_canonical_form(url):
    assert canonical_url(url) is None


# RFC 3986, section 5.4: the reference resolution examples that keep to http.
@pytest.mark.parametrize(
    ("reference", "resolved"),
    [
        ("g", "http://a/b/c/g"),
        ("./g/", "http://a/b/c/g/"),
        ("/g", "http://a/g"),
        ("//g", "http://g/"),
        ("?y", "http://a/b/c/d;p?y"),
        ("", "http://a/b/c/d;p?q"),
        ("..", "http://a/b/"),
        ("../../../g", "http://a/g"),
        ("g/../h", "http://a/b/c/h"),
        ("g;x=1/./y", "http://a/b/c/g;x=1/y"),
    ],
)
def test_references_resolve_as_the_standard_says(reference, resolved):
    assert canonical_url(reference, base="http://a/b/c/d;p?q") == resolved


def test_parts_of_a_canonical_url():
    url = "http://[2001:db8::1]:81/a?b=c"
    assert (host_of(url), origin_of(url)) == ("2001:db8::1", "http://[2001:db8::1]:81")
    assert request_target(url) == "/a?b=c"


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "127.9.9.9",
        "0.0.0.0",
        "10.1.2.3",
        "172.16.0.1",
        "192.168.1.1",
        "169.254.169.254",
        "100.64.0.1",
        "224.0.0.1",
        "255.255.255.255",
        "::1",
        "::",
        "fe80::1%eth0",
        "fd00::1",
        "ff02::1",
        "::ffff:127.0.0.1",
        "64:ff9b::7f00:1",
        "2002:7f00:1::",
    ],
)
def test_addresses_of_the_own_network_are_not_public(address):
    assert not is_public(address)


@pytest.mark.parametrize("address", ["8.8.8.8", "93.184.216.34", "2606:4700::1111", "::ffff:8.8.8.8"])
def test_addresses_of_the_internet_are_public(address):
    assert is_public(address)
