"""Deduplication in numbers: pairs, cluster sizes, and what became of the planted duplicates."""

import numpy as np
from numpy.typing import NDArray

from bessemer.curate.dedup.clusters import cluster_sizes, size_histogram
from bessemer.curate.dedup.config import DuplicateConfig
from bessemer.curate.dedup.near import NearDuplicates
from bessemer.runner.context import Metrics


def metrics_of(survivor: NDArray[np.int64], near: NearDuplicates | None, config: DuplicateConfig) -> Metrics:
    """Flat numbers for the manifest.

    `clusters.size_…`: clusters by the number of their documents, whatever made them. `near.nominated`,
    `near.confirmed`: pairs that agreed on a band, and those of them that are similar enough. `planted.…`:
    copies of each grade of similarity, how many were found, and how many should have been by the formula.
    `planted.recall` is over the copies that are duplicates, `planted.precision` over those taken for one.
    """
    sizes = cluster_sizes(survivor, np.ones(len(survivor), np.bool_))
    metrics: Metrics = {f"clusters.size_{name}": n for name, n in size_histogram(sizes).items()}
    metrics["clusters.largest"] = int(sizes.max(initial=0)) if (sizes > 1).any() else 0
    if near is not None:
        metrics |= {"near.nominated": near.num_nominated, "near.confirmed": near.pairs.num_pairs}
        metrics |= _planted(near, config)
    return metrics


def _planted(near: NearDuplicates, config: DuplicateConfig) -> Metrics:
    metrics: Metrics = {}
    num_duplicates = num_found = num_wrong = 0
    for grade, num_copies, found in near.planted.by_grade(config.min_similarity):
        name = f"planted.{grade}"
        metrics |= {f"{name}.copies": num_copies, f"{name}.found": found}
        if grade.low < config.min_similarity:
            num_wrong += found
            continue
        num_duplicates += num_copies
        num_found += found
        if num_copies and config.similarity == "jaccard":
            middle = (grade.low + grade.high) / 2
            expected = config.minhash_parameters.nomination_probability(middle)
            metrics[f"{name}.expected_recall"] = round(expected, 4)
    if num_duplicates:
        metrics["planted.recall"] = round(num_found / num_duplicates, 4)
    if num_found + num_wrong:
        metrics["planted.precision"] = round(num_found / (num_found + num_wrong), 4)
    return metrics


def summary_of(metrics: Metrics) -> str:
    """One line: recall by grade of similarity, precision, and how many nominations were confirmed."""
    nominated, confirmed = metrics["near.nominated"], metrics["near.confirmed"]
    pairs = f"near duplicates: {confirmed:,} of {nominated:,} nominated pairs confirmed"
    grades = [name.removesuffix(".copies") for name in metrics if name.endswith(".copies")]
    shown = [
        f"{metrics[f'{grade}.found']}/{metrics[f'{grade}.copies']} at {grade.removeprefix('planted.')}"
        for grade in grades
        if metrics[f"{grade}.copies"]
    ]
    if not shown:
        return f"{pairs}; no document is long enough to plant copies of"
    recall = metrics.get("planted.recall")
    precision = metrics.get("planted.precision")
    told = [f"found {', '.join(shown)}"]
    told += [f"recall {recall:.1%}"] if recall is not None else []
    told += [f"precision {precision:.1%}"] if precision is not None else []
    return f"{pairs}; planted copies {told[0]} ({', '.join(told[1:])})"
