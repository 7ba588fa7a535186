"""Edits: rules that remove spans of text (C4's line rules and citation marks) and drop no document.

Raffel et al. 2020, section 2.2, with the phrases of the final (TFDS) variant.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

POLICY_PHRASES = (
    "terms of use",
    "privacy policy",
    "cookie policy",
    "uses cookies",
    "use of cookies",
    "use cookies",
)
LONGEST_WORD_CHARACTERS = 1000
_CITATION_MARK = re.compile(r"\[\d*\]|\[edit\]|\[citation needed\]")
_LONG_WORD = re.compile(rf"\S{{{LONGEST_WORD_CHARACTERS + 1}}}")


class Edit(NamedTuple):
    """A span to remove: code point offsets into the extracted text."""

    rule: str
    start: int
    end: int


def find_edits(text: str) -> list[Edit]:
    """What each editing rule would remove, enabled or not, rule by rule and in order of position."""
    return [Edit(rule, start, end) for rule, find in _FINDERS.items() for start, end in find(text)]


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


def _lines_with(text: str, phrases: Sequence[str]) -> Iterator[tuple[int, int]]:
    lowered = text.lower()
    if not any(phrase in lowered for phrase in phrases):
        return
    for start, end in _line_spans(text):
        line = text[start:end].lower()
        if any(phrase in line for phrase in phrases):
            yield start, end


def _lines_with_long_word(text: str) -> Iterator[tuple[int, int]]:
    if len(text) <= LONGEST_WORD_CHARACTERS or _LONG_WORD.search(text) is None:
        return
    for start, end in _line_spans(text):
        if _LONG_WORD.search(text, start, end):
            yield start, end


def _citation_marks(text: str) -> Iterator[tuple[int, int]]:
    return (match.span() for match in _CITATION_MARK.finditer(text))


def _line_spans(text: str) -> Iterator[tuple[int, int]]:
    """Every line with the newline that ends it."""
    start = 0
    while start < len(text):
        newline = text.find("\n", start)
        end = len(text) if newline < 0 else newline + 1
        yield start, end
        start = end


_FINDERS: dict[str, Callable[[str], Iterator[tuple[int, int]]]] = {
    "c4.javascript_lines": lambda text: _lines_with(text, ("javascript",)),
    "c4.policy_lines": lambda text: _lines_with(text, POLICY_PHRASES),
    "c4.long_word_lines": _lines_with_long_word,
    "c4.citation_marks": _citation_marks,
}
