"""MinHash-LSH parameters by name: those of published recipes, and the default for pairs that are verified."""

from dataclasses import dataclass
from typing import Literal

Unit = Literal["words", "characters"]


@dataclass(frozen=True)
class MinHashParameters:
    """What a shingle is, and how its hashes are cut into bands."""

    unit: Unit
    shingle_size: int
    """Words or characters in a shingle."""
    bands: int
    rows: int
    """Hashes in a band."""

    @property
    def num_hashes(self) -> int:
        return self.bands * self.rows

    def nomination_probability(self, similarity: float) -> float:
        """That a pair of this Jaccard similarity agrees on a whole band: 1 - (1 - s^rows)^bands.

        Leskovec, Rajaraman, Ullman, "Mining of Massive Datasets", section 3.4.2.
        """
        return 1 - (1 - similarity**self.rows) ** self.bands


PARAMETER_SETS: dict[str, MinHashParameters] = {
    # FineWeb's 112 hashes, banded to nominate .98 of the pairs at 0.8 instead of .92: what is nominated in
    # vain costs a comparison, and no document.
    "verified": MinHashParameters("words", 5, 16, 7),
    # Penedo et al. 2024 (FineWeb), section 3.4: 112 hashes, "at least 75 % similar"; datatrove's default.
    "fineweb": MinHashParameters("words", 5, 14, 8),
    # Lee et al. 2022, appendix A: 9,000 hashes; taken over by Penedo et al. 2023 (RefinedWeb).
    "refinedweb": MinHashParameters("words", 5, 450, 20),
    # Li et al. 2024 (DCLM), appendix L: 1,395 hashes that mimic RefinedWeb's curve.
    "dclm": MinHashParameters("words", 5, 93, 15),
    # RedPajama-Data v2: signatures of 128 hashes over 13-grams, banded for three similarities.
    "redpajama-0.7": MinHashParameters("words", 13, 14, 9),
    "redpajama-0.8": MinHashParameters("words", 13, 9, 13),
    "redpajama-0.9": MinHashParameters("words", 13, 5, 25),
    # NVIDIA NeMo Curator, fuzzy deduplication defaults: 260 hashes over 24 characters.
    "nemo": MinHashParameters("characters", 24, 20, 13),
    # Marin's datakit: 286 hashes; nominations are verified there since August 2026.
    "marin": MinHashParameters("words", 5, 26, 11),
}
"""All but the first are published. Where a publication does not verify, ours does: sets only nominate."""
