"""Bytes of unknown encoding to text, for readers that have to look into it."""

import codecs
import re

from resiliparse.parse.encoding import detect_encoding

_BYTE_ORDER_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)

_BEYOND_ASCII = re.compile(r"[^\x00-\x7f]")
_GOOD_PER_BAD = 5


def decode_text(content: bytes) -> str:
    """By byte order mark, as UTF-8, else by statistics; what does not decode becomes U+FFFD.

    A few bad bytes among many good sequences are damage, not another encoding: in no other would the
    rest be valid UTF-8.
    """
    for mark, encoding in _BYTE_ORDER_MARKS:
        if content.startswith(mark):
            return content[len(mark) :].decode(encoding, "replace")
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError:
        text = content.decode("utf-8", "replace")
        num_bad = text.count("\ufffd")
        num_good = len(_BEYOND_ASCII.findall(text)) - num_bad
        if num_bad * _GOOD_PER_BAD <= num_good:
            return text
        return content.decode(_detected(content), "replace")


def _detected(content: bytes) -> str:
    label = detect_encoding(content) or "utf-8"
    try:
        "".encode(label)
    except LookupError:  # not an encoding of text, or one that Python does not know
        return "utf-8"
    return "cp1252" if codecs.lookup(label).name in ("iso8859-1", "ascii") else label
