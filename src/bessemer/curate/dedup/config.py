"""What deduplication can be told; `CurateConfig` inherits it."""

import difflib
from typing import Literal

from pydantic import Field, model_validator

from bessemer.config import Bytes, Config, Count
from bessemer.curate.dedup.parameters import PARAMETER_SETS, MinHashParameters, Unit
from bessemer.curate.rules import DROP_RULES

ParameterSet = Literal[
    "verified",
    "fineweb",
    "refinedweb",
    "dclm",
    "redpajama-0.7",
    "redpajama-0.8",
    "redpajama-0.9",
    "nemo",
    "marin",
]
Survivor = Literal["first", "longest", "newest", "oldest", "highest", "lowest"]
Linkage = Literal["connected", "direct"]
SURVIVOR_VALUES = ("language_score", "num_bytes", "num_characters", *DROP_RULES)
"""Columns of the ledger that hold numbers."""


class DuplicateConfig(Config):
    """Which documents count as duplicates, which of them stays, and when a run stops instead."""

    url_duplicates: bool = True
    """Drop all captures of a URL but one."""
    exact_duplicates: bool = True
    """Drop texts equal to another but for case and whitespace."""
    near_duplicates: bool = True
    """Drop texts whose shingle sets overlap another's by `min_similarity`."""
    minhash: ParameterSet = "verified"
    """Parameters that nominate pairs (`curate.dedup.parameters`); the next four change them."""
    shingle_words: Count | None = Field(default=None, gt=0)
    """Words in a shingle (FineWeb: 5)."""
    shingle_characters: Count | None = Field(default=None, gt=0)
    """Characters in a shingle, instead of words: for text without spaces, or as NeMo Curator does (24)."""
    bands: Count | None = Field(default=None, gt=0, le=1000)
    """Bands of the MinHash index (FineWeb: 14)."""
    rows: Count | None = Field(default=None, gt=0, le=100)
    """Hashes in a band (FineWeb: 8). A pair of similarity s is nominated with 1 - (1 - s^rows)^bands."""
    similarity: Literal["jaccard", "containment"] = "jaccard"
    """What is measured exactly on nominated pairs: |A ∩ B| over |A ∪ B|, or over the smaller set's size."""
    min_similarity: float = Field(default=0.8, gt=0, le=1)
    """Least exact similarity of shingle sets at which a nominated pair counts as duplicates."""
    linkage: Linkage = "connected"
    """connected: duplicates of duplicates are one cluster, which keeps one document. direct: a document
    goes only when it is itself confirmed to be a duplicate of one that stays."""
    survivor: Survivor = "first"
    """Which document of a cluster stays: the first in input order, the longest, the newest or oldest by
    `fetched_at`, or the one of highest or lowest `survivor_value`. Of equals the first."""
    survivor_value: str | None = None
    """A column of the ledger to choose by: `language_score` or the name of a rule."""
    paragraph_duplicates: bool = False
    """Cut lines that occurred before, in this document or an earlier one."""
    min_paragraph_words: Count = Field(default=10, gt=0)
    """Shorter lines are never cut as repeated: headings, names and the like repeat rightly."""
    substring_duplicates: bool = False
    """Cut lines that lie within a run of words that an earlier document has as well."""
    min_substring_words: Count = Field(default=50, ge=4)
    """Words in such a run, at the least (Lee et al. 2022: 50 tokens)."""
    max_duplicate_share: float = Field(default=0.9, gt=0, le=1)
    """Stop when duplicates would take more than this share of the documents that passed the rules."""
    max_source_share: float = Field(default=0.9, gt=0, le=1)
    """Stop when near duplicates would take more than this share of a source's documents."""
    min_source_documents: Count = Field(default=1000, gt=0)
    """`max_source_share` holds for sources of at least this many documents."""
    max_cluster: Count = Field(default=100_000, gt=1)
    """Stop when a cluster of near duplicates has more documents than this."""
    allowed_sources: tuple[str, ...] = ()
    """Sources to which `max_source_share` does not apply; a cluster whose survivor is of one may be any
    size."""
    duplicate_memory: Bytes = Field(default=256 << 20, ge=1 << 16, exclude=True)
    """Memory for sorting and comparing, beside about 100 bytes a document. Never changes the result."""

    @property
    def minhash_parameters(self) -> MinHashParameters:
        """The named set with this config's changes."""
        named = PARAMETER_SETS[self.minhash]
        unit: Unit = named.unit
        size = named.shingle_size
        if self.shingle_words is not None:
            unit, size = "words", self.shingle_words
        if self.shingle_characters is not None:
            unit, size = "characters", self.shingle_characters
        return MinHashParameters(unit, size, self.bands or named.bands, self.rows or named.rows)

    @property
    def cuts_text(self) -> bool:
        """Whether deduplication edits texts."""
        return self.paragraph_duplicates or self.substring_duplicates

    @model_validator(mode="after")
    def _duplicate_settings_agree(self) -> "DuplicateConfig":
        faults = []
        if self.shingle_words is not None and self.shingle_characters is not None:
            faults.append("shingle_words and shingle_characters exclude each other: remove one")
        if (self.survivor in ("highest", "lowest")) != (self.survivor_value is not None):
            faults.append(
                "survivor: highest (or lowest) and survivor_value: <column of the ledger> go together, "
                f"but survivor is {self.survivor} and survivor_value is {self.survivor_value}"
            )
        if self.survivor_value is not None and self.survivor_value not in SURVIVOR_VALUES:
            near = difflib.get_close_matches(self.survivor_value, SURVIVOR_VALUES, n=1, cutoff=0.0)
            faults.append(f"unknown survivor_value {self.survivor_value!r} (nearest: {near[0]!r})")
        if self.similarity == "containment" and (self.survivor != "longest" or self.linkage != "direct"):
            faults.append(
                "similarity: containment needs survivor: longest and linkage: direct; otherwise a fragment "
                "could stay for the whole, or join two texts that have only the fragment in common"
            )
        if faults:
            raise ValueError("; ".join(faults))
        return self
