"""Stage contexts and artifacts for tests that call a stage directly, without the runner."""

import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

from bessemer.formats.documents import DOCUMENT_SCHEMA, DocumentWriter
from bessemer.runner.context import StageContext
from bessemer.runner.manifest import Artifact, Cost, Manifest

FILE_OPERATIONS = {"open", "os.mkdir", "os.rename", "os.remove", "os.rmdir"}


class SilentProgress:
    def advance(self, amount: float = 1) -> None: ...
    def set(self, completed: float, **shown: object) -> None: ...
    def __enter__(self) -> "SilentProgress":
        return self

    def __exit__(self, *error: object) -> None: ...


class Recorder:
    """Keeps what the stage said."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def say(self, text: str) -> None:
        self.said.append(text)

    def progress(self, description: str, total: float | None, unit: str) -> SilentProgress:
        return SilentProgress()


def artifact(folder: Path, kind: str, stage: str | None = None) -> Artifact:
    """A folder as the artifact of a finished stage."""
    manifest = Manifest(
        kind=kind,
        stage=stage or kind,
        stage_kind=kind,
        format_version=1,
        digest=f"digest of {kind}",
        key="",
        inputs={},
        input_stages={},
        config={},
        seed=0,
        versions={},
        files=[],
        metrics={},
        cost=Cost(),
        created_at="2024-05-01T00:00:00Z",
    )
    return Artifact(folder, manifest)


def stage_context(work: Path, *inputs: Artifact, stage: str = "stage", seed: int = 1) -> StageContext:
    """A context that writes below `work`; called again with the same `work`, it finds what is there."""
    by_kind: dict[str, list[Artifact]] = {}
    for given in inputs:
        by_kind.setdefault(given.kind, []).append(given)
    for name in ("output", "scratch"):
        (work / name).mkdir(parents=True, exist_ok=True)
    return StageContext(
        stage=stage,
        seed=seed,
        output=work / "output",
        scratch=work / "scratch",
        inputs=by_kind,
        reporter=Recorder(),
        metrics_path=work / "output" / "metrics.jsonl",
    )


def said(context: StageContext) -> str:
    """Everything the stage told the user, a line each."""
    assert isinstance(context.reporter, Recorder)
    return "\n".join(context.reporter.said)


def write_documents(folder: Path, shards: list[list[tuple[str, str]]]) -> Artifact:
    """A documents artifact of (id, text) pairs, a shard a list."""
    with DocumentWriter(folder, max_shard_bytes=1) as writer:
        for shard in shards:
            rows = [dict.fromkeys(DOCUMENT_SCHEMA.names) | {"id": id, "text": text} for id, text in shard]
            writer.write(DOCUMENT_SCHEMA.empty_table().from_pylist(rows, schema=DOCUMENT_SCHEMA))
    return artifact(folder, "documents")


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below a folder by relative name."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def killed(work: Callable[[], object]) -> bool:
    """Do `work` in a forked process; whether it was killed -9 before its end."""
    child = os.fork()
    if child == 0:
        try:
            work()
        finally:
            os._exit(0)
    deadline = time.monotonic() + 600
    while time.monotonic() < deadline:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
        time.sleep(0.005)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    raise AssertionError("the child did not end")


def kill_at_operation(folder, number: int) -> None:
    """Kill this very process just before its n-th file operation below `folder` (PEP 578 events)."""
    count = 0

    def watch(event: str, arguments: tuple[object, ...]) -> None:
        nonlocal count
        if event in FILE_OPERATIONS and str(arguments[0]).startswith(str(folder)):
            count += 1
            if count == number:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(watch)
