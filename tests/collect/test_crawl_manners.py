"""What a crawl may fetch and store: host rules, reservations, sitemaps, back-off, traps, many hosts."""

import gzip
import json
import time

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
from pydantic import ValidationError

from bessemer.collect import CollectConfig, collect
from bessemer.collect.crawl_config import CrawlConfig
from bessemer.collect.failures import FAILURES_NAME

PLAIN = "text/plain"


@pytest.fixture(autouse=True)
def fixed_clock(monkeypatch):
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")


def crawl(folder, site, *seeds, **settings):
    """Paths of the pages and reasons of the failures."""
    context = stage_context(folder)
    collect(crawl_config(site.address, *seeds, **settings), context)
    path = context.output / FAILURES_NAME
    lines = map(json.loads, path.read_text().splitlines() if path.exists() else [])
    return paths_of(context.output), {
        line["url"].removeprefix(f"http://{HOST}"): line["reason"] for line in lines
    }


def robots(text: str) -> Answer:
    return Answer(text.encode(), content_type=PLAIN)


def test_reserved_pages_are_not_stored_but_their_reason_is(tmp_path):
    noai_page = Answer(
        b'<html><head><meta name="robots" content="noai"></head><a href="/hidden">x</a></html>'
    )
    answers = {
        "/": html_page("/header", "/meta", "/tdm", "/file/a", "/free"),
        "/header": Answer(b"<p>x</p>", headers={"X-Robots-Tag": "noai, noimageai"}),
        "/meta": noai_page,
        "/tdm": Answer(b"x", headers={"tdm-reservation": "1", "tdm-policy": "https://site.test/policy"}),
        "/file/a": html_page(),
        "/free": Answer(b"<p>free</p>", headers={"X-Robots-Tag": "noimageai"}),
        "/.well-known/tdmrep.json": Answer(b'[{"location": "/file/", "tdm-reservation": 1}]'),
    }
    with Site(answers) as site:
        pages, reasons = crawl(tmp_path / "obeyed", site, "/")
        assert pages == ["/", "/free"]
        assert reasons == {
            "/header": "reserved: x-robots-tag: noai",
            "/meta": "reserved: meta robots: noai",
            "/tdm": "reserved: tdm-reservation: 1",
            "/file/a": "reserved: tdmrep.json: /file/ 1",
        }
        assert site.asked["/file/a"] == 0
        notes = {
            record.uri.removeprefix(f"http://{HOST}"): record.block.decode()
            for record in records_of(tmp_path / "obeyed" / "output")
            if record.type == "metadata"
        }
        assert notes["/header"] == "x-robots-tag: noai\r\nx-robots-tag: noimageai\r\nverdict: not stored\r\n"
        assert "policy https://site.test/policy" in notes["/tdm"]
        assert b"tdm-reservation" in notes["/.well-known/tdmrep.json"].encode()

        pages, reasons = crawl(tmp_path / "ignored", site, "/", respect_reservations=False)
        assert pages == ["/", "/header", "/meta", "/tdm", "/file/a", "/free"]
        assert reasons == {"/hidden": "HTTP 404"}
        marks = {
            record.uri.removeprefix(f"http://{HOST}"): record.description.get("reservations")
            for record in records_of(tmp_path / "ignored" / "output")
            if record.type == "response"
        }
        assert marks["/"] is None
        assert marks["/meta"] == [{"by": "meta robots", "says": "noai", "reserved": True}]
        assert marks["/file/a"][0]["by"] == "tdmrep.json"


def test_preferences_in_robots_txt_keep_pages_from_being_fetched(tmp_path):
    text = "User-agent: *\nContent-Usage: /mine train-ai=n\nAllow: /\n"
    with Site({"/": html_page("/mine/a", "/yours"), "/yours": html_page()}, robots(text)) as site:
        pages, reasons = crawl(tmp_path, site, "/")
        assert pages == ["/", "/yours"]
        assert reasons == {"/mine/a": "reserved: robots.txt: /mine train-ai=n"}
        assert site.asked["/mine/a"] == 0
    (kept,) = [record for record in records_of(tmp_path / "output") if record.type == "metadata"][:1]
    assert kept.uri == f"http://{HOST}/robots.txt"
    assert text.encode() in kept.block


def test_a_long_robots_txt_is_read_to_its_limit_and_not_in_half_lines(tmp_path):
    padding = "# padding\n" * 51_199  # 511,990 of 512,000 bytes
    text = "User-agent: *\nDisallow: /no\n" + padding + "Disallow: /" + "x" * 2_000_000
    with Site({"/": html_page("/no"), "/x": html_page()}, robots(text)) as site:
        assert crawl(tmp_path, site, "/")[1] == {"/no": "robots.txt: disallowed"}


def test_robots_txt_is_followed_through_five_redirects(tmp_path):
    hops = {f"/r{n}": Answer(status=302, headers={"Location": f"/r{n + 1}"}) for n in range(1, 9)}
    answers = {"/": html_page("/no"), "/no": html_page(), **hops}
    answers["/r5"] = robots("User-agent: *\nDisallow: /no")
    with Site(answers, Answer(status=301, headers={"Location": "/r1"})) as site:
        assert crawl(tmp_path / "five", site, "/")[1] == {"/no": "robots.txt: disallowed"}
        site.answers["/r5"] = Answer(status=302, headers={"Location": "/r6"})
        site.answers["/r6"] = robots("User-agent: *\nDisallow: /no")
        assert crawl(tmp_path / "six", site, "/")[1] == {}, "more than five: as if there were none"


def test_robots_txt_and_sitemaps_do_not_lead_into_the_own_network(tmp_path):
    with Site({"/secret.xml": Answer(b"<urlset/>")}) as inner:
        text = f"User-agent: *\nAllow: /\nSitemap: http://{inner.address}/secret.xml\n"
        with Site({"/": html_page()}, robots(text)) as site:
            pages, reasons = crawl(tmp_path / "a", site, "/", max_retries=0)
            assert pages == ["/"]
            (reason,) = reasons.values()
            assert "private address" in reason
        away = Answer(status=302, headers={"Location": f"http://{inner.address}/robots.txt"})
        with Site({"/": html_page()}, away) as site, pytest.raises(ValueError, match="private address"):
            crawl(tmp_path / "b", site, "/", max_retries=0)
        assert inner.asked.total() == 0


def test_sitemaps_lead_to_pages_that_nothing_links_to(tmp_path):
    prefix = f"http://{HOST}"
    index = f"<sitemapindex><sitemap><loc>{prefix}/one.xml.gz</loc></sitemap>"
    index += "<sitemap><loc>/two.txt</loc></sitemap>"
    index += "<sitemap><loc>http://elsewhere.test/s.xml</loc></sitemap></sitemapindex>"
    one = (
        f"<urlset><url><loc>{prefix}/hidden</loc></url><url><loc>http://elsewhere.test/</loc></url></urlset>"
    )
    answers = {
        "/": html_page("/linked"),
        "/linked": html_page(text="linked"),
        "/hidden": html_page("/deeper", text="hidden"),
        "/deeper": html_page(text="deeper"),
        "/listed": html_page(text="listed"),
        "/index.xml": Answer(index.encode(), content_type="application/xml"),
        "/one.xml.gz": Answer(gzip.compress(one.encode()), content_type="application/x-gzip"),
        "/two.txt": Answer(f"{prefix}/listed\n".encode(), content_type=PLAIN),
        "/broken.xml": Answer(b"<urlset><url>", content_type="text/xml"),
    }
    rules = robots(f"Sitemap: {prefix}/index.xml\nSitemap: {prefix}/broken.xml\nSitemap: {prefix}/gone.xml\n")
    with Site(answers, rules) as site:
        pages, reasons = crawl(tmp_path / "on", site, "/")
        assert pages == ["/", "/linked", "/hidden", "/listed", "/deeper"]
        assert reasons["/broken.xml"].startswith("sitemap: is no XML")
        assert reasons["/gone.xml"] == "HTTP 404"
        assert crawl(tmp_path / "off", site, "/", sitemaps=False)[0] == ["/", "/linked"]
        assert crawl(tmp_path / "seeds", site, "/", max_depth=0)[0] == ["/"]


def test_retry_after_is_waited_for_and_too_long_a_wait_is_not(tmp_path):
    times: list[float] = []
    page = html_page()
    page.before = lambda: times.append(time.monotonic())
    busy = Answer(status=503, headers={"Retry-After": "1"})
    busy.before = page.before
    with Site({"/": [busy, page]}) as site:
        assert crawl(tmp_path / "a", site, "/")[0] == ["/"]
    assert times[1] - times[0] >= 0.99
    away = Answer(status=429, headers={"Retry-After": "3600"})
    with Site({"/": html_page("/busy", "/next"), "/busy": away, "/next": html_page()}) as site:
        started = time.monotonic()
        _, reasons = crawl(tmp_path / "b", site, "/", max_retry_delay_s=2)
        assert time.monotonic() - started < 600, "an hour was asked for"
        assert site.asked["/busy"] == 1
        assert reasons["/busy"].startswith("HTTP 429; the host asks to be left alone for 3")
        assert reasons["/next"].startswith("host paused: it asks to be left alone")
        assert site.asked["/next"] == 0


def test_a_host_is_given_up_after_failures_in_a_row(tmp_path):
    links = [f"/{n}" for n in range(8)]
    answers = {"/": html_page(*links), **{link: Answer(status=503) for link in links}}
    answers["/1"] = html_page(text="well")
    for concurrency in (1, 4):
        with Site(answers) as site:
            folder = tmp_path / str(concurrency)
            pages, reasons = crawl(
                folder, site, "/", max_host_failures=3, max_retries=0, max_concurrency_per_host=concurrency
            )
            assert pages == ["/", "/1"]
            assert [reasons[link] for link in links if link != "/1"] == [
                *["HTTP 503"] * 4,
                *["host given up: 3 failures in a row"] * 3,
            ]
    assert files_of(tmp_path / "1" / "output") == files_of(tmp_path / "4" / "output")


@pytest.mark.parametrize(
    ("page", "settings", "num_pages"),
    [
        # Every page links to the next month: no end without the bound on dates.
        (lambda n: (f"/n/{n}", f"/cal/{2000 + n}/01"), {"max_dates": 5}, 6),
        (lambda n: (f"/n/{n}", f"/list?page={n + 1}"), {"max_queries": 5}, 6),
    ],
)
def test_endless_urls_of_one_shape_end(tmp_path, page, settings, num_pages):
    answers = {"/": html_page(page(0)[1])}
    answers |= {page(n)[1]: html_page(page(n + 1)[1], text=str(n)) for n in range(30)}
    with Site(answers) as site:
        pages, _ = crawl(tmp_path, site, "/", max_depth=100, traps=settings)
    assert len(pages) == num_pages


def test_a_page_that_answers_to_every_path_does_not_go_on_for_ever(tmp_path):
    class Everywhere(dict):
        def get(self, path, default=None):
            return super().get(path) or html_page("a/", "b/", text="the same")

    with Site({}) as site:
        site.answers = Everywhere(site.answers)
        pages, _ = crawl(tmp_path, site, "/", max_depth=100, traps={"max_same_content": 3})
    assert len(pages) == 7, "three pages are followed to two links each"
    kinds = [
        record.type for record in records_of(tmp_path / "output") if record.type in ("response", "revisit")
    ]
    assert kinds == ["response"] + ["revisit"] * 6


def test_links_that_only_differ_in_a_session_are_one_page(tmp_path):
    answers = {
        "/": html_page("/a?PHPSESSID=1", "/a;jsessionid=2", "/a?utm_source=x"),
        "/a": html_page(text="a"),
    }
    with Site(answers) as site:
        assert crawl(tmp_path, site, "/") == (["/", "/a"], {})


def test_pages_per_host_are_bounded(tmp_path):
    answers = {f"/{n}": html_page(f"/{n + 1}", text=str(n)) for n in range(9)}
    with Site(answers) as site:
        pages, reasons = crawl(tmp_path, site, "/0", traps={"max_pages_per_host": 4})
    assert len(pages) == 4
    assert reasons == {"/4": "host limit: 4 pages"}


def test_traps_and_stops_are_told(tmp_path):
    said: list[str] = []
    context = stage_context(tmp_path)
    context.reporter.say = said.append  # type: ignore[method-assign]
    with Site({"/": html_page("/a/a/a/a", "/1", "/2"), "/1": html_page(), "/2": html_page()}) as site:
        collect(crawl_config(site.address, "/", max_pages=2), context)
    assert "links left: repeating path (1)" in said
    assert "stopped at max_pages = 2; 1 URLs were waiting" in said


def test_a_seed_may_move_to_another_host(tmp_path):
    moved = Answer(status=301, headers={"Location": "http://www.site.test/"})
    with Site({"/": moved}) as site, Site({"/": html_page("/a"), "/a": html_page(text="a")}) as target:
        resolve = {HOST: site.address, "www.site.test": target.address}
        context = stage_context(tmp_path)
        assert collect(crawl_config(site.address, "/", resolve=resolve), context)["pages"] == 2


def test_a_slow_host_does_not_keep_the_others_waiting(tmp_path):
    """Twelve pages of a host with a delay, then twelve of twelve others: they are fetched meanwhile."""
    links, asked = [f"/slow/{n}" for n in range(6)], []
    other, *slow_pages = html_page(text="other"), *(html_page(text=link) for link in links)
    other.before = lambda: asked.append("other")
    for page in slow_pages:
        page.before = lambda: asked.append("slow")
    with Site(dict(zip(links, slow_pages, strict=True))) as slow:
        with Site({"/": other}) as fast:
            hosts = [f"h{n}.test" for n in range(12)]
            resolve = {HOST: slow.address, **dict.fromkeys(hosts, fast.address)}
            slow.answers["/"] = html_page(*links, *(f"http://{host}/" for host in hosts))
            context = stage_context(tmp_path)
            settings = {"resolve": resolve, "same_host": False, "delay_s": 0.5, "max_concurrency": 4}
            metrics = collect(crawl_config(slow.address, "/", **settings), context)
    assert metrics["pages"] == 19
    # While the slow pages hold all four places, the others would come when these are nearly done.
    last = len(asked) - 1 - asked[::-1].index("slow")
    assert asked[:last].count("other") > 6


@pytest.mark.parametrize("field", ["contact", "user_agent"])
def test_a_name_that_fits_no_header_is_a_config_error(field):
    with pytest.raises(ValidationError, match="printable ASCII"):
        CrawlConfig.model_validate({field: "Jörg <j@example.org>"})
    with pytest.raises(ValidationError, match="printable ASCII"):
        CrawlConfig.model_validate({field: "a\r\nX-Injected: 1"})


def test_a_crawl_without_a_bound_gets_one():
    assert CollectConfig.model_validate({"urls": ["https://a.test/"]}).max_pages == 10_000
    assert CollectConfig.model_validate({"urls": ["https://a.test/"], "max_pages": None}).max_pages is None
    assert CollectConfig().max_pages is None


def test_pages_carry_their_own_licence_or_the_one_that_the_config_names(tmp_path):
    own = Answer(b'<link rel=license href="https://example.org/by"><p>words</p>')
    with Site({"/": html_page("/own"), "/own": own}) as site:
        config = crawl_config(site.address, "/").model_copy(
            update={"licence": "CC0-1.0", "source_name": "ours"}
        )
        collect(config, stage_context(tmp_path))
    pages = [record for record in records_of(tmp_path / "output") if record.type == "response"]
    assert [page.description for page in pages] == [
        {"source": "ours", "licence": "CC0-1.0"},
        {"source": "ours", "licence": "https://example.org/by"},
    ]


def test_a_robots_txt_cannot_send_the_crawler_to_many_other_hosts(tmp_path):
    rules = robots("".join(f"Sitemap: http://host{number}.test/s.xml\n" for number in range(50)))
    with Site({"/": html_page()}, rules) as site:
        hosts = {f"host{number}.test": site.address for number in range(50)}
        config = crawl_config(
            site.address, "/", max_sitemaps_per_host=3, resolve={HOST: site.address, **hosts}
        )
        collect(config, stage_context(tmp_path))
    assert site.asked["/s.xml"] == 3


def test_a_crawl_delay_holds_for_the_first_page_already(tmp_path):
    with Site({"/": html_page()}, robots("User-agent: *\nCrawl-delay: 0.4")) as site:
        started_s = time.monotonic()
        crawl(tmp_path, site, "/")
    assert time.monotonic() - started_s >= 0.8, "before tdmrep.json and before the page"


def test_what_a_crawl_met_is_told_in_the_metrics(tmp_path):
    same = html_page(text="the same")
    with Site({"/": html_page("/a", "/b"), "/a": same, "/b": same}) as site:
        metrics = collect(crawl_config(site.address, "/"), stage_context(tmp_path))
    assert metrics["revisits_same_content"] == 1
