"""Kill -9 anywhere, run again, compare with an undisturbed run."""

import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import pytest
import tiny_stages
from tiny_stages import digests_of, run_tiny

from bessemer.runner.manifest import open_artifact
from bessemer.runner.workers import exit_with_parent

FILE_OPERATIONS = {"open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "shutil.copyfile"}


def run_killed_at(operation: int, folder: Path, work: Callable[[], object]) -> bool:
    """Do `work` in a forked process that is killed -9 just before its n-th file operation in `folder`.

    Python's audit events (PEP 578) announce every operation; nothing of the code under test is
    replaced. Returns whether it was killed, False when it came to its end first.
    """
    child = os.fork()
    if child == 0:
        count = 0
        main = threading.get_ident()

        def watch(event: str, arguments: tuple[object, ...]) -> None:
            nonlocal count
            if event not in FILE_OPERATIONS or threading.get_ident() != main:
                return
            if str(arguments[0]).startswith(str(folder)):
                count += 1
                if count == operation:
                    os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(watch)
        try:
            work()
        except BaseException as error:
            os.write(2, f"{error!r}\n".encode())
            os._exit(1)
        os._exit(0)
    status = os.waitpid(child, 0)[1]
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0
    return os.WIFSIGNALED(status)


def assert_like_new(folder: Path, expected: dict[str, str]) -> None:
    assert digests_of(folder) == expected
    hidden = sorted(path.name for path in folder.glob(".*"))
    assert hidden == [".lock"], "no partial folder and nothing on its way out is left"


def test_killed_before_every_file_operation_a_run_continues_to_the_same_bytes(tmp_path: Path) -> None:
    expected = run_tiny(tmp_path / "undisturbed", "words.count=2")
    operation = 0
    was_killed = True
    while was_killed:
        operation += 1
        folder = tmp_path / f"killed-{operation}"
        was_killed = run_killed_at(operation, folder, partial(run_tiny, folder, "words.count=2"))
        digests_of(folder)  # verifies whatever can be seen
        run_tiny(folder, "words.count=2")
        assert_like_new(folder, expected)
    assert operation > 50, "the operations of three stages have been seen"


def test_killed_while_it_replaces_old_artifacts_a_run_continues_to_the_same_bytes(tmp_path: Path) -> None:
    run_tiny(tmp_path / "old", "words.count=2")
    changed = ("words.count=2", "letters.style.case=upper")
    expected = run_tiny(tmp_path / "undisturbed", *changed)
    operation = 0
    was_killed = True
    while was_killed:
        operation += 1
        folder = tmp_path / f"killed-{operation}"
        shutil.copytree(tmp_path / "old", folder)
        was_killed = run_killed_at(operation, folder, partial(run_tiny, folder, *changed))
        digests_of(folder)
        run_tiny(folder, *changed)
        assert_like_new(folder, expected)


def test_killed_again_and_again_a_run_still_comes_to_the_same_bytes(tmp_path: Path) -> None:
    """Each attempt gets a few file operations further than the last, in one and the same folder."""
    expected = run_tiny(tmp_path / "undisturbed")
    folder = tmp_path / "run"
    attempts = 0
    while run_killed_at(14 + attempts, folder, partial(run_tiny, folder)):
        attempts += 1
    assert_like_new(folder, expected)
    assert attempts > 3
    manifest = open_artifact(folder / "words").manifest
    assert manifest.cost.attempts > 1
    steps = [line.split(",")[0] for line in (folder / "words/metrics.jsonl").read_text().splitlines()]
    assert len(steps) == len(set(steps)) == 6, "no row is there twice"


def test_killed_at_random_moments_a_process_continues_to_the_same_bytes(tmp_path: Path) -> None:
    overrides = ("words.pause_s=0.02",)
    expected = run_tiny(tmp_path / "undisturbed", *overrides)
    command = [sys.executable, tiny_stages.__file__]
    start_s = time.monotonic()
    subprocess.run([*command, str(tmp_path / "timed"), *overrides], check=True)
    took_s = time.monotonic() - start_s
    draw = random.Random(7)
    for attempt in range(6):
        folder = tmp_path / f"run-{attempt}"
        process = subprocess.Popen([*command, str(folder), *overrides])
        time.sleep(took_s * draw.uniform(0.4, 1.0))
        process.kill()
        process.wait()
        run_tiny(folder, *overrides)
        assert_like_new(folder, expected)


@pytest.mark.skipif(not Path("/proc").exists(), reason="looks for processes in /proc")
def test_workers_of_a_killed_run_end_with_it(tmp_path: Path) -> None:
    report = tmp_path / "pids"
    parent = get_context("spawn").Process(target=_parent_of_workers, args=(report,))
    parent.start()
    deadline_s = time.monotonic() + 300
    while not report.exists() and time.monotonic() < deadline_s:
        time.sleep(0.05)
    workers = [int(pid) for pid in report.read_text().split()]
    assert parent.pid is not None
    os.kill(parent.pid, signal.SIGKILL)
    parent.join()
    while any(_is_running(pid) for pid in workers) and time.monotonic() < deadline_s:
        time.sleep(0.02)
    assert not any(_is_running(pid) for pid in workers)


def _parent_of_workers(report: Path) -> None:
    with ProcessPoolExecutor(1, mp_context=get_context("spawn"), initializer=exit_with_parent) as pool:
        pid = pool.submit(os.getpid).result()
        unfinished = report.with_suffix(".unfinished")
        unfinished.write_text(str(pid))
        unfinished.rename(report)
        time.sleep(600)


def _is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
