"""What curating all pages will give and cost, from a few shards of them: the forecast of `run --dry-run`.

Counts and times of the sample are extrapolated by the bytes of the shards (`extrapolate`). The intervals
cover how shards differ; those of the costs also how the speed of a machine swings, and what a small sample
cannot tell of memory.
"""

from collections.abc import Mapping, Sequence

from bessemer.curate.config import CurateConfig
from bessemer.curate.extrapolate import (
    along_line,
    count_of,
    difference,
    product,
    repeats_within_and_across,
    share_left,
    total_of,
    total_repeats,
)
from bessemer.curate.trial import Trial, try_some
from bessemer.runner.context import StageContext
from bessemer.runner.forecast import Expected, Prediction
from bessemer.runner.progress import data_size

SPEED_SWING = 0.3
"""By how much a machine may be faster or slower when the run comes than it was for the trial."""
SIZE_SWING = 0.1
"""By how much pages may compress better or worse together than some of them."""
MEMORY_SWING = 0.15
"""By how much resident memory differs between runs: when allocators give pages back is theirs to say."""
_FILE_COPIES = 3
"""Of a Parquet file on its way: the rows that wait, the same joined, and compressed."""
_ROW_BYTES = 100
"""What deduplication holds of a document, at most (see `find_duplicates`)."""


def forecast(config: CurateConfig, context: StageContext) -> Prediction:
    """Predict the counts that `curate` returns, its time and its memory.

    Raises BessemerError where `curate` would, as far as a sample shows it.
    """
    trial = try_some(config, context)
    records = _count(trial, [each.shard.num_rows for each in trial.made])
    passed = _count(trial, trial.all.rows)
    expected = {"records": records} | _documents(trial, records, passed)
    expected["wall_s"] = _wall_s(trial, records, passed)
    expected["peak_memory_bytes"] = _peak(trial, config, passed.value, expected)
    basis = (
        f"{len(trial.sampled)} of {trial.num_tasks} shards, {data_size(sum(trial.sizes))} "
        f"of {data_size(trial.whole_bytes)}"
    )
    return Prediction(expected, {"workers": trial.num_workers}, basis)


def _count(trial: Trial, values: Sequence[int]) -> Expected:
    return count_of(values, trial.sizes, trial.whole_bytes, trial.num_tasks)


def _total(trial: Trial, values: Sequence[float]) -> Expected:
    return total_of(values, trial.sizes, trial.whole_bytes, trial.num_tasks)


def _documents(trial: Trial, records: Expected, passed: Expected) -> dict[str, Expected]:
    """Documents and their text. Pages that a rule drops are proportional to the input; duplicates grow
    faster, for every further shard may repeat any earlier one."""
    finish = trial.all
    within, num_across = repeats_within_and_across(finish.duplicates.survivor, finish.duplicates.first_rows)
    repeated = total_repeats(
        finish.rows, within.tolist(), num_across, trial.sizes, trial.whole_bytes, trial.num_tasks
    )
    text = product(_total(trial, finish.characters), share_left(passed.value, repeated))
    left_by_cuts = finish.metrics["characters"] / max(1, finish.num_kept_characters)
    characters = text.times(left_by_cuts)
    each = max(1, finish.metrics["characters"])
    return {
        "duplicates": repeated,
        "documents": difference(passed, repeated),
        "characters": characters,
        "text_bytes": characters.times(finish.metrics["text_bytes"] / each),
        "output_bytes": _output_bytes(trial, characters, records),
    }


def _output_bytes(trial: Trial, characters: Expected, records: Expected) -> Expected:
    """Documents grow with their text, ledger and pairs with the records; the head of each file does not."""
    first, last = trial.first, trial.all
    documents = along_line(
        (first.metrics["characters"], first.document_file_bytes),
        (last.metrics["characters"], last.document_file_bytes),
        characters,
    )
    others = along_line(
        (first.metrics["records"], first.other_file_bytes),
        (last.metrics["records"], last.other_file_bytes),
        records,
    )
    total = documents + others
    return Expected(total.value, total.low / (1 + SIZE_SWING), total.high * (1 + SIZE_SWING))


def _wall_s(trial: Trial, records: Expected, passed: Expected) -> Expected:
    """Workers start, share out the shards, and this process loads its code, deduplicates and writes."""
    cold, first, last = trial.cold, trial.first, trial.all
    extract = _total(trial, [each.wall_s for each in trial.made]).times(1 / trial.num_workers)
    deduplicate = along_line(
        (sum(first.rows), first.deduplicate_s), (sum(last.rows), last.deduplicate_s), passed
    )
    write = along_line(
        (first.metrics["records"], first.write_s), (last.metrics["records"], last.write_s), records
    )
    load_s = max(0.0, cold.deduplicate_s + cold.write_s - first.deduplicate_s - first.write_s)
    fixed_s = trial.startup_s + load_s
    wall = extract + deduplicate + write + Expected(fixed_s, fixed_s, fixed_s)
    return Expected(wall.value, wall.low / (1 + SPEED_SWING), wall.high * (1 + SPEED_SWING))


def _peak(trial: Trial, config: CurateConfig, num_rows: float, expected: Mapping[str, Expected]) -> Expected:
    """The larger of what workers hold, and of what deduplication and writing hold after them.

    Workers hold a batch each, whatever the size of the input. Of the rest grows: what is held of each
    document, and the file that is written, up to `max_file_bytes` in a few copies.
    """
    finish = trial.all
    documents = _ROW_BYTES * max(0.0, num_rows - sum(finish.rows))
    held = min(config.max_file_bytes, expected["text_bytes"].value)
    file = _FILE_COPIES * max(0.0, held - finish.metrics["text_bytes"])
    at_most = documents + file + config.duplicate_memory
    return Expected(
        max(trial.extract_peak_bytes, finish.peak_bytes + documents + file),
        max(trial.extract_peak_bytes, finish.peak_bytes) / (1 + MEMORY_SWING),
        max(trial.extract_peak_bytes, finish.peak_bytes + at_most) * (1 + MEMORY_SWING),
    )
