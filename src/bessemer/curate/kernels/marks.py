"""Kinds of code points that published rule sets look at, beyond those of `characters`, as a lookup table."""

import unicodedata
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from bessemer.curate.kernels.characters import NUM_CODE_POINTS
from bessemer.curate.kernels.spacy_tables import code_point_set

(
    SPACE,
    LETTER,
    NOT_SYMBOL,
    IS_PUNCTUATION,
    STOP_MARK,
    SENTENCE_END,
    LINE_BREAK,
    UPPERCASE,
    DIGIT,
    DECIMAL,
    WORD,
) = (1 << bit for bit in range(11))
"""SPACE, LETTER, UPPERCASE, DIGIT: as `str.isspace`, `isalpha`, `isupper`, `isdigit`. DECIMAL and WORD: as
`\\d` and `\\w` in a regular expression. LINE_BREAK: as `str.splitlines` has it. IS_PUNCTUATION: Unicode P*.
NOT_SYMBOL: outside datatrove's PUNCTUATION_SET. STOP_MARK: datatrove's TERMINAL_PUNCTUATION. SENTENCE_END:
spaCy's sentencizer."""

_STOP_MARKS = (
    "21 2E 3F 589 61D-61F 6D4 700-702 7F9 837 839 83D-83E 964-965 104A-104B 1362 1367-1368 166E "
    "1735-1736 17D4-17D6 "
    "17D9-17DA 1803 1809 1944-1945 1AA8-1AAB 1B5A-1B5B 1B5E-1B5F 1B7D-1B7E 1C3B-1C3C 1C7E-1C7F "
    "203C-203D 2047-2049 "
    "2E2E 2E3C 2E53-2E54 3002 A4FF A60E-A60F A6F3 A6F7 A876-A877 A8CE-A8CF A92F A9C8-A9C9 AA5D-AA5F "
    "AAF0-AAF1 ABEB "
    "FE52 FE56-FE57 FF01 FF0E FF1F FF61 10A56-10A57 10F55-10F59 10F86-10F89 11047-11048 110BE-110C1 "
    "11141-11143 "
    "111C5-111C6 111CD 111DE-111DF 11238-11239 1123B-1123C 112A9 1144B-1144C 115C2-115C3 115C9-115D7 "
    "11641-11642 "
    "1173C-1173E 11944 11946 11A42-11A43 11A9B-11A9C 11C41-11C42 11EF7-11EF8 11F43-11F44 16A6E-16A6F 16AF5 "
    "16B37-16B38 16B44 16E98 1BC9F 1DA88"
)
"""datatrove 0.10.1, `utils/text.py`: Unicode's Sentence_Terminal."""
_NOT_IN_SENTENCIZER = (
    "61D-61E 837 839 83D-83E 17D4-17D6 17D9-17DA 1B7D-1B7E 2E53-2E54 10F55-10F59 10F86-10F89 11944 11946 "
    "11EF7-11EF8 11F43-11F44 16E98"
)
"""Stop marks that spaCy 3.8's sentencizer lacks."""
_DATATROVE_PUNCTUATION = (
    "!/—”:％１〈&(、━\\【#%「」，】；+^]~“《„';’{|∶´[=-`*．（–？！：$～«〉,><》)?）。…@_.\"}►»"
)
"""datatrove 0.10.1, `utils/text.py`; it counts the control characters, but for newline and CR, as well."""
_ASSIGNED_END = 0x40000
"""Beyond are unassigned planes, tags and private use alone, none of which has a mark but NOT_SYMBOL."""
_LINE_BREAKS = "\n\r\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029"


@lru_cache(maxsize=1)
def character_marks() -> NDArray[np.uint16]:
    """The table, built once per process: bits by code point."""
    characters = np.arange(_ASSIGNED_END, dtype=np.uint32).view("U1")
    marks = np.full(NUM_CODE_POINTS, NOT_SYMBOL, np.uint16)
    assigned = marks[:_ASSIGNED_END]
    assigned[np.char.isspace(characters)] |= SPACE
    assigned[np.char.isalpha(characters)] |= LETTER
    assigned[np.char.isupper(characters)] |= UPPERCASE
    assigned[np.char.isdigit(characters)] |= DIGIT
    assigned[np.char.isdecimal(characters)] |= DECIMAL
    assigned[np.char.isalnum(characters)] |= WORD
    marks[ord("_")] |= WORD
    stop_marks = code_point_set(_STOP_MARKS)
    sentence_ends = np.setdiff1d(stop_marks, code_point_set(_NOT_IN_SENTENCIZER))
    symbols = [ord(sign) for sign in _DATATROVE_PUNCTUATION]
    controls = [*range(9), *range(11, 13), *range(13, 32), *range(127, 160)]
    marks[np.concatenate([stop_marks, symbols, controls])] &= ~np.uint16(NOT_SYMBOL)
    marks[stop_marks] |= STOP_MARK
    marks[sentence_ends] |= SENTENCE_END
    marks[[ord(sign) for sign in _LINE_BREAKS]] |= LINE_BREAK
    others = np.flatnonzero((assigned & (SPACE | WORD)) == 0)
    punctuation = [code for code in others.tolist() if unicodedata.category(chr(code))[0] == "P"]
    marks[punctuation] |= IS_PUNCTUATION
    return marks
