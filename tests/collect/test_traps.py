"""URLs without end, session ids, and shapes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bessemer.collect.crawl_config import TrapConfig
from bessemer.collect.traps import date_shape, query_shape, trap_of
from bessemer.url_sessions import without_parameters
from bessemer.urls import canonical_url

DEFAULTS = TrapConfig()


@pytest.mark.parametrize(
    ("url", "canonical"),
    [
        ("http://a/x;jsessionid=0A1B2C?y=1", "http://a/x?y=1"),
        ("http://a/x.jsp;JSESSIONID=0A1B/z", "http://a/x.jsp/z"),
        ("http://a/?PHPSESSID=abc&q=1", "http://a/?q=1"),
        ("http://a/?q=1&utm_source=n&utm_medium=m#top", "http://a/?q=1"),
        ("http://a/?sid=0f3c9ab2", "http://a/"),
        ("http://a/?fbclid=x&gclid=y", "http://a/"),
        ("http://a/?CFID=1&CFTOKEN=2&id=3", "http://a/?id=3"),
        ("http://a/?ASPSESSIONIDABC=1", "http://a/"),
        ("http://a/(S(abcdefghijklmnopqrstuvwx))/p.aspx", "http://a/p.aspx"),
        # What names a page stays.
        ("http://a/?sid=17", "http://a/?sid=17"),
        ("http://a/?story=1&side=2&id=3", "http://a/?story=1&side=2&id=3"),
        ("http://a/(S(short))/p", "http://a/(S(short))/p"),
    ],
)
def test_session_ids_and_campaign_marks_are_cut(url, canonical):
    assert canonical_url(url) == canonical


@given(
    st.lists(
        st.sampled_from(
            [";jsessionid=", ";sid=1", "/..", "/.", "/(S(abcdefghijklmnopqrstuvwx))", "/a", ";", "x"]
        )
    ),
    st.lists(st.sampled_from(["sid=", "sid=ab", "utm_a=1", "&", "a=1", "PHPSESSID=%3b", "="])),
)
def test_cutting_once_cuts_all(path, query):
    canonical = canonical_url(f"http://a.test/{''.join(path)}?{''.join(query)}")
    assert canonical is not None
    assert canonical_url(canonical) == canonical


def test_a_config_can_name_more_parameters_to_cut():
    url = "http://a/?ref=1&track_x=2&id=3"
    assert without_parameters(url, ("ref", "track_*")) == "http://a/?id=3"
    assert without_parameters("http://a/?REF=1", ("ref",)) == "http://a/"
    assert without_parameters("http://a/?rex=1", ("re.",)) == "http://a/?rex=1"


@pytest.mark.parametrize(
    ("path", "trap"),
    [
        ("/a/a/a/", "repeating path"),
        ("/x/a/b/a/b/a/b", "repeating path"),
        ("/x/a/a/b", None),
        ("/a/b/a/c/a/d", None),
        ("/" + "/".join(f"s{n}" for n in range(21)), "too many path segments"),
        ("/" + "/".join(f"s{n}" for n in range(20)), None),
        ("/?" + "&".join(f"p{n}=1" for n in range(13)), "too many query parameters"),
        ("/?" + "&".join(f"p{n}=1" for n in range(12)), None),
    ],
)
def test_urls_that_look_like_traps(path, trap):
    assert trap_of(f"http://a.test{path}", DEFAULTS) == trap


def test_bounds_of_zero_are_off():
    off = TrapConfig(max_path_segments=0, max_repeats=0, max_query_parameters=0)
    assert trap_of("http://a/" + "a/" * 99 + "?" + "&" * 99, off) is None


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("http://a/calendar/2031/05", "http://a/calendar/1799/11"),
        ("http://a/events/2031-05-17/", "http://a/events/2031-05-18/"),
        ("http://a/day/20310517", "http://a/day/20310518"),
        ("http://a/cal?month=5&year=2031", "http://a/cal?month=6&year=2031"),
        ("http://a/cal?date=2031-05-17", "http://a/cal?date=2032-01-01"),
        ("http://a/cal?mon=may&y=31", "http://a/cal?mon=june&y=9"),
    ],
)
def test_pages_of_a_calendar_have_one_shape(one, other):
    assert date_shape(one) is not None
    assert date_shape(one) == date_shape(other)


@pytest.mark.parametrize(
    "url", ["http://a/1234", "http://a/v2.10/x", "http://a/?page=3", "http://a/?id=2031"]
)
def test_pages_without_dates_have_no_such_shape(url):
    assert date_shape(url) is None


def test_articles_of_one_day_differ_in_shape():
    assert date_shape("http://a/2024/05/06/one") != date_shape("http://a/2024/05/06/two")


def test_queries_of_one_path_have_one_shape():
    assert query_shape("http://a/s?q=1") == query_shape("http://a/s?q=2&x=3")
    assert query_shape("http://a/s") is None
