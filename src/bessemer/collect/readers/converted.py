"""What the converters of PDF and EPUB files give."""

from dataclasses import dataclass, field


class Unreadable(Exception):
    """The file as a whole gives no text. The message says why, its kind before a colon."""


@dataclass
class Converted:
    """The text of a file, what it says about itself, and parts that gave nothing."""

    text: str
    about: dict[str, str] = field(default_factory=dict)
    faults: list[tuple[str, str]] = field(default_factory=list)
    """(place, reason)."""
    without_text: str = "the file is empty"
    """Why there may be none."""
