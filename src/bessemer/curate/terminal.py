"""Text from the web on its way to a terminal."""

import re

_COMMANDS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
"""Control characters but tab and newline, and those that turn the direction of writing."""


def printable(text: str) -> str:
    """The text with U+FFFD for all that a terminal would obey instead of showing."""
    return _COMMANDS.sub("\ufffd", text)


def one_line(text: str, max_characters: int = 100) -> str:
    """The head of a text in one line."""
    flat = " ".join(text.split())
    return flat if len(flat) <= max_characters else flat[: max_characters - 1] + "…"


def number(value: float | None) -> str:
    """A value as people read it: whole numbers with separators, others with four digits."""
    if value is None:
        return "-"
    return f"{int(value):,}" if float(value).is_integer() else f"{value:.4g}"
