"""Who stays of a cluster: a score for every row, the greatest of which wins."""

from collections.abc import Sequence
from datetime import UTC, datetime

import numpy as np
from numpy.typing import NDArray

from bessemer.curate.dedup.config import DuplicateConfig
from bessemer.curate.dedup.corpus import Corpus
from bessemer.curate.dedup.documents import DocumentShard
from bessemer.curate.dedup.fingerprints import NUM_CHARACTERS


def survivor_scores(
    shards: Sequence[DocumentShard], corpus: Corpus, config: DuplicateConfig
) -> NDArray[np.float64] | None:
    """[rows]: greater stays; -inf where the value is missing. None when the first row always stays."""
    if config.survivor == "first":
        return None
    parts = [np.empty(0)]
    for number, files, _ in corpus.shards():
        if config.survivor == "longest":
            parts.append(files.array("facts")[:, NUM_CHARACTERS].astype(np.float64))
            continue
        column = config.survivor_value or "fetched_at"
        read = _seconds if column == "fetched_at" else _number
        for batch in shards[number].kept([column]):
            parts.append(np.array([read(value) for value in batch[column].to_pylist()], np.float64))
    score = np.concatenate(parts)
    if config.survivor in ("oldest", "lowest"):
        score = -score
    return np.where(np.isnan(score), -np.inf, score)


def _number(value: object) -> float:
    return float(value) if isinstance(value, int | float) else np.nan


def _seconds(value: object) -> float:
    """An ISO 8601 date as seconds since 1970; times without a zone are UTC. NaN when it is none."""
    try:
        date = datetime.fromisoformat(str(value))
    except ValueError:
        return np.nan
    return (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp()
