"""Real documentation sites over loopback: every linked page, each once; killed and continued."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from collect_helpers import crawl_config, files_of, records_of, stage_context
from folder_site import FolderSite, installed

import bessemer
from bessemer.collect import collect

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not installed("sqlite"), reason="needs Debian's python3-doc, sqlite3-doc, postgresql-doc"
    ),
]
CRAWL = {"max_depth": 100, "max_concurrency": 8, "max_concurrency_per_host": 8}


@pytest.fixture(autouse=True)
def fixed_clock(monkeypatch):
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")


def test_every_linked_page_of_three_real_sites_is_stored_once(tmp_path):
    with FolderSite(installed("python", "sqlite", "postgresql")) as site:
        wanted = site.reachable()
        collect(crawl_config(site.address, "/", **CRAWL), stage_context(tmp_path))
        asked = {path: count for path, count in site.asked.items() if not urlsplit(path).query}
    pages = [record for record in records_of(tmp_path / "output") if record.status == 200]
    stored = [urlsplit(page.uri).path for page in pages if not urlsplit(page.uri).query]
    assert len(stored) == len(set(stored)), "no page is stored twice"
    assert set(stored) == wanted
    assert max(asked.values()) == 1, "nor is anything asked for twice"
    assert len(wanted) > 500


_CHILD = """
import json, sys
from pathlib import Path
from collect_helpers import crawl_config, stage_context
from bessemer.collect import collect
collect(crawl_config(sys.argv[1], "/", **json.loads(sys.argv[3])), stage_context(Path(sys.argv[2])))
"""


def test_a_crawl_of_a_real_site_killed_thrice_ends_with_the_same_bytes(tmp_path):
    with FolderSite(installed("sqlite")) as site:
        config = crawl_config(site.address, "/", **CRAWL)
        collect(config, stage_context(tmp_path / "whole"))
        num_asked = site.asked.total()
        for share in (0.2, 0.5, 0.8):
            killed_at(site, tmp_path / "killed", share * num_asked)
        collect(config, stage_context(tmp_path / "killed"))
    assert files_of(tmp_path / "killed" / "output") == files_of(tmp_path / "whole" / "output")


def killed_at(site: FolderSite, folder: Path, num_asked: float) -> None:
    """Crawl in a child that is killed when the site was asked so many times in all."""
    if not folder.exists():
        site.asked.clear()
    import_path = [str(Path(bessemer.__file__).parents[1]), str(Path(__file__).parent)]
    child = subprocess.Popen(
        [sys.executable, "-c", _CHILD, site.address, str(folder), json.dumps(CRAWL)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(import_path)},
    )
    deadline_s = time.monotonic() + 300
    while site.asked.total() < num_asked and child.poll() is None and time.monotonic() < deadline_s:
        time.sleep(0.002)
    child.send_signal(signal.SIGKILL)
    assert child.wait() == -signal.SIGKILL, "the child must be killed, not end by itself"
