"""A crawl that is killed continues, and ends with the bytes of one that was not."""

import os
import subprocess
import sys
from pathlib import Path

from collect_helpers import Answer, Site, crawl_config, files_of, html_page, paths_of, stage_context

import bessemer
from bessemer.collect import collect

NUM_PAGES = 24
KILL_AT = (5, 11, 18)


def chain_of_pages() -> dict[str, Answer]:
    """Each page links to the next two, and to one that is missing."""
    links = {n: (f"/{n + 1}", f"/{n + 2}", f"/missing/{n}") for n in range(NUM_PAGES - 2)}
    return {f"/{n}": html_page(*links.get(n, ()), text=f"page {n}") for n in range(NUM_PAGES)}


def crawl_until_killed(site: Site, folder: Path, page: int) -> None:
    """Crawl in a child that is killed when it asks for a page."""
    import_path = [str(Path(bessemer.__file__).parents[1]), str(Path(__file__).parent)]
    child = subprocess.Popen(
        [sys.executable, str(Path(__file__).with_name("crawl_child.py")), site.address, str(folder)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(import_path)},
    )
    site.answers[f"/{page}"].before = child.kill  # type: ignore[union-attr]
    assert child.wait(timeout=600) == -9, "the child must be killed, not end by itself"
    site.answers[f"/{page}"].before = lambda: None  # type: ignore[union-attr]


def test_a_crawl_killed_three_times_ends_with_the_same_bytes(tmp_path, monkeypatch):
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    with Site(chain_of_pages()) as site:
        config = crawl_config(site.address, "/0", max_concurrency=2, max_depth=50, pages_per_commit=3)
        collect(config, stage_context(tmp_path / "whole"))
        undisturbed = dict(site.asked)
        site.asked.clear()
        for page in KILL_AT:
            crawl_until_killed(site, tmp_path / "killed", page)
        collect(config, stage_context(tmp_path / "killed"))
        asked_again = sum(site.asked[path] - count for path, count in undisturbed.items())
    assert paths_of(tmp_path / "whole" / "output") == [f"/{n}" for n in range(NUM_PAGES)]
    assert "crawl.jsonl" in files_of(tmp_path / "whole" / "output")
    assert files_of(tmp_path / "killed" / "output") == files_of(tmp_path / "whole" / "output")
    # Each restart repeats at most what was under way and uncommitted, not the crawl.
    assert asked_again < len(KILL_AT) * 15


def test_a_finished_crawl_is_not_fetched_again(tmp_path, monkeypatch):
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    with Site(chain_of_pages()) as site:
        config = crawl_config(site.address, "/0")
        collect(config, stage_context(tmp_path))
        before, asked = files_of(tmp_path / "output"), site.asked.total()
        collect(config, stage_context(tmp_path))
        assert files_of(tmp_path / "output") == before
        assert site.asked.total() == asked
