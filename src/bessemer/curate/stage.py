"""The curate stage: pages in, documents and a decision ledger out."""

import os
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path

from bessemer.curate.by_language import tell_languages
from bessemer.curate.config import CurateConfig
from bessemer.curate.dedup.planted import load_kernels
from bessemer.curate.dedup.resolve import find_duplicates
from bessemer.curate.publish import write_artifact
from bessemer.curate.ranges import ByteRange, prove
from bessemer.curate.shards import Shard, ShardTask, finished_shard, is_sealed, make_shard, plan_shards
from bessemer.errors import BessemerError
from bessemer.formats.warc import is_warc_name
from bessemer.runner.context import Metrics, StageContext
from bessemer.runner.executors import Executor, open_executor
from bessemer.runner.manifest import Artifact, digest_of_json


def curate(config: CurateConfig, context: StageContext) -> Metrics:
    """Turn the `pages` artifact into documents and a ledger under `context.output`.

    Extraction and rules run in `config.workers` processes, or where `context.on` says, over ranges of the
    files' bytes; finished ranges are kept in `context.scratch` and used again after a kill. Raises
    BessemerError when there is nothing to read or deduplication would take too much.
    """
    clock = _Clock()
    tasks = plan_tasks(config, context)
    clock.lap("plan")
    with open_executor(context.on, config.workers, len(tasks)) as executor:
        num_workers = executor.num_workers
        shards = _make_shards(tasks, config, context, executor)
        clock.lap("extract_and_judge")
    scratch = context.scratch / "duplicates"
    inputs_digest = digest_of_json([task.fingerprint for task in tasks])
    duplicates = find_duplicates(shards, config, scratch, num_threads(config), context.say, inputs_digest)
    clock.lap("deduplicate")
    metrics = write_artifact(shards, duplicates, config, context.output)
    clock.lap("write")
    context.say(_summary(metrics))
    context.say(tell_languages(metrics))
    if fallbacks := metrics.get("extractor.fallbacks"):
        context.say(
            f"{fallbacks:,} pages have resiliparse's text because trafilatura gave none in time or crashed, "
            "which may differ on another machine: extractor_reason in the ledger"
        )
    return metrics | duplicates.metrics | clock.metrics() | {"workers": num_workers}


def plan_tasks(config: CurateConfig, context: StageContext) -> list[ShardTask]:
    """The shards to make of the `pages` artifacts. Raises BessemerError when there is nothing to read."""
    pages = context.inputs["pages"]
    folders = ", ".join(str(artifact.folder) for artifact in pages)
    files = page_files(pages)
    if not files:
        raise BessemerError(f"{folders} holds no WARC or WET files for the stage {context.stage!r}")
    tasks = plan_shards(files, config, " ".join(artifact.manifest.digest for artifact in pages))
    if not tasks:
        raise BessemerError(f"the WARC files in {folders} are empty: no record to curate")
    return tasks


def num_threads(config: CurateConfig) -> int:
    """Threads that compare nominated duplicates."""
    return config.workers or os.cpu_count() or 1


def page_files(pages: Sequence[Artifact]) -> dict[str, Path]:
    """Name in the ledger → path of every WARC file, in the order of the artifacts, then of names.

    The name is the file's own; with several artifacts the stage that made it stands before it, so that
    names stay unique.
    """
    is_one = len(pages) == 1
    return {
        ("" if is_one else f"{artifact.stage}/")
        + path.relative_to(artifact.folder).as_posix(): path.absolute()
        for artifact in pages
        for path in artifact.files("**/*")
        if path.is_file() and is_warc_name(path)
    }


class _Clock:
    """Wall seconds per step."""

    def __init__(self) -> None:
        self._laps: dict[str, float] = {}
        self._started = time.monotonic()

    def lap(self, name: str) -> None:
        now = time.monotonic()
        self._laps[f"wall_s.{name}"] = round(now - self._started, 3)
        self._started = now

    def metrics(self) -> Metrics:
        return dict(self._laps)


def _make_shards(
    tasks: Sequence[ShardTask], config: CurateConfig, context: StageContext, executor: Executor
) -> list[Shard]:
    """Every task's shard, in the order of the tasks."""
    scratch = context.scratch.absolute()
    scratch.mkdir(parents=True, exist_ok=True)
    sealed = [task for task in tasks if is_sealed(task, scratch)]
    verified = executor.map(partial(finished_shard, scratch=scratch), sealed)
    shards = {shard.number: shard for shard in verified if shard is not None}
    if shards:
        context.say(f"continuing: {len(shards)} of {len(tasks)} shards are done already")
    waiting = [task for task in tasks if task.number not in shards]
    make = partial(make_shard, config=config, scratch=scratch)
    num_bytes = sum(task.range.num_bytes for task in tasks)
    with context.progress("curate", num_bytes, "bytes") as progress, ThreadPoolExecutor(1) as meanwhile:
        progress.advance(num_bytes - sum(task.range.num_bytes for task in waiting))
        for task, shard in zip(waiting, executor.map(make, waiting), strict=True):
            shards[task.number] = shard
            if task is waiting[0] and executor.num_workers > 1 and config.near_duplicates:
                # Not before the workers have compiled it, where that is still to do.
                meanwhile.submit(load_kernels, config.minhash_parameters)
            progress.advance(task.range.num_bytes)

    def make_again(number: int, range_: ByteRange) -> Shard:
        return next(executor.map(make, [replace(tasks[number], range=range_)]))

    return prove([task.range for task in tasks], [shards[task.number] for task in tasks], make_again)


def _summary(metrics: Metrics) -> str:
    reasons = sorted(
        ((count, name.removeprefix("dropped.")) for name, count in metrics.items() if "dropped." in name),
        key=lambda reason: (-reason[0], reason[1]),
    )
    told = ", ".join(f"{count:,} {name}" for count, name in reasons[:5])
    rest = f", {len(reasons) - 5} more reasons" if len(reasons) > 5 else ""
    dropped = f" (dropped: {told}{rest})" if reasons else ""
    return f"kept {metrics['documents']:,} of {metrics['records']:,} pages{dropped}"
