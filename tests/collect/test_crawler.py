"""The crawler against a real server on loopback."""

import gzip
import json
import threading
import time
from pathlib import Path

import pytest
from collect_helpers import (
    HOST,
    Answer,
    Site,
    crawl_config,
    files_of,
    html_page,
    paths_of,
    records_of,
    stage_context,
)

from bessemer.collect import CollectConfig, collect
from bessemer.errors import BessemerError, ConfigError


@pytest.fixture(autouse=True)
def fixed_clock(monkeypatch):
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")


def reasons_of(output: Path) -> dict[str, str]:
    """Path → reason, from crawl.jsonl."""
    path = output / "crawl.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    return {line["url"].removeprefix(f"http://{HOST}"): line["reason"] for line in map(json.loads, lines)}


def crawl(folder: Path, site: Site, *seeds: str, **settings) -> tuple[list[str], dict[str, str]]:
    """Paths of the pages and reasons of the failures."""
    context = stage_context(folder)
    collect(crawl_config(site.address, *seeds, **settings), context)
    return paths_of(context.output), reasons_of(context.output)


def test_pages_come_breadth_first_and_each_once(tmp_path):
    answers = {
        "/": html_page(
            "/a", "b", "/a#part", "HTTP://SITE.test:80/a", "/./x/../b", "mailto:someone@site.test"
        ),
        "/a": html_page("/", "/c?q=2&p=1"),
        "/b": html_page("/d", "/c?q=2&p=1"),
        "/c?q=2&p=1": html_page("/d"),
        "/d": html_page(),
    }
    with Site(answers) as site:
        pages, reasons = crawl(tmp_path, site, "/")
        assert pages == ["/", "/a", "/b", "/c?q=2&p=1", "/d"]
        assert reasons == {}
        assert all(count == 1 for count in site.asked.values())
        assert all(agent is not None and agent.startswith("bessemer/") for agent in site.agents)


def test_the_archive_does_not_depend_on_which_answer_comes_first(tmp_path):
    def answers(slow: int) -> dict[str, Answer]:
        pages = {f"/{number}": html_page(f"/{number}/deep") for number in range(6)}
        pages[f"/{slow}"].before = lambda: time.sleep(0.2)
        deep = {f"/{number}/deep": html_page() for number in range(6)}
        return {"/": html_page(*pages), **pages, **deep}

    outputs = []
    for slow in (0, 5):
        with Site(answers(slow)) as site:
            folder = tmp_path / str(slow)
            crawl(folder, site, "/", max_concurrency_per_host=4)
            outputs.append(files_of(folder / "output"))
    assert outputs[0] == outputs[1]


def test_records_hold_the_whole_exchange(tmp_path):
    body = b"<html><body>packed</body></html>"
    answer = Answer(gzip.compress(body, mtime=0), headers={"Content-Encoding": "gzip", "X-Server": "Test"})
    with Site({"/": answer}) as site:
        crawl(tmp_path, site, "/")
    info, page, request = records_of(tmp_path / "output")
    assert [info.type, page.type, request.type] == ["warcinfo", "response", "request"]
    assert page.http is not None
    assert page.http.header("x-server") == "Test"
    assert page.http.body == answer.body
    assert page.payload().content == body
    assert page.date == "2023-11-14T22:13:20Z"
    assert request.block.startswith(b"GET / HTTP/1.1\r\nHost: site.test\r\nUser-Agent: bessemer/")


def test_robots_txt_is_obeyed(tmp_path):
    robots = Answer(b"User-agent: bessemer\nDisallow: /private\n", content_type="text/plain")
    answers = {"/": html_page("/private/a", "/public"), "/public": html_page(), "/private/a": html_page()}
    with Site(answers, robots) as site:
        pages, reasons = crawl(tmp_path, site, "/")
        assert pages == ["/", "/public"]
        assert reasons == {"/private/a": "robots.txt: disallowed"}
        assert site.asked["/private/a"] == 0


def test_robots_txt_holds_for_the_target_of_a_redirect(tmp_path):
    robots = Answer(b"User-agent: *\nDisallow: /private\n", content_type="text/plain")
    answers = {"/": html_page("/door"), "/door": Answer(status=302, headers={"Location": "/private"})}
    with Site(answers, robots) as site:
        _, reasons = crawl(tmp_path, site, "/")
        assert reasons["/private"] == "robots.txt: disallowed"
        assert site.asked["/private"] == 0


def test_a_failing_robots_txt_closes_the_site_and_a_missing_one_opens_it(tmp_path):
    with Site({"/": html_page()}, robots=Answer(status=500)) as site:
        with pytest.raises(BessemerError, match="unreachable"):
            crawl(tmp_path / "500", site, "/")
        assert site.asked["/"] == 0
    for status in (403, 404, 410):
        with Site({"/": html_page()}, robots=Answer(status=status)) as site:
            assert crawl(tmp_path / str(status), site, "/")[0] == ["/"]


def test_a_crawl_delay_is_kept(tmp_path):
    robots = Answer(b"User-agent: *\nCrawl-delay: 0.3\n", content_type="text/plain")
    with Site({"/": html_page("/a"), "/a": html_page()}, robots) as site:
        started = time.monotonic()
        crawl(tmp_path, site, "/")
        assert time.monotonic() - started >= 0.3


def test_links_marked_nofollow_are_not_followed(tmp_path):
    body = b'<a rel="noopener nofollow" href="/no">no</a><a href="/yes">yes</a>'
    hidden = (
        b'<html><head><meta name="ROBOTS" content="index, nofollow"></head><a href="/hidden">x</a></html>'
    )
    with Site({"/": Answer(body), "/yes": Answer(hidden)}) as site:
        assert crawl(tmp_path, site, "/") == (["/", "/yes"], {})


def test_redirects_are_followed_recorded_and_bounded(tmp_path):
    answers = {
        "/": html_page("/old", "/ring/a", "/long/0", "/away", "/nowhere"),
        "/old": Answer(status=301, headers={"Location": "new#part"}),
        "/new": html_page(),
        "/ring/a": Answer(status=302, headers={"Location": "/ring/b"}),
        "/ring/b": Answer(status=302, headers={"Location": "/ring/a"}),
        "/away": Answer(status=307, headers={"Location": "http://elsewhere.test/"}),
        "/nowhere": Answer(status=302),
    }
    answers |= {f"/long/{n}": Answer(status=308, headers={"Location": f"/long/{n + 1}"}) for n in range(9)}
    with Site(answers) as site:
        pages, reasons = crawl(tmp_path, site, "/", max_redirects=3)
        assert pages == ["/", "/new"]
        assert reasons["/old"] == "redirect: http://site.test/new"
        assert reasons["/ring/b"] == "redirect loop: http://site.test/ring/a"
        assert reasons["/long/3"] == "too many redirects: http://site.test/long/4"
        assert reasons["/away"] == "redirect out of scope: http://elsewhere.test/"
        assert reasons["/nowhere"] == "redirect: to nowhere"
        assert site.asked["/long/4"] == 0
    hops = [record.status for record in records_of(tmp_path / "output") if record.type == "response"]
    assert hops.count(301) == 1


def test_unwanted_answers_are_dropped_with_their_reason(tmp_path):
    answers = {
        "/": html_page("/missing", "/image", "/untyped", "/long", "/bomb", "/broken", "/notes"),
        "/image": Answer(b"PNG", content_type="image/png"),
        "/untyped": Answer(b"?", content_type=None),
        "/long": Answer(b"x" * 20_000),
        "/bomb": Answer(gzip.compress(bytes(9_000_000)), headers={"Content-Encoding": "gzip"}),
        "/broken": Answer(gzip.compress(b"y" * 999)[:-12], headers={"Content-Encoding": "gzip"}),
        "/notes": Answer(b"plain words", content_type="Text/Plain"),
    }
    with Site(answers) as site:
        pages, reasons = crawl(tmp_path, site, "/", max_bytes=10_000, max_decoded_bytes=100_000)
    assert pages == ["/", "/notes"]
    assert reasons == {
        "/missing": "HTTP 404",
        "/image": "content type: image/png",
        "/untyped": "content type: none given",
        "/long": "too long: a body of more than 10000 bytes",
        "/bomb": "bad body: decompresses to more than 100000 bytes",
        "/broken": "bad body: the compressed body is cut short",
    }


def test_a_body_without_a_length_is_bounded_while_it_streams(tmp_path):
    answers = {
        "/": html_page("/long", "/short"),
        "/long": Answer(b"x" * 300_000, has_length=False),
        "/short": Answer(b"x" * 300, has_length=False),
    }
    with Site(answers) as site:
        pages, reasons = crawl(tmp_path, site, "/", max_bytes=1000)
    assert pages == ["/", "/short"]
    assert reasons == {"/long": "too long: a body of more than 1000 bytes"}


def test_a_slow_server_is_given_up_after_the_timeout(tmp_path):
    is_over = threading.Event()
    slow = html_page()
    slow.before = lambda: is_over.wait(60)
    with Site({"/": html_page("/slow", "/fast"), "/slow": slow, "/fast": html_page()}) as site:
        pages, reasons = crawl(tmp_path, site, "/", timeout_s=3, max_retries=0)
        is_over.set()
    assert pages == ["/", "/fast"]
    assert reasons == {"/slow": "timeout: no whole answer in 3 s"}


def test_busy_servers_are_asked_again(tmp_path):
    busy = Answer(status=503, headers={"Retry-After": "0"})
    answers = {"/": [busy, Answer(status=429), html_page("/down")], "/down": busy}
    with Site(answers) as site:
        pages, reasons = crawl(tmp_path, site, "/", max_retries=2)
        assert pages == ["/"]
        assert reasons == {"/down": "HTTP 503"}
        assert (site.asked["/"], site.asked["/down"]) == (3, 3)


def test_depth_pages_and_patterns_bound_a_crawl(tmp_path):
    answers = {f"/{n}": html_page(f"/{n + 1}", f"/skip/{n}") for n in range(6)}
    with Site(answers) as site:
        assert crawl(tmp_path / "a", site, "/0", max_depth=2, exclude=["/skip/"])[0] == ["/0", "/1", "/2"]
        assert crawl(tmp_path / "b", site, "/0", max_pages=4, exclude=["/skip/"])[0] == [
            "/0",
            "/1",
            "/2",
            "/3",
        ]
        assert crawl(tmp_path / "c", site, "/0", include=["/1$"])[0] == ["/0", "/1"]


def test_hosts_on_the_own_network_are_refused_also_through_redirects(tmp_path):
    with Site({"/secret": html_page()}) as inner:
        target = f"http://{inner.address}/secret"
        answers = {"/": html_page("/door", target), "/door": Answer(status=302, headers={"Location": target})}
        with Site(answers) as site:
            _, reasons = crawl(tmp_path, site, "/", same_host=False, max_retries=0)
        assert inner.asked.total() == 0
        assert "private address" in reasons[target]
        with pytest.raises(BessemerError, match="private address"):
            collect(CollectConfig.model_validate({"urls": [target]}), stage_context(tmp_path / "b"))
        allowed = CollectConfig.model_validate(
            {"urls": [target], "crawl": {"allow_private_hosts": True, "delay_s": 0}}
        )
        assert collect(allowed, stage_context(tmp_path / "c"))["pages"] == 1


def test_a_host_is_left_in_peace_between_requests(tmp_path):
    times: list[float] = []
    answers = {"/": html_page("/a", "/b"), "/a": html_page(), "/b": html_page()}
    for answer in answers.values():
        answer.before = lambda: times.append(time.monotonic())
    started = time.monotonic()
    with Site(answers) as site:
        crawl(tmp_path, site, "/", delay_s=0.3, max_concurrency_per_host=3, respect_robots=False)
    # Not the gaps between arrivals: on a busy machine one request travels longer than the next.
    waits = [time_s - started for time_s in times]
    assert len(waits) == 3
    assert waits[1] >= 0.3
    assert waits[2] >= 0.6


def test_a_seed_that_is_no_url_is_named(tmp_path):
    config = CollectConfig.model_validate({"urls": ["ftp://a/", "https://ok.test/"]})
    with pytest.raises(ConfigError, match="'ftp://a/'"):
        collect(config, stage_context(tmp_path))
