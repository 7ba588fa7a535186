"""UTF-8 that someone once read as Windows-1252 or Latin-1 (`donâ€™t`), turned back into what was written.

The idea of undoing the decoding step where the bytes then form valid UTF-8 is that of ftfy (Speer 2019,
doi:10.5281/zenodo.2591652). The rule here is simpler, and local to runs of affected characters:

A *run* is a stretch of characters that came from bytes 0x80-0xFF. It is *sound* when its bytes are
UTF-8 for characters in common use. A sound run is *certain* when it holds a sequence of three or four
bytes, or two sequences, whose continuation bytes are not all typographic marks: hardly any language puts
`™` behind `€` behind `â`. Certain runs are always undone. The others (`Ã©`, but also the end of
`MANHÃ”`) are undone only where at least half of the text's runs are sound, and one of them without
typographic marks.
"""

import re
import unicodedata

_MAX_ROUNDS = 3
"""Text is seldom garbled more than twice."""


def _windows_1252() -> dict[int, int]:
    """Code point → byte 0x80-0xFF, both for Windows-1252 and for Latin-1's control characters."""
    table = {code: code for code in range(0x80, 0x100)}
    for byte in range(0x80, 0xA0):
        character = bytes([byte]).decode("cp1252", "ignore")
        if character:
            table[ord(character)] = byte
    return table


_BYTE_OF = _windows_1252()
_MISREAD = re.compile(
    "[\xc2-\xf4][{}]".format("".join(re.escape(chr(code)) for code, byte in _BYTE_OF.items() if byte < 0xC0))
)
"""A lead byte and a continuation byte, read as characters: what every sound run holds and few texts do."""
_RUN = re.compile("[{}]+".format("".join(map(re.escape, map(chr, _BYTE_OF)))))
_TYPOGRAPHIC = frozenset("“”‘’„‚…–—«»‹›°·´¨")
"""What writers do put behind an accented letter."""
_COMMON = re.compile(
    "[\u0080-\u017f\u0192\u0218-\u021b\u02c6\u02da-\u02dd\u0370-\u052f\u05d0-\u05ea\u0600-\u06ff\u0900-\u0dff"
    "\u0e00-\u0eff\u10a0-\u10ff\u1e00-\u1fff\u200b-\u206f\u20a0-\u20bf\u2100-\u27bf\u3000-\u30ff\u3400-\u9fff"
    "\uac00-\ud7a3\uff01-\uffee\ufeff\ufffd\U0001f000-\U0001faff]+"
)


def repair_mojibake(text: str) -> tuple[str, int]:
    """The text with misread UTF-8 undone, and the number of runs that were. Text without any is returned."""
    num_repaired = 0
    for _ in range(_MAX_ROUNDS):
        if text.isascii() or _MISREAD.search(text) is None:
            break
        text, num_repairs = _repair_once(text)
        if num_repairs == 0:
            break
        num_repaired += num_repairs
    return text, num_repaired


def _repair_once(text: str) -> tuple[str, int]:
    meanings: dict[str, tuple[str, bool, bool] | None] = {}
    num_runs = num_sound = 0
    is_clear = False
    for match in _RUN.finditer(text):
        run = match[0]
        if run not in meanings:
            meanings[run] = _meaning(run)
        num_runs += 1
        meaning = meanings[run]
        num_sound += meaning is not None
        is_clear = is_clear or (meaning is not None and meaning[2])
    if num_sound == 0:
        return text, 0
    undoes_all = is_clear and 2 * num_sound >= num_runs
    num_repairs = 0

    def replace(match: re.Match[str]) -> str:
        nonlocal num_repairs
        meaning = meanings[match[0]]
        if meaning is None or not (undoes_all or meaning[1]):
            return match[0]
        num_repairs += 1
        return meaning[0]

    return _RUN.sub(replace, text), num_repairs


def _meaning(run: str) -> tuple[str, bool, bool] | None:
    """(what was written, is it certain, does it hold no typographic mark), or None for a run in order."""
    try:
        written = bytes(_BYTE_OF[ord(character)] for character in run).decode("utf-8")
    except UnicodeDecodeError:
        return None
    if _COMMON.fullmatch(written) is None or any(unicodedata.category(c) == "Cn" for c in written):
        return None
    leads = sum(ord(character) in _BYTE_OF and _BYTE_OF[ord(character)] >= 0xC0 for character in run)
    continuations = [character for character in run if _BYTE_OF[ord(character)] < 0xC0]
    is_clear = not any(character in _TYPOGRAPHIC for character in continuations)
    is_long = len(run) > 2 * leads or leads > 1
    is_certain = is_long and not all(character in _TYPOGRAPHIC for character in continuations)
    return written, is_certain, is_clear
