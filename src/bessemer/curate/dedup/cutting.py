"""Taking lines out of a text, and saying where they stood before earlier edits. Offsets are code points."""

from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import Any, NamedTuple


class Span(NamedTuple):
    """What a rule removes."""

    rule: str
    start: int
    end: int


def cut_lines(text: str, lines: Sequence[tuple[int, str]]) -> tuple[str, list[Span]]:
    """The text without some lines, given as ascending (number, rule), and what was taken.

    A line goes with the newline that ends it; newlines that are then left at the ends go too.
    """
    pieces = text.split("\n")
    starts = [0, *accumulate(len(piece) + 1 for piece in pieces)]
    rules = dict(lines)
    spans = [Span(rule, starts[line], min(starts[line + 1], len(text))) for line, rule in lines]
    kept = [piece for number, piece in enumerate(pieces) if number not in rules]
    return "\n".join(kept).strip("\n"), spans


def places_before_edits(
    spans: Sequence[Span], edits: Sequence[Mapping[str, Any]], lead: int
) -> list[dict[str, Any]]:
    """Spans of an edited text as edits of the text that it was made from.

    `edits` are the spans (start, end) that were removed from that text, which may overlap; then `lead`
    characters were stripped from its head. A span that runs over a removed place covers it as well.
    """
    removed = _merged([(edit["start"], edit["end"]) for edit in edits])

    def before(offset: int) -> int:
        """The original place of the character that now stands at `offset`."""
        offset += lead
        for start, end in removed:
            if start > offset:
                break
            offset += end - start
        return offset

    return [
        {"rule": span.rule, "start": before(span.start), "end": before(span.end - 1) + 1}
        for span in spans
        if span.end > span.start
    ]


def _merged(spans: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    merged: list[tuple[int, int]] = []
    for start, end in sorted(spans):
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((start, end))
    return merged
