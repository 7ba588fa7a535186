"""Edits: rules that remove spans of text and drop no document, and the values that texts have before them.

C4's line rules and citation marks (Raffel et al. 2020) and RefinedWeb's line rules (Penedo et al. 2023); see
`rules.c4` and `rules.refinedweb`.
"""

from collections.abc import Collection, Sequence
from functools import lru_cache
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from bessemer.curate.kernels import c4, line_edits
from bessemer.curate.kernels.characters import character_tables
from bessemer.curate.kernels.marks import character_marks
from bessemer.curate.kernels.phrases import Automaton, build_automaton
from bessemer.curate.kernels.spacy_words import tokenizer_tables
from bessemer.curate.texts import Column, pack, ratio

EDIT_RULES: tuple[str, ...] = (
    "c4.javascript_lines",
    "c4.policy_lines",
    "c4.long_word_lines",
    "c4.citation_marks",
    "c4.terminal_lines",
    "c4.short_lines",
    "c4.short_lines@v1",
    "c4.terminal_lines@datatrove",
    "c4.short_lines@datatrove",
    "refinedweb.uppercase_lines",
    "refinedweb.digit_lines",
    "refinedweb.counter_lines",
    "refinedweb.one_word_lines",
    "refinedweb.boilerplate",
)
"""In the order of the kernel's numbers."""
_REMOVED_WORDS = "refinedweb.removed_words"
_DATATROVE_VALUES = {
    "c4.sentences@datatrove": c4.NUM_SENTENCES,
    "c4.curly_bracket@datatrove": c4.NUM_CURLY_LINES,
    "c4.lorem_ipsum@datatrove": c4.NUM_LOREM_LINES,
}
EDIT_VALUES = frozenset({_REMOVED_WORDS, *_DATATROVE_VALUES})
"""Dropping rules whose values are those of the text before any edit."""


MAX_SPANS = 200_000
"""Most spans of one text: each takes some 1.6 kB until it is written: 16 MB of `[]` would take 13 GB."""


class Edit(NamedTuple):
    """A span to remove: code point offsets into the extracted text."""

    rule: str
    start: int
    end: int


class Edits(NamedTuple):
    """What edits do to a batch of texts."""

    values: dict[str, Column]
    """[documents] by rule: characters that each editing rule removes, enabled or not, and EDIT_VALUES."""
    edits: list[list[Edit]]
    """Per document, the spans of the wanted rules, line by line; none where there are more than MAX_SPANS."""
    num_spans: list[int]
    """[documents]: how many spans there are."""


def find_batch_edits(texts: Sequence[str], wanted: Collection[str], on_demand: Collection[str] = ()) -> Edits:
    """Edits of the `wanted` editing rules, and values; datatrove's C4 values only if one is `on_demand`."""
    buffer, offsets = pack(texts)
    is_wanted = np.array([name in wanted for name in EDIT_RULES], np.bool_)
    found = line_edits.FoundEdits(
        *line_edits.find_line_edits(
            buffer,
            offsets,
            character_marks(),
            character_tables().lower,
            _phrase_automaton(),
            c4.PHRASE_GROUPS,
            is_wanted,
        )
    )
    values = {name: found.removed[:, i].astype(np.float64) for i, name in enumerate(EDIT_RULES)}
    values[_REMOVED_WORDS] = ratio(found.refinedweb_words[:, 0], found.refinedweb_words[:, 1])
    if any(name in _DATATROVE_VALUES for name in on_demand):
        values |= datatrove_c4_values(buffer, offsets)
    bounds = found.offsets.tolist()
    edits = [
        [Edit(EDIT_RULES[rule], *span) for rule, span in zip(rules, spans, strict=True)]
        for rules, spans in (_spans_between(found, start, end) for start, end in pairwise(bounds))
    ]
    return Edits(values, edits, [end - start for start, end in pairwise(bounds)])


def _spans_between(found: line_edits.FoundEdits, start: int, end: int) -> tuple[list[int], list[list[int]]]:
    """Rules and spans of one document; none of too many."""
    if end - start > MAX_SPANS:
        return [], []
    return found.rules[start:end].tolist(), found.spans[start:end].tolist()


def datatrove_c4_values(buffer: NDArray[np.uint8], offsets: NDArray[np.int64]) -> dict[str, Column]:
    """What datatrove's C4 filter decides by, of packed texts."""
    counts = c4.count_datatrove_c4(
        buffer, offsets, tokenizer_tables(), character_marks(), _phrase_automaton(), c4.PHRASE_GROUPS
    )
    return {name: counts[:, i].astype(np.float64) for name, i in _DATATROVE_VALUES.items()}


@lru_cache(maxsize=1)
def _phrase_automaton() -> Automaton:
    return build_automaton(c4.PHRASES)


def find_edits(text: str, wanted: Collection[str] = EDIT_RULES) -> list[Edit]:
    """What the wanted editing rules would remove from a text, line by line."""
    return find_batch_edits([text], wanted).edits[0]


def remove_spans(text: str, edits: Sequence[Edit]) -> str:
    """The text without the spans, which may overlap."""
    kept: list[str] = []
    position = 0
    for _, start, end in sorted(edits, key=lambda edit: (edit.start, edit.end)):
        if start > position:
            kept.append(text[position:start])
        position = max(position, end)
    kept.append(text[position:])
    return "".join(kept)
