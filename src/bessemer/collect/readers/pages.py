"""What a reader gives: pages, and the places that gave none."""

from collections.abc import Mapping
from dataclasses import dataclass, field

TEXT_TYPE = "text/plain; charset=utf-8"
"""Content type of text that a reader made."""
_MAX_FACT_CHARS = 300
_MAX_FACTS = 16


@dataclass(frozen=True)
class Page:
    """One page, ready to become a WARC record."""

    content_type: str
    body: bytes
    place: str = ""
    """Where in the file: a row's id or number. Empty when the page is the whole file."""
    uri: str | None = None
    """The page's own URL, when the file gives one; else it is called by file and place."""
    date: str | None = None
    """ISO 8601, UTC, when the file gives one; else the file's own date holds."""
    is_converted: bool = False
    """Whether the body is text made from the file, not a part of it."""
    about: Mapping[str, str] = field(default_factory=dict)
    """Facts beside the text: `title`, `licence`, `programming_language`, …"""


@dataclass(frozen=True)
class Fault:
    """A place in a file that gave no page, or (`is_kept`) a page that something is wrong with."""

    place: str
    """Line, row or part; empty when the file as a whole is meant."""
    reason: str
    """What is wrong; the kind of fault stands before the first colon."""
    is_kept: bool = False


def bounded_facts(about: Mapping[str, object]) -> dict[str, str]:
    """Facts that fit a WARC header: texts only, one line each, cut to a bound; empty ones left out."""
    facts = {
        key[:_MAX_FACT_CHARS]: " ".join(value[: 4 * _MAX_FACT_CHARS].split())[:_MAX_FACT_CHARS]
        for key, value in about.items()
        if isinstance(value, str)
    }
    return {key: value for key, value in list(facts.items())[:_MAX_FACTS] if value}
