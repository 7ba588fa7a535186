"""Texts to shingle sets, and shingle sets to the band keys that nominate pairs (Broder 1997)."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from bessemer.curate.dedup.parameters import MinHashParameters
from bessemer.curate.kernels.characters import character_tables
from bessemer.curate.kernels.shingles import (
    band_keys,
    character_shingle_sets,
    minhash_signatures,
    shingle_sets,
)
from bessemer.curate.measure import Words
from bessemer.curate.texts import pack

_HASH_FAMILY_SEED = 20040815
"""Fixed, so that signatures of different runs compare."""


def hash_family(num_hashes: int) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    """Multipliers (odd) and increments of the MinHash functions; always the same."""
    bits = np.random.Generator(np.random.PCG64(_HASH_FAMILY_SEED)).integers(
        0, 2**64, size=(2, num_hashes), dtype=np.uint64
    )
    return bits[0] | np.uint64(1), bits[1]


def shingle(
    texts: Sequence[str], words: Words, parameters: MinHashParameters
) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    """The shingle sets of some texts, end to end, and their offsets [texts + 1].

    `words` are the words of the same texts; sets of characters do not need them.
    """
    if parameters.unit == "words":
        return shingle_sets(words.hashes, words.offsets, parameters.shingle_size)
    buffer, offsets = pack(texts)
    tables = character_tables()
    return character_shingle_sets(buffer, offsets, tables.classes, tables.lower, parameters.shingle_size)


def bands_of(
    shingles: NDArray[np.uint64], offsets: NDArray[np.int64], parameters: MinHashParameters
) -> NDArray[np.uint64]:
    """Band keys [bands, documents] of shingle sets that lie end to end."""
    signatures = minhash_signatures(shingles, offsets, *hash_family(parameters.num_hashes))
    return band_keys(signatures, parameters.bands)
