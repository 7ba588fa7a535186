"""After kill -9 in the middle of the work over all documents: finished parts are used, results are equal."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from dedup_world import altered, find, random_text
from test_near_duplicates import same

from bessemer.curate.dedup import near, resolve
from bessemer.curate.dedup.parts import Parts
from bessemer.curate.dedup.resolve import Duplicates

SETTINGS = {"paragraph_duplicates": True, "substring_duplicates": True, "min_substring_words": 12}


def corpus() -> list[str]:
    """Texts of several lines with equal ones, near copies and repeated paragraphs."""
    random_ = random.Random(5)
    originals = [random_text(random_, 120) for _ in range(40)]
    notice = " ".join(random_text(random_, 20))
    texts = [" ".join(words) + f"\n{notice}" for words in originals]
    texts += [" ".join(altered(random_.choice(originals), random_.randrange(6), random_)) for _ in range(160)]
    return [*texts, *texts[:10]]


def lines_cut(found: Duplicates) -> list[tuple[int, int, bool]]:
    cuts = found.cuts
    return list(zip(cuts.rows.tolist(), cuts.lines.tolist(), cuts.is_paragraph.tolist(), strict=True))


def parts_of(folder: Path) -> dict[str, int]:
    """Finished parts and when each was written."""
    seals = (folder / "scratch" / "parts").glob("*.json")
    return {seal.stem: seal.with_suffix("").stat().st_mtime_ns for seal in seals}


_CHILD = """
import sys, time
from pathlib import Path
from dedup_world import find
from test_dedup_resume import SETTINGS, corpus
from bessemer.curate.dedup import near
from bessemer.curate.dedup.parts import Parts

def complete_and_wait(self, name):
    complete(self, name)
    time.sleep(600 if name == sys.argv[2] else 0)  # to be killed

if __name__ == "__main__":
    near._PAIRS_AT_ONCE = 100
    complete = Parts.complete
    Parts.complete = complete_and_wait
    find(corpus(), Path(sys.argv[1]), 50, **SETTINGS)
"""


@pytest.mark.parametrize("kill_at", ["band-00004", "confirmed-00001"])
def test_a_run_killed_in_the_work_over_all_documents_goes_on_where_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kill_at: str
):
    monkeypatch.setattr(near, "_PAIRS_AT_ONCE", 100)
    source = str(Path(resolve.__file__).parents[3])
    script = tmp_path / "child.py"
    script.write_text(_CHILD)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([source, str(Path(__file__).parent)])}
    killed = tmp_path / "killed"
    child = subprocess.Popen([sys.executable, str(script), str(killed), kill_at], env=environment)
    deadline = time.monotonic() + 600
    while kill_at not in parts_of(killed) and child.poll() is None and time.monotonic() < deadline:
        time.sleep(0.002)
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    finished = parts_of(killed)
    assert kill_at in finished

    continued = find(corpus(), killed, 50, **SETTINGS)
    undisturbed = find(corpus(), tmp_path / "undisturbed", 50, **SETTINGS)
    afterwards = parts_of(killed)
    assert {name: afterwards[name] for name in finished} == finished, "a finished part was made again"
    assert len(afterwards) > len(finished), "it was killed when all was done"
    assert same(continued, undisturbed)
    assert lines_cut(continued) == lines_cut(undisturbed) != []


@pytest.mark.parametrize("stop_after", range(0, 24, 3))
def test_stopped_after_any_part_it_ends_with_the_same_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop_after: int
):
    monkeypatch.setattr(near, "_PAIRS_AT_ONCE", 100)
    expected = find(corpus(), tmp_path / "undisturbed", 50, **SETTINGS)
    complete = Parts.complete
    left = iter(range(stop_after))

    def stop(self: Parts, name: str) -> None:
        if next(left, None) is None:
            raise KeyboardInterrupt
        complete(self, name)

    with monkeypatch.context() as patch:
        patch.setattr(Parts, "complete", stop)
        with pytest.raises(KeyboardInterrupt):
            find(corpus(), tmp_path / "stopped", 50, **SETTINGS)
    assert len(parts_of(tmp_path / "stopped")) == stop_after
    assert same(find(corpus(), tmp_path / "stopped", 50, 2, duplicate_memory=1 << 16, **SETTINGS), expected)


def values(name: str, made: list[str]):
    def make() -> np.ndarray:
        made.append(name)
        return np.arange(5)

    return make


def test_a_part_is_made_once_until_its_file_or_what_it_depends_on_changes(tmp_path: Path):
    made: list[str] = []
    folder = tmp_path / "parts"
    for _ in range(2):
        assert Parts(folder, "one").array("some", values("some", made)).tolist() == [0, 1, 2, 3, 4]
    assert made == ["some"]
    content = (folder / "some").read_bytes()
    (folder / "some").write_bytes(content[:-1] + b"?")
    assert Parts(folder, "one").array("some", values("damaged", made)).tolist() == [0, 1, 2, 3, 4]
    (folder / "some").write_bytes(b"")
    Parts(folder, "one").array("some", values("emptied", made))
    (folder / "some.json").write_bytes(b"{")
    Parts(folder, "one").array("some", values("unsealed", made))
    Parts(folder, "another").array("some", values("another", made))
    assert made == ["some", "damaged", "emptied", "unsealed", "another"]
    assert not Parts(folder, "one").is_done("some"), "the parts of another identity were kept"


def test_a_part_that_was_not_written_to_its_end_does_not_count(tmp_path: Path):
    parts = Parts(tmp_path / "parts", "one")

    def half() -> np.ndarray:
        raise RuntimeError

    with pytest.raises(RuntimeError):
        parts.array("some", half)
    assert not parts.is_done("some")
