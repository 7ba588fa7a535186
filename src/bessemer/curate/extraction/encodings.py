"""From bytes to text, whatever was declared: the encoding that explains the bytes best."""

import codecs
import re
from collections.abc import Iterator

from resiliparse.parse.encoding import detect_encoding, map_encoding_to_html5

_CHARSET = re.compile(r"charset\s*=\s*[\"']?\s*([\w.:-]+)", re.IGNORECASE)
_BYTE_ORDER_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),  # before UTF-16, whose mark it begins with
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_WIDER_CODECS = {
    "ascii": "cp1252",
    "iso8859-1": "cp1252",
    "iso8859-9": "cp1254",
    "iso8859-11": "cp874",
    "tis-620": "cp874",
    "gb2312": "gb18030",
    "gbk": "gb18030",
    "shift_jis": "cp932",
    "euc_kr": "cp949",
    "big5": "big5hkscs",
}
"""What browsers take a label for (WHATWG Encoding Standard, section 4.2): the superset in real use."""
_GOOD_ENOUGH = 0.001
"""Share of undecodable characters at which a declaration is believed."""
_SOUND_PER_BAD = 10
"""Sound sequences for each broken one in text that is taken for damaged UTF-8."""
_SNIFFED_BYTES = 2048
_DETECTED_BYTES = 1 << 17
_ESCAPED_JAPANESE = (b"\x1b$B", b"\x1b$@", b"\x1b(J")
"""Escape sequences that open ISO-2022-JP (RFC 1468): seven-bit, so that it is valid UTF-8 as well."""
_CONTROLS = bytes(range(0x80, 0xA0))
"""C1 control characters in Latin-1, which nobody writes and wrongly chosen encodings give plenty of."""
_NULS_OF_UTF16 = 0.3
"""Least share of zero bytes on one side of each pair: Latin script in UTF-16 without a mark."""


def decode(content: bytes, content_type: str = "") -> tuple[str, str]:
    """Text and the name of its encoding (Python's). Undecodable bytes become U+FFFD; never raises.

    A byte order mark decides. Else what is valid UTF-8 is taken for it whatever was declared, for longer
    texts are not so by chance, and so is what is valid but for a few places (pages cut in the middle of a
    character, a stray byte). Else, in the order of the WHATWG encoding sniffing algorithm (HTML
    Standard, section 13.2.3.2): the charset of the HTTP header, the declaration in the document,
    statistics; but a declaration under which more than one character in a thousand is undecodable
    is believed only if nothing explains the bytes better.
    """
    for mark, encoding in _BYTE_ORDER_MARKS:
        if content.startswith(mark):
            return content[len(mark) :].decode(encoding, "replace"), encoding
    encoding = _unmistakable(content)
    if encoding is not None:
        return content.decode(encoding, "replace"), encoding
    try:
        return content.decode("utf-8"), "utf-8"
    except UnicodeDecodeError:
        pass
    text = content.decode("utf-8", "replace")
    return (text, "utf-8") if _is_damaged_utf_8(text) else _best(content, content_type)


def _is_damaged_utf_8(text: str) -> bool:
    """Whether bytes read as UTF-8 were that, but for some broken places.

    In other encodings hardly any bytes form its sequences: of random pairs of bytes above 0x7F one in
    eight does.
    """
    num_bad = text.count("\ufffd")
    num_sound = len(text) - len(text.encode("ascii", "ignore")) - num_bad
    return num_sound >= _SOUND_PER_BAD * num_bad


def _unmistakable(content: bytes) -> str | None:
    """Encodings whose bytes are valid UTF-8 too, by their marks."""
    head = content[:_SNIFFED_BYTES]
    if b"\x1b" in head and any(escape in head for escape in _ESCAPED_JAPANESE):
        return "iso2022_jp"
    num_pairs = len(head) // 2
    if b"\0" in head and num_pairs >= 4:
        even, odd = head[0::2].count(0) / num_pairs, head[1::2].count(0) / num_pairs
        if odd >= _NULS_OF_UTF16 and even == 0:
            return "utf-16-le"
        if even >= _NULS_OF_UTF16 and odd == 0:
            return "utf-16-be"
    return None


def _best(content: bytes, content_type: str) -> tuple[str, str]:
    best: tuple[float, str, str] | None = None
    tried = set()
    for encoding in _candidates(content, content_type):
        if encoding in tried:
            continue
        tried.add(encoding)
        text = content.decode(encoding, "replace")
        share = _num_bad(text) / max(len(text), 1)
        if share <= _GOOD_ENOUGH:
            return text, encoding
        if best is None or share < best[0]:
            best = share, text, encoding
    assert best is not None  # UTF-8 is always among the candidates
    return best[1], best[2]


def _num_bad(text: str) -> int:
    """Characters that did not decode, and C1 controls."""
    latin = text.encode("latin-1", "ignore")
    return text.count("\ufffd") + len(latin) - len(latin.translate(None, _CONTROLS))


def _candidates(content: bytes, content_type: str) -> Iterator[str]:
    yield from filter(None, [_declared(content_type)])
    head = content[:_DETECTED_BYTES]
    yield from filter(None, [text_codec(detect_encoding(head, from_html_meta=True) or "")])
    yield from filter(None, [text_codec(detect_encoding(head) or "")])
    yield "utf-8"
    if len(content) > len(head):
        yield from filter(None, [text_codec(detect_encoding(content[len(head) :]) or "")])


def _declared(content_type: str) -> str | None:
    match = _CHARSET.search(content_type)
    return text_codec(match[1]) if match else None


def text_codec(label: str) -> str | None:
    """Python's name of the text encoding that browsers take a label for, or None."""
    for name in (label, map_encoding_to_html5(label, fallback_utf8=False) or ""):
        try:
            codec = codecs.lookup(name).name
            "".encode(codec)
        except (LookupError, ValueError):  # unknown; not an encoding of text; a NUL in the name
            continue
        return None if codec in _REFUSED_CODECS else _WIDER_CODECS.get(codec, codec)
    return None


_REFUSED_CODECS = frozenset(
    {"utf-7", "idna", "punycode", "raw_unicode_escape", "unicode_escape", "undefined"}
)
"""Python's own codecs that no page is written in, and UTF-7, which the standard forbids."""
