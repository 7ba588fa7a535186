"""Where curation runs, and what dies on the way, changes no byte: random kills, and a real Ray."""

import os
import random
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
from curate_helpers import file_bytes, html_page, prose, stage_context, write_pages

from bessemer.curate.config import CurateConfig
from bessemer.curate.stage import curate

pytestmark = pytest.mark.slow

_CHILD = """
import sys
from pathlib import Path
from curate_helpers import stage_context
from bessemer.curate.config import CurateConfig
from bessemer.curate.stage import curate

if __name__ == "__main__":
    config = CurateConfig(shard_bytes=4000, workers=int(sys.argv[3]))
    curate(config, stage_context(Path(sys.argv[1]), Path(sys.argv[2])))
"""
SEARCH_PATH = os.pathsep.join(
    [str(Path(curate.__code__.co_filename).parents[2]), str(Path(__file__).parent.absolute())]
)


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pages")
    texts = [prose(i % 250, 60) for i in range(300)]  # the last fifty are copies
    write_pages(
        folder,
        [(f"https://a.org/{i}", "text/html", html_page(f"{i}", text)) for i, text in enumerate(texts)],
    )
    return folder


@pytest.fixture(scope="module")
def expected(pages: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The output of an undisturbed run in one process."""
    work = tmp_path_factory.mktemp("undisturbed")
    metrics = curate(CurateConfig(shard_bytes=4000, workers=1), stage_context(pages, work))
    assert (metrics["documents"], metrics["duplicates"]) == (250, 50)
    return file_bytes(work / "output")


@pytest.mark.parametrize("workers", [1, 2, 5])
def test_a_run_killed_at_random_moments_ends_with_the_same_bytes(
    pages: Path, expected: dict[str, bytes], tmp_path: Path, workers: int
):
    script = tmp_path / "child.py"
    script.write_text(_CHILD)
    command = [sys.executable, str(script), str(pages), str(tmp_path / "work"), str(workers)]
    environment = os.environ | {"PYTHONPATH": SEARCH_PATH}
    chance = random.Random(workers)
    scratch = tmp_path / "work" / "scratch"
    num_kills = 0
    for num_seals in (1, 20, 60):
        child = subprocess.Popen(command, env=environment)
        deadline_s = time.monotonic() + 120
        while (
            len(list(scratch.glob("shard-*.json"))) < num_seals
            and child.poll() is None
            and time.monotonic() < deadline_s
        ):
            time.sleep(0.002)
        time.sleep(chance.uniform(0, 0.3))
        num_kills += child.poll() is None
        child.kill()  # its workers end with it
        child.wait()
    assert num_kills >= 2
    assert subprocess.run(command, env=environment, check=False).returncode == 0
    assert file_bytes(tmp_path / "work" / "output") == expected


def ray_workers(process: int) -> list[int]:
    """Processes below `process` in which Ray runs a task of ours now."""
    found = []
    for thread in Path(f"/proc/{process}/task").iterdir():
        for child in map(int, (thread / "children").read_text().split()):
            try:
                if b"ray::_call" in Path(f"/proc/{child}/cmdline").read_bytes():
                    found.append(child)
                found += ray_workers(child)
            except (FileNotFoundError, ProcessLookupError):
                continue  # it ended while we looked
    return found


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="needs /proc to find Ray's workers")
def test_on_ray_with_a_worker_killed_in_the_middle_the_output_is_that_of_a_local_run(
    pages: Path, expected: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    pytest.importorskip("ray")
    monkeypatch.setenv("PYTHONPATH", SEARCH_PATH)
    killed: list[int] = []

    def kill_one() -> None:
        deadline_s = time.monotonic() + 240
        while not list((tmp_path / "scratch").glob("shard-*.json")) and time.monotonic() < deadline_s:
            time.sleep(0.01)
        while not killed and time.monotonic() < deadline_s:
            for process in ray_workers(os.getpid())[:1]:
                os.kill(process, signal.SIGKILL)
                killed.append(process)

    killer = threading.Thread(target=kill_one)
    killer.start()
    context = replace(stage_context(pages, tmp_path), on="ray")
    curate(CurateConfig(shard_bytes=4000, workers=3), context)
    killer.join()
    assert killed
    assert file_bytes(tmp_path / "output") == expected
