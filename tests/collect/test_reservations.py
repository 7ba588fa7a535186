"""Who reserves what: noai, TDMRep, Content-Usage, in headers, pages and files."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bessemer.collect.reservations import (
    first_reservation,
    header_statements,
    meta_statements,
    parse_tdm_file,
)


@pytest.mark.parametrize(
    ("name", "value", "is_reserved"),
    [
        ("X-Robots-Tag", "noai", True),
        ("x-robots-tag", "noindex, NOAI", True),
        ("X-Robots-Tag", "noai, noimageai", True),
        ("X-Robots-Tag", "noimageai", False),
        ("X-Robots-Tag", "bessemer: noai", True),
        ("X-Robots-Tag", "otherbot: noai", False),
        ("X-Robots-Tag", "otherbot: noindex, bessemer: noml", True),
        ("X-Robots-Tag", "unavailable_after: 25 Jun 2030 15:00:00 GMT, noai", True),
        ("X-Robots-Tag", "noaim", False),
        ("tdm-reservation", "1", True),
        ("TDM-Reservation", " 1 ", True),
        ("tdm-reservation", "0", False),
        ("tdm-reservation", "yes", False),
        ("Content-Usage", "train-ai=n", True),
        ("Content-Usage", "search=y, train-ai=y", False),
        ("Content-Signal", "search=yes, ai-train=no", True),
        ("Content-Signal", "ai-input=no", False),
    ],
)
def test_headers_that_reserve(name, value, is_reserved):
    said = header_statements(((name, value),), "bessemer")
    assert (first_reservation(said.signals) is not None) == is_reserved


def test_pictures_are_noted_but_do_not_keep_a_text_away():
    (signal,) = header_statements((("X-Robots-Tag", "noimageai"),), "bessemer").signals
    assert (signal.says, signal.is_reserved) == ("noimageai", False)


def test_nofollow_in_a_header_is_seen():
    assert header_statements((("X-Robots-Tag", "noindex, nofollow"),), "b").is_nofollow
    assert not header_statements((("X-Robots-Tag", "other: nofollow"),), "b").is_nofollow


@pytest.mark.parametrize(
    ("name", "content", "is_reserved"),
    [
        ("robots", "index, noai", True),
        ("robots", "NoAI noimageai", True),
        ("bessemer", "noai", True),
        ("googlebot", "noai", False),
        ("tdm-reservation", "1", True),
        ("tdm-reservation", "0", False),
        ("x-robots-tag", "noai", True),
        ("description", "noai", False),
    ],
)
def test_meta_elements_that_reserve(name, content, is_reserved):
    said = meta_statements([(name, content)], "bessemer")
    assert (first_reservation(said.signals) is not None) == is_reserved


def test_the_policy_goes_with_the_reservation():
    headers = (("tdm-policy", "https://a.test/policy.json"), ("tdm-reservation", "1"))
    (signal,) = header_statements(headers, "bessemer").signals
    assert signal.as_json() == {
        "by": "tdm-reservation",
        "says": "1",
        "reserved": True,
        "policy": "https://a.test/policy.json",
    }
    assert first_reservation([signal]) == "reserved: tdm-reservation: 1"


def test_the_first_rule_of_a_tdm_file_that_matches_holds():
    rules = [
        {"location": "/a/open/", "tdm-reservation": 0},
        {"location": "/a/*.html$", "tdm-reservation": 1, "tdm-policy": "https://a.test/p"},
        {"location": "/b", "tdm-reservation": "1"},
        {"location": "/c", "tdm-reservation": 2},
        {"location": 7, "tdm-reservation": 1},
        "nonsense",
    ]
    file = parse_tdm_file(json.dumps(rules).encode())
    told = {
        path: file.signal(f"http://a.test{path}") for path in ("/a/open/x.html", "/a/x.html", "/b/1", "/c")
    }
    assert [signal and signal.is_reserved for signal in told.values()] == [False, True, True, None]
    assert told["/a/x.html"] is not None
    assert told["/a/x.html"].policy == "https://a.test/p"


@given(
    st.binary(max_size=60)
    | st.recursive(st.none() | st.text(), st.lists).map(lambda x: json.dumps(x).encode())
)
def test_a_file_that_is_no_tdm_file_says_nothing(content):
    assert parse_tdm_file(content).signal("http://a.test/") is None


def test_a_file_nested_without_end_says_nothing():
    assert parse_tdm_file(b"[" * 1_000_000).signal("http://a.test/") is None
