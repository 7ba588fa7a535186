"""A few shards of the pages, evenly over all of them, taken through the whole of curation and measured.

They go through the stage's own functions where these would run: extraction and rules in as many workers, then
deduplication and writing in this process.
"""

import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from bessemer.curate.config import CurateConfig
from bessemer.curate.dedup.fingerprints import NUM_CHARACTERS
from bessemer.curate.dedup.resolve import STAYS, Duplicates, find_duplicates
from bessemer.curate.extrapolate import spread
from bessemer.curate.judge import judge
from bessemer.curate.publish import write_artifact
from bessemer.curate.records import Candidate
from bessemer.curate.shards import Shard, ShardTask, make_shard
from bessemer.curate.stage import num_threads, plan_tasks
from bessemer.formats.documents import DOCUMENTS_STEM
from bessemer.runner.context import Metrics, StageContext
from bessemer.runner.cost import CostMeter
from bessemer.runner.executors import Executor, ProcessPool, open_executor

_LEAST_SAMPLED, _SAMPLED_PER_WORKER = 8, 2
_READY_S = 10.0
"""How long workers wait for each other to be up."""


@dataclass(frozen=True)
class Made:
    """What a worker says of a shard."""

    shard: Shard
    wall_s: float


@dataclass(frozen=True)
class Finish:
    """What deduplication and writing of some shards took and gave."""

    rows: Sequence[int]
    """Documents of each shard that passed the rules."""
    characters: Sequence[int]
    """In them."""
    duplicates: Duplicates
    num_kept_characters: int
    """In those that are no duplicates, before lines are cut."""
    deduplicate_s: float
    write_s: float
    peak_bytes: int
    """Resident memory at most."""
    metrics: Metrics
    document_file_bytes: int
    other_file_bytes: int


@dataclass(frozen=True)
class Trial:
    """What was measured."""

    sampled: Sequence[ShardTask]
    num_tasks: int
    """Of the whole input."""
    whole_bytes: int
    num_workers: int
    startup_s: float
    """Until all workers were ready."""
    made: Sequence[Made]
    """In the order of `sampled`."""
    extract_peak_bytes: int
    cold: Finish
    """Of the first sampled shard alone, when this process does it for the first time."""
    first: Finish
    """The same again."""
    all: Finish
    """Of all sampled shards."""

    @property
    def sizes(self) -> list[int]:
        """Bytes of the sampled shards."""
        return [task.range.num_bytes for task in self.sampled]


def try_some(config: CurateConfig, context: StageContext) -> Trial:
    """Curate a sample below `context.scratch`. Raises what curating it raises."""
    tasks = plan_tasks(config, context)
    work = context.scratch.absolute()
    with ProcessPool(1) as pool:
        list(pool.map(partial(_compile, config=config, work=work), tasks[:1]))
    with CostMeter(work / "extract.json") as meter:
        start_s = time.monotonic()
        with open_executor(context.on, config.workers, len(tasks)) as executor:
            num_workers = executor.num_workers
            _be_ready(executor, config, work)
            startup_s = time.monotonic() - start_s
            wanted = max(_LEAST_SAMPLED, _SAMPLED_PER_WORKER * num_workers)
            sampled = [tasks[i] for i in spread(len(tasks), wanted)]
            context.say(f"{context.stage}: trying {len(sampled)} of {len(tasks)} shards")
            made = list(executor.map(partial(_make, config=config, scratch=work), sampled))
    shards = [each.shard for each in made]
    return Trial(
        sampled,
        len(tasks),
        sum(task.range.num_bytes for task in tasks),
        num_workers,
        startup_s,
        made,
        meter.total(0.0).peak_memory_bytes,
        _finish(shards[:1], config, work),
        _finish(shards[:1], config, work),
        _finish(shards, config, work),
    )


def _compile(task: ShardTask, config: CurateConfig, work: Path) -> None:
    """In a process of its own: compile, once and on disk, what is not compiled yet. That is no part of what
    the run will take, nor of the memory of this process."""
    _finish([make_shard(task, config, work)], config, work)


def _be_ready(executor: Executor, config: CurateConfig, scratch: Path) -> None:
    """Let every worker load what it needs."""
    load = partial(_load, num_workers=executor.num_workers, config=config, folder=scratch)
    list(executor.map(load, range(executor.num_workers)))


def _load(number: int, num_workers: int, config: CurateConfig, folder: Path) -> None:
    """Judge something, then wait for the other workers, so that none takes another's turn."""
    judge([Candidate("", 0, "", text="The cat sat on the mat.")], config)
    (folder / f"ready-{number}").touch()
    deadline_s = time.monotonic() + _READY_S
    while len(list(folder.glob("ready-*"))) < num_workers and time.monotonic() < deadline_s:
        time.sleep(0.02)


def _make(task: ShardTask, config: CurateConfig, scratch: Path) -> Made:
    start_s = time.monotonic()
    shard = make_shard(task, config, scratch)
    return Made(shard, time.monotonic() - start_s)


def _finish(shards: Sequence[Shard], config: CurateConfig, work: Path) -> Finish:
    """What comes after the shards, in this process."""
    output, scratch, attempts = work / "output", work / "duplicates", work / "finish.json"
    for folder in (output, scratch):  # what was done before must not be found and used again
        shutil.rmtree(folder, ignore_errors=True)
    attempts.unlink(missing_ok=True)
    with CostMeter(attempts) as meter:
        start_s = time.monotonic()
        duplicates = find_duplicates(shards, config, scratch, num_threads(config), lambda _: None, "trial")
        deduplicated_s = time.monotonic()
        metrics = write_artifact(shards, duplicates, config, output)
        written_s = time.monotonic()
    facts = [shard.fingerprints().array("facts") for shard in shards]
    stays = duplicates.rule == STAYS
    first = duplicates.first_rows
    kept = [int(part[stays[first[i] : first[i + 1]], NUM_CHARACTERS].sum()) for i, part in enumerate(facts)]
    files = {path: path.stat().st_size for path in output.iterdir()}
    document_bytes = sum(size for path, size in files.items() if path.name.startswith(DOCUMENTS_STEM))
    return Finish(
        [len(part) for part in facts],
        [int(part[:, NUM_CHARACTERS].sum()) for part in facts],
        duplicates,
        sum(kept),
        deduplicated_s - start_s,
        written_s - deduplicated_s,
        meter.total(0.0).peak_memory_bytes,
        metrics,
        document_bytes,
        sum(files.values()) - document_bytes,
    )
