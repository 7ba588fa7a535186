"""Text in normal form: line ends, spaces, control and invisible characters, composed letters."""

import re
import unicodedata
from functools import lru_cache

from bessemer.curate.extraction.mojibake import repair_mojibake
from bessemer.curate.extraction.page import Extracted

TITLE_CHARACTERS = 300
MAX_MARKS = 30
"""Combining marks on one letter. Unicode's Stream-Safe Text Format (UAX #15, section 13) allows as many;
more make normalisation take quadratic time."""
_SURROGATE = re.compile("[\ud800-\udfff]")
_CONTROL = re.compile("[\x00-\x08\x0e-\x1f\x7f-\x84\x86-\x9f\ufffe\uffff]")
_REPLACEMENTS = {
    **dict.fromkeys(("\r\n", "\r", "\x0b", "\x0c", "\x85", "\u2028", "\u2029"), "\n"),
    **dict.fromkeys(("\xa0", "\u2007", "\u202f"), " "),
}
"""Other line ends, and spaces of fixed width or that must not break."""
_BREAKS_WORDS = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff"
"""Thai, Lao, Burmese and Khmer: scripts without blanks, where a zero width space parts words."""
_INVISIBLE = re.compile("[\xad\u180e\u202a-\u202e\u2060-\u2064\u2066-\u206f\ufeff\ufff9-\ufffb]")
"""Soft hyphens, embeddings and overrides of direction (Boucher and Anderson 2021, "Trojan Source"), joiners
of words, byte order marks inside the text, annotations. Joiners of letters (U+200C, U+200D) and U+200E,
U+200F carry meaning."""
_ZERO_WIDTH_SPACE = re.compile(f"(?<![{_BREAKS_WORDS}])\u200b|\u200b(?![{_BREAKS_WORDS}])")
"""Where words have blanks."""
_TAG = re.compile("[\U000e0001\U000e0020-\U000e007f]")
_TAGS = re.compile("(?<![\U0001f3f4\U000e0020-\U000e007f])[\U000e0001\U000e0020-\U000e007f]+")
"""Tag characters, except in emoji flags."""
_BLANK_LINES = re.compile(r"\n{3,}")


def clean(text: str, title: str | None = None, *, normalize: bool = True, repair: bool = True) -> Extracted:
    """Plain text in normal form: see `Extracted.text`.

    Fixed spaces become blanks; control and invisible characters go. With `repair`, misread UTF-8 is
    undone (`notes["mojibake_runs"]`); with `normalize`, letters are composed (Unicode NFC, UAX #15).
    """
    is_printable = _is_printable(text)
    if not is_printable and not text.isascii() and _SURROGATE.search(text):
        text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    text, num_repairs = repair_mojibake(text) if repair else (text, 0)
    if not is_printable or num_repairs:
        for other, plain in _REPLACEMENTS.items():
            text = text.replace(other, plain)
        is_printable = _is_printable(text)
    num_characters = len(text)
    num_replaced = text.count("\ufffd")
    num_controls = 0
    if not is_printable:
        text, num_controls = _CONTROL.subn("", text)
        text = text if text.isascii() else _without_invisible(text)
    if normalize and not text.isascii():
        text = unicodedata.normalize("NFC", _without_heaped_marks(text))
    text = "\n".join(map(str.rstrip, text.split("\n")))
    text = _BLANK_LINES.sub("\n\n", text) if "\n\n\n" in text else text
    text = text.strip("\n")
    undecodable = (num_replaced + num_controls) / num_characters if num_characters else 0.0
    notes = {"mojibake_runs": num_repairs} if num_repairs else {}
    return Extracted(text if text.strip() else "", _clean_title(title, repair), undecodable, notes)


def _is_printable(text: str) -> bool:
    """Whether there is nothing but visible characters, blanks, tabs and newlines: the common case, fast.

    Every character that `clean` replaces or takes out is one that `str.isprintable` denies (controls,
    formats, surrogates, unassigned ones, spaces other than the blank).
    """
    return text.replace("\n", "").replace("\t", "").isprintable()


def _without_invisible(text: str) -> str:
    text = _INVISIBLE.sub("", text)
    # These look behind at every character, so they are kept for the few texts that need them.
    text = _ZERO_WIDTH_SPACE.sub("", text) if "\u200b" in text else text
    return _TAGS.sub("", text) if _TAG.search(text) else text


def _without_heaped_marks(text: str) -> str:
    """At most MAX_MARKS combining marks in a row. A longer run covers every place of a grid of that width."""
    may_have_many = any(map(unicodedata.combining, text[:: MAX_MARKS + 1]))
    return _too_many_marks().sub(r"\1", text) if may_have_many else text


@lru_cache(maxsize=1)
def _too_many_marks() -> re.Pattern[str]:
    """A run of more than MAX_MARKS combining marks, with those that stay as its group."""
    marks = "".join(chr(code) for code in range(0x300, 0x1F000) if unicodedata.combining(chr(code)))
    one = f"[{re.escape(marks)}]"
    return re.compile(f"({one}{{{MAX_MARKS}}}){one}+")


def _clean_title(title: str | None, repair: bool) -> str | None:
    if not title:
        return None
    title = title[: 10 * TITLE_CHARACTERS].encode("utf-8", "replace").decode()
    title = repair_mojibake(title)[0] if repair else title
    title = unicodedata.normalize("NFC", _without_invisible(_CONTROL.sub("", title)))
    return " ".join(title.split())[:TITLE_CHARACTERS] or None
