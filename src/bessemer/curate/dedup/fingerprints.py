"""What deduplication needs to know of documents: computed with the shard they are in, and kept beside it.

A *row* is a document that passed the rules; rows are numbered from 0 over all shards in input order.
Every array grows by its first axis and holds no offsets, so that a shard can be written batch by batch.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bessemer.curate.dedup.config import DuplicateConfig
from bessemer.curate.dedup.minhash import bands_of, shingle
from bessemer.curate.kernels.characters import character_tables
from bessemer.curate.kernels.normal_texts import normal_texts
from bessemer.curate.kernels.substrings import line_keys, winnow, words_per_line
from bessemer.curate.measure import Words
from bessemer.curate.texts import pack
from bessemer.urls import canonical_url

URL_KEY, TEXT_KEY = slice(0, 2), slice(2, 4)
SET_SIZE, NUM_CHARACTERS, LEAD, NUM_WORDS, NUM_LINES, NUM_PARAGRAPHS, NUM_SEEDS = range(4, 11)
NUM_FACTS = 11
"""Columns of `facts`. `URL_KEY`: of the canonical spelling; zeros when the document is no
capture of a page. `SET_SIZE`: shingles.
`LEAD`: characters that were stripped from the head of the text after its edits; a place in the text is
that much further on before. The last four count what the row has in `words`, `lines`, `paragraph_*` and
`seed_*`."""


@dataclass(frozen=True)
class Subject:
    """A document that passed the rules."""

    url: str | None
    """None when it is no capture of a page, so that a second one of the URL need not be the same."""
    text: str
    lead: int = 0
    """See `LEAD`."""


@dataclass(frozen=True)
class Fingerprints:
    """The fingerprints of some documents, as arrays by name."""

    arrays: Mapping[str, NDArray[Any]]
    """`facts` uint64 [rows, 11]. For near duplicates `bands` uint64 [rows, bands] and `shingles` uint64,
    sorted sets end to end. For cuts `words` uint64 and `lines` int32, words in each; `paragraph_keys`
    uint64 [paragraphs, 2] and `paragraph_lines` int32; `seeds` uint64 and `seed_positions` int32."""


def array_names(config: DuplicateConfig) -> tuple[str, ...]:
    """The arrays that `fingerprint` makes with this config."""
    names = ["facts"]
    names += ["bands", "shingles"] if config.near_duplicates else []
    names += ["words", "lines"] if config.cuts_text else []
    names += ["paragraph_keys", "paragraph_lines"] if config.paragraph_duplicates else []
    names += ["seeds", "seed_positions"] if config.substring_duplicates else []
    return tuple(names)


def fingerprint(subjects: Sequence[Subject], words: Words, config: DuplicateConfig) -> Fingerprints:
    """Fingerprints of documents; `words` are the words of their texts."""
    texts = [subject.text for subject in subjects]
    facts = np.zeros((len(subjects), NUM_FACTS), np.uint64)
    for row, subject in enumerate(subjects):
        if subject.url is not None:
            url = canonical_url(subject.url) or subject.url
            facts[row, URL_KEY] = _key(url.encode("utf-8", "replace"))
    if config.exact_duplicates:
        facts[:, TEXT_KEY] = text_keys(texts)
    facts[:, NUM_CHARACTERS] = [len(text) for text in texts]
    facts[:, LEAD] = [subject.lead for subject in subjects]
    arrays: dict[str, NDArray[Any]] = {"facts": facts}
    if config.near_duplicates:
        parameters = config.minhash_parameters
        shingles, offsets = shingle(texts, words, parameters)
        facts[:, SET_SIZE] = np.diff(offsets)
        arrays |= {
            "bands": np.ascontiguousarray(bands_of(shingles, offsets, parameters).T),
            "shingles": shingles,
        }
    if config.cuts_text:
        arrays |= _lines(texts, words, facts, config)
    if config.substring_duplicates:
        arrays |= _seeds(words, facts, config)
    return Fingerprints(arrays)


def text_keys(texts: Sequence[str]) -> NDArray[np.uint64]:
    """BLAKE2b-128 of each text without regard to case and whitespace, as two words [texts, 2]."""
    tables = character_tables()
    normal, offsets = normal_texts(*pack(texts), tables.classes, tables.lower)
    view = memoryview(normal)  # pyright: ignore[reportArgumentType]
    keys = [_key(view[start:end]) for start, end in pairwise(offsets.tolist())]
    return np.array(keys, np.uint64).reshape(-1, 2)


def select_words(words: Words, is_selected: NDArray[np.bool_]) -> Words:
    """The words of some of the documents."""
    counts = np.diff(words.offsets)
    is_word = np.repeat(is_selected, counts)
    offsets = np.zeros(int(is_selected.sum()) + 1, np.int64)
    np.cumsum(counts[is_selected], out=offsets[1:])
    return Words(words.hashes[is_word], words.lengths[is_word], offsets)


def _key(content: bytes | memoryview) -> NDArray[np.uint64]:
    return np.frombuffer(hashlib.blake2b(content, digest_size=16).digest(), "<u8").astype(np.uint64)


def _lines(
    texts: Sequence[str], words: Words, facts: NDArray[np.uint64], config: DuplicateConfig
) -> dict[str, NDArray[Any]]:
    """Words, words to a line, and keys of the lines that are long enough to be cut as paragraphs."""
    buffer, offsets = pack(texts)
    counts, line_offsets = words_per_line(buffer, offsets, character_tables().classes)
    facts[:, NUM_WORDS], facts[:, NUM_LINES] = np.diff(words.offsets), np.diff(line_offsets)
    arrays = {"words": words.hashes, "lines": counts}
    if not config.paragraph_duplicates:
        return arrays
    keys, lines = line_keys(words.hashes, counts, config.min_paragraph_words)
    rows = np.searchsorted(line_offsets, lines, side="right") - 1
    facts[:, NUM_PARAGRAPHS] = np.bincount(rows, minlength=len(texts))
    return arrays | {
        "paragraph_keys": keys,
        "paragraph_lines": (lines - line_offsets[rows]).astype(np.int32),
    }


def _seeds(words: Words, facts: NDArray[np.uint64], config: DuplicateConfig) -> dict[str, NDArray[Any]]:
    """Words to look for in other documents: any run of `min_substring_words` holds one."""
    gram_words = config.min_substring_words // 2
    window = config.min_substring_words - gram_words + 1
    hashes, rows, positions = winnow(words.hashes, words.offsets, gram_words, window)
    facts[:, NUM_SEEDS] = np.bincount(rows, minlength=len(facts))
    return {"seeds": hashes, "seed_positions": positions.astype(np.int32)}


@dataclass(frozen=True)
class FingerprintFiles:
    """The fingerprints of a finished shard: `<stem>.<name>.npy` in a folder."""

    folder: Path
    stem: str

    def path(self, name: str) -> Path:
        return self.folder / f"{self.stem}.{name}.npy"

    def array(self, name: str) -> NDArray[Any]:
        """A whole array; see `Fingerprints.arrays`."""
        return np.load(self.path(name), allow_pickle=False)
