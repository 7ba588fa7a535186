"""What a page gives: its text and title, or the fault that says why it gives none."""

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Extracted:
    """What a page gave."""

    text: str
    """Lines end in one newline, have no trailing whitespace, and at most one blank line between them."""
    title: str | None
    undecodable: float
    """Fraction of characters that did not decode (U+FFFD) or were control characters."""
    notes: dict[str, Any] = field(default_factory=dict)
    """What was out of the ordinary, for the document's metadata: repairs."""
    extractor: str | None = None
    """Which extractor made the text; None for plain text."""
    reason: str | None = None
    """Why that one, where there was a choice."""


class ExtractionFault(Exception):
    """A page that gives no text: by which rule, and the value and threshold or the reason in words."""

    def __init__(self, rule: str, detail: str = "", value: float | None = None, limit: float | None = None):
        super().__init__(detail or rule)
        self.rule, self.detail, self.value, self.limit = rule, detail, value, limit
