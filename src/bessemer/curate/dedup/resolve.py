"""Deduplication over all shards: by URL, text and similarity one document a cluster stays; then by lines."""

import shutil
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bessemer.curate.dedup import brake
from bessemer.curate.dedup.clusters import cluster_sizes, last_survivors
from bessemer.curate.dedup.config import DuplicateConfig
from bessemer.curate.dedup.corpus import Corpus
from bessemer.curate.dedup.cuts import Cuts, repeated_paragraphs, repeated_substrings
from bessemer.curate.dedup.documents import DocumentShard, values_of
from bessemer.curate.dedup.evidence import ConfirmedPairs
from bessemer.curate.dedup.exact import repeats
from bessemer.curate.dedup.external_sort import ExternalSorter, bits_for, pack
from bessemer.curate.dedup.fingerprints import TEXT_KEY, URL_KEY
from bessemer.curate.dedup.near import NearDuplicates, find_near_duplicates
from bessemer.curate.dedup.parts import Parts
from bessemer.curate.dedup.planted import choose_originals, plant
from bessemer.curate.dedup.report import metrics_of, summary_of
from bessemer.curate.dedup.survivors import survivor_scores
from bessemer.curate.kernels.duplicates import best_members
from bessemer.runner.context import Metrics
from bessemer.runner.manifest import digest_of_json

VERSION = 2
"""Raise when what is kept of a killed attempt changes for the same config and shards."""

STAYS, URL, TEXT, NEAR = range(4)
RULES = ("", "duplicates.url", "duplicates.exact", "duplicates.near")
"""By code."""


@dataclass
class Duplicates:
    """The verdict on every row (a document that passed the rules, numbered over all shards)."""

    rule: NDArray[np.uint8]
    """[rows]: index into RULES; STAYS where it is kept."""
    survivor: NDArray[np.int64]
    """[rows]: the row that stays for it; itself where it stays."""
    partner: NDArray[np.int64]
    """[rows]: the duplicate that it was confirmed by, -1 for none; not always the survivor."""
    similarity: NDArray[np.float64]
    """[rows]: exact similarity with `partner`; NaN for none and for URL duplicates."""
    first_rows: NDArray[np.int64]
    """[shards + 1]: the first row of each shard, then the number of rows."""
    cuts: Cuts
    pairs: ConfirmedPairs | None
    """Every confirmed pair of near duplicates."""
    metrics: Metrics


def find_duplicates(
    shards: Sequence[DocumentShard],
    config: DuplicateConfig,
    scratch: Path,
    num_threads: int,
    say: Callable[[str], None],
    inputs_digest: str | None = None,
) -> Duplicates:
    """Decide which documents stay. Each step sees what the ones before left.

    Memory: `config.duplicate_memory`, and about 100 bytes a row; the rest lies in `scratch`. What an earlier
    attempt finished there (repeated keys, pairs of a band, confirmed pairs, cuts) is used again if it had
    the same config and `inputs_digest`, which stands for the content of the shards; without one nothing
    is. `num_threads` compare pairs; the result does not depend on it. Raises BessemerError when too much
    would go.
    """
    sorting = scratch / "sorting"
    shutil.rmtree(scratch if inputs_digest is None else sorting, ignore_errors=True)
    sorting.mkdir(parents=True)
    settings = config.model_dump(mode="json", include=set(DuplicateConfig.model_fields))
    identity = digest_of_json({"version": VERSION, "config": settings, "inputs": inputs_digest})
    parts = Parts(scratch / "parts", identity)
    corpus = Corpus.of([shard.fingerprints() for shard in shards])
    score = survivor_scores(shards, corpus, config)
    steps = _Steps(corpus, score, config, parts, sorting)
    if config.url_duplicates:
        steps.by_key(URL_KEY, URL)
    if config.exact_duplicates:
        steps.by_key(TEXT_KEY, TEXT)
    near = steps.near(shards, num_threads) if config.near_duplicates else None
    steps.survivor = last_survivors(steps.survivor)
    _brake(shards, corpus, steps, near, config)
    metrics = metrics_of(steps.survivor, near, config)
    if near is not None:
        say(summary_of(metrics))
    return Duplicates(
        steps.rule,
        steps.survivor,
        steps.partner,
        steps.similarity,
        corpus.first_rows,
        steps.cuts(),
        near.pairs if near is not None else None,
        metrics,
    )


class _Steps:
    """The state that the steps share: who is left, who went and why. Arrays as in `Duplicates`."""

    def __init__(
        self,
        corpus: Corpus,
        score: NDArray[np.float64] | None,
        config: DuplicateConfig,
        parts: Parts,
        folder: Path,
    ) -> None:
        self._corpus = corpus
        self._score = score
        self._config = config
        self._parts = parts
        self._folder = folder
        self.rule = np.zeros(corpus.num_rows, np.uint8)
        self.survivor = np.arange(corpus.num_rows)
        self.partner = np.full(corpus.num_rows, -1)
        self.similarity = np.full(corpus.num_rows, np.nan)

    @property
    def is_active(self) -> NDArray[np.bool_]:
        return self.rule == STAYS

    def by_key(self, columns: slice, rule: int) -> None:
        """Drop rows whose 128-bit key another active row has; zeros are no key."""
        num_rows = self._corpus.num_rows
        name = RULES[rule].replace(".", "-")
        repeated = self._parts.array(name, lambda: self._repeated_keys(columns, name))
        root = np.arange(num_rows)
        root[repeated[:, 0]] = repeated[:, 1]
        survivor = root if self._score is None else best_members(root, self._score)[root]
        self._drop(rule, survivor, survivor, np.full(num_rows, 1.0 if rule == TEXT else np.nan))

    def _repeated_keys(self, columns: slice, name: str) -> NDArray[np.int64]:
        """[repeats, 2]: rows whose key occurred before, and the first row with it."""
        bits = bits_for(self._corpus.num_rows)
        is_active = self.is_active
        sorter = ExternalSorter(self._folder, name, self._config.duplicate_memory)
        for _, files, rows in self._corpus.shards():
            keys = files.array("facts")[:, columns]
            is_here = is_active[rows] & (keys != 0).any(axis=1)
            sorter.add(pack(keys[is_here, 0], np.flatnonzero(is_here) + rows.start, bits))
        found = [np.empty((0, 2), np.int64)]
        for later, first in repeats(sorter, bits, lambda some: self._corpus.gather_facts(some, columns)):
            found.append(np.stack([later, first], axis=1))
        return np.concatenate(found)

    def near(self, shards: Sequence[DocumentShard], num_threads: int) -> NearDuplicates:
        """Drop near duplicates among the active rows."""
        is_active = self.is_active & (self._corpus.set_sizes > 0)
        rows = choose_originals(is_active)
        found = values_of(shards, self._corpus.first_rows, rows, ["text"], num_threads)
        texts = found["text"].to_pylist()
        is_containment = self._config.similarity == "containment"
        parameters = self._config.minhash_parameters
        planted = plant(rows, texts, parameters, is_containment, self._config.min_similarity)
        near = find_near_duplicates(
            self._corpus,
            is_active,
            planted,
            self._score,
            self._config,
            num_threads,
            self._parts,
            self._folder,
        )
        self._drop(NEAR, near.survivor, near.partner, near.similarity)
        return near

    def cuts(self) -> Cuts:
        """Lines to cut from the rows that stay."""
        config, memory = self._config, self._config.duplicate_memory
        corpus, is_active, folder = self._corpus, self.is_active, self._folder

        def paragraphs() -> NDArray[np.int64]:
            return np.stack(repeated_paragraphs(corpus, is_active, folder, memory))

        def substrings() -> NDArray[np.int64]:
            return np.stack(
                repeated_substrings(corpus, is_active, config.min_substring_words, folder, memory)
            )

        nothing = np.empty((2, 0), np.int64)
        by_paragraph = self._parts.array("paragraphs", paragraphs) if config.paragraph_duplicates else nothing
        by_substring = self._parts.array("substrings", substrings) if config.substring_duplicates else nothing
        return Cuts.union(by_paragraph, by_substring)

    def _drop(
        self,
        rule: int,
        survivor: NDArray[np.int64],
        partner: NDArray[np.int64],
        similarity: NDArray[np.float64],
    ) -> None:
        goes = survivor != np.arange(len(survivor))
        self.rule[goes] = rule
        self.survivor[goes], self.partner[goes] = survivor[goes], partner[goes]
        self.similarity[goes] = similarity[goes]


def _brake(
    shards: Sequence[DocumentShard],
    corpus: Corpus,
    steps: _Steps,
    near: NearDuplicates | None,
    config: DuplicateConfig,
) -> None:
    def facts(row: int) -> dict[str, str | None]:
        columns = ["id", "url", "source"]
        return values_of(shards, corpus.first_rows, np.array([row]), columns).to_pylist()[0]

    def name(row: int) -> str:
        return facts(row)["url"] or facts(row)["id"] or ""

    def example(row: int) -> str:
        member = int(np.flatnonzero((steps.survivor == row) & is_near)[0])
        return (
            f"{name(row)} stands for {name(member)}, which is {steps.similarity[member]:.3f} like "
            f"{name(int(steps.partner[member]))}"
        )

    is_near = steps.rule == NEAR
    if near is not None:
        sizes = cluster_sizes(steps.survivor, is_near)
        brake.check_clusters(sizes, lambda row: facts(row)["source"] or "", example, config)
        brake.check_sources(*_losses(shards, corpus, steps.rule), config)
    brake.check_share(corpus.num_rows, steps.survivor, config.max_duplicate_share, name)


def _losses(
    shards: Sequence[DocumentShard], corpus: Corpus, rule: NDArray[np.uint8]
) -> tuple[Counter[str], Counter[str]]:
    """Documents by source that near deduplication saw, and that it would drop."""
    totals: Counter[str] = Counter()
    lost: Counter[str] = Counter()
    for number, _, rows in corpus.shards():
        at = rows.start
        for batch in shards[number].kept(["source"]):
            sources = np.array(batch["source"].to_pylist(), object)
            of_batch = rule[at : at + len(sources)]
            at += len(sources)
            totals.update(source for source in sources[(of_batch == STAYS) | (of_batch == NEAR)] if source)
            lost.update(source for source in sources[of_batch == NEAR] if source)
    return totals, lost
