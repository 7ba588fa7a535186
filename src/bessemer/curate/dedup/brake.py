"""The brake: a run that would lose too much stops and says where, instead of losing it.

MinHash without such a check has taken whole collections for one document. Rightly repetitive corpora can
be let through by the settings that each message names.
"""

from collections import Counter
from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from bessemer.curate.dedup.config import DuplicateConfig
from bessemer.errors import BessemerError

_MAX_NAMED = 5


def check_share(num_rows: int, survivor: NDArray[np.int64], limit: float, name: Callable[[int], str]) -> None:
    """Raise BessemerError when more than `limit` of all rows would go; names the biggest cluster.

    `survivor` [rows]: the row that stays, itself where it stays. `name` gives a row's URL or id.
    """
    num_dropped = int((survivor != np.arange(num_rows)).sum())
    if num_dropped <= limit * num_rows:
        return
    sizes = np.bincount(survivor, minlength=num_rows)
    biggest = int(sizes.argmax())
    raise BessemerError(
        f"deduplication would drop {num_dropped:,} of {num_rows:,} documents "
        f"({num_dropped / num_rows:.1%}), more than max_duplicate_share = {limit:.0%}. "
        f"The biggest cluster has {sizes[biggest]:,} documents and keeps only {name(biggest)}. "
        "If that is right, raise curate.max_duplicate_share; else look at that page: a template that fills "
        "most of each page makes them alike (raise min_similarity or set near_duplicates: false)."
    )


def check_clusters(
    sizes: NDArray[np.int64],
    source_of: Callable[[int], str],
    example: Callable[[int], str],
    config: DuplicateConfig,
) -> None:
    """Raise BessemerError when a cluster of near duplicates is too big; names all such.

    `sizes` [rows]: documents of the cluster that each row stands for. `example` tells of a confirmed pair.
    """
    too_big = np.flatnonzero(sizes > config.max_cluster).tolist()
    too_big = [row for row in too_big if source_of(row) not in config.allowed_sources]
    if not too_big:
        return
    too_big.sort(key=lambda row: (-sizes[row], row))
    named = "\n  ".join(f"{sizes[row]:,} documents: {example(row)}" for row in too_big[:_MAX_NAMED])
    more = f"\n  and {len(too_big) - _MAX_NAMED} more" if len(too_big) > _MAX_NAMED else ""
    raise BessemerError(
        f"near deduplication found {len(too_big)} cluster(s) of more than max_cluster = "
        f"{config.max_cluster:,} documents, of which one each would stay:\n  {named}{more}\n"
        "Look at those pages. If they are one document, raise curate.max_cluster or add their source to "
        "curate.allowed_sources; if they only share a template, raise curate.min_similarity or set "
        "curate.linkage: direct."
    )


def check_sources(totals: Mapping[str, int], lost: Counter[str], config: DuplicateConfig) -> None:
    """Raise BessemerError when a source would lose too large a share to near duplicates; names all such.

    `totals`: documents of each source that were compared; `lost`: those of them that would go.
    """
    stripped = [
        (count, source)
        for source, count in lost.items()
        if totals[source] >= config.min_source_documents
        and count > config.max_source_share * totals[source]
        and source not in config.allowed_sources
    ]
    if not stripped:
        return
    stripped.sort(key=lambda entry: (-entry[0], entry[1]))
    named = "\n  ".join(
        f"{source}: {count:,} of {totals[source]:,} documents ({count / totals[source]:.1%})"
        for count, source in stripped[:_MAX_NAMED]
    )
    more = f"\n  and {len(stripped) - _MAX_NAMED} more" if len(stripped) > _MAX_NAMED else ""
    raise BessemerError(
        f"near deduplication would take more than max_source_share = {config.max_source_share:.0%} from "
        f"{len(stripped)} source(s):\n  {named}{more}\n"
        "If that is right, list them in curate.allowed_sources or raise curate.max_source_share; else raise "
        "curate.min_similarity, set curate.linkage: direct, or set curate.near_duplicates: false."
    )
