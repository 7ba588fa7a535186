"""The curate stage: pages in, documents and a decision ledger out."""

import multiprocessing
import os
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import numpy as np

from bessemer.curate.config import CurateConfig
from bessemer.curate.deduplicate import Duplicate, Settings, find_duplicates, text_key
from bessemer.curate.judge import KEPT
from bessemer.curate.publish import write_artifact
from bessemer.curate.shards import Shard, ShardTask, finished_shard, make_shard, plan_shards
from bessemer.errors import BessemerError
from bessemer.formats.warc import is_warc_name
from bessemer.runner.context import Metrics, StageContext
from bessemer.runner.workers import exit_with_parent


def curate(config: CurateConfig, context: StageContext) -> Metrics:
    """Turn the `pages` artifact into documents and a ledger under `context.output`.

    Extraction and rules run in `config.workers` processes over ranges of records; finished ranges are
    kept in `context.scratch` and used again after a kill. Raises BessemerError when there is nothing to
    read or deduplication would take too much.
    """
    pages = context.input("pages")
    paths = [path for path in pages.files("**/*") if path.is_file() and is_warc_name(path)]
    if not paths:
        raise BessemerError(f"{pages.folder} holds no WARC or WET files for the stage {context.stage!r}")
    clock = _Clock()
    tasks = plan_shards(paths, config, pages.manifest.digest)
    if not tasks:
        raise BessemerError(f"the WARC files in {pages.folder} are empty: no record to curate")
    clock.lap("index")
    shards = _make_shards(tasks, config, context)
    clock.lap("extract_and_judge")
    duplicates = _deduplicate(shards, config)
    clock.lap("deduplicate")
    metrics = write_artifact(shards, duplicates, config, context.output)
    clock.lap("write")
    context.say(_summary(metrics))
    return metrics | clock.metrics()


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


def _make_shards(tasks: Sequence[ShardTask], config: CurateConfig, context: StageContext) -> list[Shard]:
    """Every task's shard, in the order of the tasks."""
    context.scratch.mkdir(parents=True, exist_ok=True)
    shards = {task.number: finished_shard(task, context.scratch) for task in tasks}
    waiting = [task for task in tasks if shards[task.number] is None]
    if len(waiting) < len(tasks):
        context.say(f"continuing: {len(tasks) - len(waiting)} of {len(tasks)} shards are done already")
    num_items = sum(task.num_items for task in tasks)
    with context.progress("curate", num_items, "records") as progress:
        progress.advance(num_items - sum(task.num_items for task in waiting))
        for task, shard in _each_shard(waiting, config, context.scratch):
            shards[task.number] = shard
            progress.advance(task.num_items)
    return [shard for _, shard in sorted(shards.items()) if shard is not None]


def _each_shard(
    tasks: Sequence[ShardTask], config: CurateConfig, scratch: Path
) -> Iterator[tuple[ShardTask, Shard]]:
    num_workers = min(config.workers or os.cpu_count() or 1, len(tasks))
    if num_workers <= 1:
        for task in tasks:
            yield task, make_shard(task, config, scratch)
        return
    # Spawned, not forked: the parent may hold threads (polars, pyarrow, a progress bar).
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(num_workers, mp_context=spawn, initializer=exit_with_parent) as pool:
        futures = [pool.submit(make_shard, task, config, scratch) for task in tasks]
        for task, future in zip(tasks, futures, strict=True):
            try:
                yield task, future.result()
            except BrokenProcessPool as error:
                raise BessemerError(
                    f"a worker process died at or after record range {task.path.name}:{task.offset} "
                    f"({task.num_items} records): out of memory, or a page that the parser cannot bear. "
                    "Run again (finished ranges are kept) with `workers: 1` or a smaller max_page_bytes."
                ) from error


def _deduplicate(shards: Sequence[Shard], config: CurateConfig) -> dict[int, Duplicate]:
    """Evidence by row number over all shards."""
    names: list[str] = []
    urls: list[str | None] = []
    keys: list[bytes] = []
    rows: list[int] = []
    num_rows_before = 0
    for shard in shards:
        table = shard.table(["verdict", "id", "url", "is_page_capture", "text"])
        for i, row in enumerate(table.to_pylist()):
            if row["verdict"] != KEPT:
                continue
            rows.append(num_rows_before + i)
            names.append(row["url"] or row["id"])
            urls.append(row["url"] if row["is_page_capture"] else None)
            keys.append(text_key(row["text"]))
        num_rows_before += shard.num_rows
    settings = Settings(
        by_url=config.url_duplicates,
        by_text=config.exact_duplicates,
        by_similarity=config.near_duplicates,
        num_bands=config.bands,
        min_similarity=config.min_similarity,
        max_duplicate_share=config.max_duplicate_share,
    )
    signatures = np.concatenate([shard.signatures() for shard in shards])
    sets = [shingle_set for shard in shards for shingle_set in shard.shingle_sets()]
    found = find_duplicates(names, urls, keys, signatures, sets, settings)
    return {
        rows[row]: Duplicate(each.rule, rows[each.survivor], rows[each.partner], each.similarity)
        for row, each in found.items()
    }


def _summary(metrics: Metrics) -> str:
    reasons = sorted(
        ((count, name.removeprefix("dropped.")) for name, count in metrics.items() if "dropped." in name),
        key=lambda reason: (-reason[0], reason[1]),
    )
    told = ", ".join(f"{count:,} {name}" for count, name in reasons[:5])
    rest = f", {len(reasons) - 5} more reasons" if len(reasons) > 5 else ""
    dropped = f" (dropped: {told}{rest})" if reasons else ""
    return f"kept {metrics['documents']:,} of {metrics['records']:,} pages{dropped}"
