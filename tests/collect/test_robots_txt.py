"""robots.txt as RFC 9309 reads it; protego as an oracle where the two mean to agree."""

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bessemer.collect.path_patterns import compile_pattern, subject_of
from bessemer.collect.robots_txt import parse_robots_txt
from bessemer.urls import canonical_url

SITE = "http://a.test"


def allows(text: str, path: str, product: str = "bessemer") -> bool:
    url = canonical_url(SITE + path)
    assert url is not None
    return parse_robots_txt(text, product).is_allowed(url)


# RFC 9309, section 2.2.3 and the table in 2.2.2; Google's published examples of path matching.
@pytest.mark.parametrize(
    ("pattern", "matching", "other"),
    [
        ("/", ["/", "/anything"], []),
        ("/*", ["/", "/anything"], []),
        ("/$", ["/"], ["/a"]),
        ("/fish", ["/fish", "/fish.html", "/fish/salmon", "/fishheads", "/fish?id=1"], ["/Fish", "/catfish"]),
        ("/fish/", ["/fish/", "/fish/?id=1"], ["/fish", "/fish.html"]),
        ("/*.php", ["/i.php", "/a/i.php?x", "/i.php5"], ["/", "/windows.PHP"]),
        ("/*.php$", ["/i.php", "/a/i.php"], ["/i.php?x", "/i.php5", "/i.php/"]),
        ("/fish*.php", ["/fish.php", "/fishheads/catfish.php?x"], ["/Fish.PHP"]),
        ("/a*b*c$", ["/abc", "/aXbYc", "/abbcc"], ["/abcd", "/acb"]),
        ("/foo/bar?baz=quz", ["/foo/bar?baz=quz"], ["/foo/bar"]),
        ("/foo/bar/ツ", ["/foo/bar/%E3%83%84", "/foo/bar/ツ"], ["/foo/bar/"]),
        ("/foo/bar/%62%61%7A", ["/foo/bar/baz"], []),
        ("/path/file-with-a-%2A.html", ["/path/file-with-a-*.html"], ["/path/file-with-a-x.html"]),
        ("/path/foo-%24", ["/path/foo-$", "/path/foo-$x"], ["/path/foo-"]),
        ("/a$b", ["/a$b"], ["/a"]),
        ("fish", [], ["/fish", "/"]),
        ("*/x", ["/a/x", "/x"], ["/ax"]),
    ],
)
def test_patterns_match_as_the_standard_says(pattern, matching, other):
    compiled = compile_pattern(pattern)
    for path in matching + other:
        url = canonical_url(SITE + path)
        assert url is not None
        assert compiled.matches(subject_of(url)) == (path in matching), path


def test_the_longest_match_decides_and_allow_wins_a_tie():
    text = "User-agent: *\nDisallow: /p\nAllow: /page\nDisallow: /page/x\nAllow: /tie\nDisallow: /tie\n"
    assert allows(text, "/page")
    assert not allows(text, "/page/x")
    assert not allows(text, "/other/../p")
    assert allows(text, "/tie")


def test_groups_of_the_same_crawler_are_one_and_the_general_group_is_for_the_rest():
    text = (
        "User-agent: *\nDisallow: /gen\n\nUser-agent: Bessemer\nDisallow: /a\n"
        "User-agent: other\nDisallow: /o\nUser-Agent: BESSEMER/2.0\nUser-agent: third\nDisallow: /b\n"
    )
    assert [allows(text, path) for path in ("/a", "/b", "/gen", "/o")] == [False, False, True, True]
    assert [allows(text, path, "third") for path in ("/a", "/b", "/gen")] == [True, False, True]
    assert [allows(text, path, "fourth") for path in ("/a", "/gen")] == [True, False]
    assert not allows("User-agent: bess\nAllow: /\nUser-agent: *\nDisallow: /", "/x")


def test_other_records_do_not_end_a_list_of_user_agents():
    text = "User-agent: bessemer\nCrawl-delay: 3\nSitemap: http://a.test/s.xml\nUser-agent: *\nDisallow: /x\n"
    robots = parse_robots_txt(text, "bessemer")
    assert not robots.is_allowed(f"{SITE}/x")
    assert robots.crawl_delay_s == 3.0
    assert robots.sitemaps == ("http://a.test/s.xml",)


def test_odd_files_are_read_as_far_as_they_make_sense():
    assert not allows("\ufeffUSER-AGENT : *\rDisallow : /x # why\r\nnonsense\n:\n", "/x")
    assert allows("Disallow: /x", "/x"), "a rule before any user agent holds for nobody"
    assert allows("User-agent: *\nDisallow:\n", "/x")
    assert allows("User-agent: *\nDisallow: /\n", "/robots.txt")
    assert allows("<html><body>User-agent: *</body></html>", "/x")
    for delay in ("nan", "inf", "-1", "soon"):
        assert parse_robots_txt(f"User-agent: *\nCrawl-delay: {delay}", "b").crawl_delay_s is None


def test_preferences_about_training_hold_for_their_paths():
    text = (
        "User-agent: *\nContent-Signal: search=yes, ai-train=no\nAllow: /\n"
        "User-agent: open\nContent-Usage: train-ai=n\nContent-Usage: /free train-ai=y\n"
    )
    assert parse_robots_txt(text, "bessemer").reservation(f"{SITE}/a") == "search=yes, ai-train=no"
    robots = parse_robots_txt(text, "open")
    assert robots.reservation(f"{SITE}/a") == "train-ai=n"
    assert robots.reservation(f"{SITE}/free/a") is None
    assert parse_robots_txt("Content-Usage: train-ai=n", "b").reservation(f"{SITE}/") == "train-ai=n"


RULES = st.lists(
    st.tuples(
        st.sampled_from(["Allow", "Disallow"]),
        st.text(st.sampled_from("/ab*"), min_size=1, max_size=7).map(lambda text: "/" + text),
    ),
    min_size=1,
    max_size=6,
)


@settings(max_examples=200)
@given(RULES, st.text(st.sampled_from("/abc"), max_size=8))
def test_verdicts_are_those_of_another_parser(rules, path):
    protego = pytest.importorskip("protego")
    text = "User-agent: *\n" + "".join(f"{verb}: {pattern}\n" for verb, pattern in rules)
    url = f"{SITE}/{path}"
    assert parse_robots_txt(text, "bessemer").is_allowed(url) == protego.Protego.parse(text).can_fetch(
        url, "bessemer"
    )


@given(st.text(max_size=200), st.text(max_size=40))
def test_any_text_is_a_robots_txt(text, path):
    url = canonical_url(f"{SITE}/{path}")
    if url is not None:
        parse_robots_txt("User-agent: *\n" + text, "bessemer").is_allowed(url)


def test_hostile_patterns_take_little_time():
    text = "User-agent: *\n" + f"Disallow: /{'*a' * 1000}b\n" * 50 + "Disallow: /x*y*z\n" * 20_000
    robots = parse_robots_txt(text, "bessemer")
    started = time.process_time()
    assert robots.is_allowed(f"{SITE}/" + "a" * 2000)
    assert time.process_time() - started < 1.0
