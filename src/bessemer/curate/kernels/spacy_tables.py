"""What spaCy's English tokenizer knows, as lookup tables, so that compiled code splits words as it does.

datatrove measures English text in spaCy's tokens, so its published verdicts depend on them. The facts here
(which characters open, close and join words, and which strings are exceptions) are those of spaCy 3.8:
`lang/char_classes.py`, `lang/punctuation.py`, `lang/tokenizer_exceptions.py` and their English parts. The
tests compare them with spaCy itself.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from bessemer.curate.kernels.characters import NUM_CODE_POINTS
from bessemer.curate.kernels.spacy_exceptions import exceptions

ALPHA, LOWER, UPPER, DIGIT, PREFIX, SUFFIX, INFIX, DOT_FOLLOWS, CURRENCY, QUOTE, ACTIVE, WORD = (
    1 << bit for bit in range(12)
)
"""ALPHA: letters that infix rules look at. LOWER and UPPER: cased ones, and both for scripts without case.
PREFIX, SUFFIX: split off alone at that end. INFIX: splits a word wherever it stands. DOT_FOLLOWS: a full stop
behind it is split off. ACTIVE: may take part in any rule; a chunk without one is one token. WORD: `\\w` of a
regular expression."""

_CASED = (
    "41-5A 61-7A C0-D6 D8-F6 F8-1BF 1C4-2AF 386 388-38A 38C 38E-38F 391-3A9 3AC-3AF 3B1-3C9 3CC-3CE 400-401 "
    "403-40A 40C-40D 410-451 453-45A 45C-45D 490-491 496-497 4A2-4A3 4AE-4AF 4BA-4BB 4D8-4D9 4E8-4E9 "
    "1D00-1D25 "
    "1D6B-1D77 1D79-1D9A 1E00-1EFF 2C60-2C7B 2C7E-2C7F A722-A76F A771-A787 A78B-A78E A790-A7B9 A7FA "
    "AB30-AB5A "
    "AB60-AB64 FF21-FF3A FF41-FF5A"
)
_UNCASED = (
    "591-5F4 620-64A 66E-6D5 6E5-6FF 750-77F 8A0-8BD 900-9FF B80-CFF D80-DFF 1100-137F 2E80-2FDF 2FF0-30FF "
    "31C0-31EF 3200-4DBF 4E00-9FFF AC00-D7AF F900-FAFF FB1D-FBB1 FBD3-FD3D FD50-FDC7 FDF0-FDFB FE30-FE4F "
    "FE70-FEFC 1EE00-1EEBB 1F200-1F2FF 20000-2A6DF 2A700-2EBEF 2F800-2FA1F"
)
_NEITHER_CASE = "1BB 1C5 1C8 1CB 1F2"
"""Letters of the cased blocks that count as neither lower nor upper case (titlecase digraphs, ƻ)."""
_LOWER_ONLY = "294"
_UPPER_ONLY = "3A2"
_ICONS = (
    "A6 A9 AE B0 482 58D-58E 60E-60F 6DE 6E9 6FD-6FE 7F6 9FA B70 BF3-BF8 BFA C7F D4F D79 F01-F03 F13 F15-F17 "
    "F1A-F1F F34 F36 F38 FBE-FC5 FC7-FCC FCE-FCF FD5-FD8 109E-109F 1390-1399 1940 19DE-19FF 1B61-1B6A "
    "1B74-1B7C "
    "2100-2101 2103-2106 2108-2109 2114 2116-2117 211E-2123 2125 2127 2129 212E 213A-213B 214A "
    "214C-214D 214F "
    "218A-218B 2195-2199 219C-219F 21A1-21A2 21A4-21A5 21A7-21AD 21AF-21CD 21D0-21D1 21D3 21D5-21F3 "
    "2300-2307 "
    "230C-231F 2322-2328 232B-237B 237D-239A 23B4-23DB 23E2-2426 2440-244A 249C-24E9 2500-25B6 25B8-25C0 "
    "25C2-25F7 2600-266E 2670-2767 2794-27BF 2800-28FF 2B00-2B2F 2B45-2B46 2B4D-2B73 2B76-2B95 2B98-2BC8 "
    "2BCA-2BFE 2CE5-2CEA 2E80-2E99 2E9B-2EF3 2F00-2FD5 2FF0-2FFB 3004 3012-3013 3020 3036-3037 303E-303F "
    "3190-3191 3196-319F 31C0-31E3 3200-321E 322A-3247 3250 3260-327F 328A-32B0 32C0-32FE 3300-33FF "
    "4DC0-4DFF "
    "A490-A4C6 A828-A82B A836-A837 A839 AA77-AA79 FDFD FFE4 FFE8 FFED-FFEE FFFC-FFFD 10137-1013F 10179-10189 "
    "1018C-1018E 10190-1019B 101A0 101D0-101FC 10877-10878 10AC8 1173F 16B3C-16B3F 16B45 1BC9C 1D000-1D0F5 "
    "1D100-1D126 1D129-1D164 1D16A-1D16C 1D183-1D184 1D18C-1D1A9 1D1AE-1D1E8 1D200-1D241 1D245 1D300-1D356 "
    "1D800-1D9FF 1DA37-1DA3A 1DA6D-1DA74 1DA76-1DA83 1DA85-1DA86 1ECAC 1F000-1F02B 1F030-1F093 1F0A0-1F0AE "
    "1F0B1-1F0BF 1F0C1-1F0CF 1F0D1-1F0F5 1F110-1F16B 1F170-1F1AC 1F1E6-1F202 1F210-1F23B 1F240-1F248 "
    "1F250-1F251 "
    "1F260-1F265 1F300-1F3FA 1F400-1F6D4 1F6E0-1F6EC 1F6F0-1F6F9 1F700-1F773 1F780-1F7D8 1F800-1F80B "
    "1F810-1F847 "
    "1F850-1F859 1F860-1F887 1F890-1F8AD 1F900-1F90B 1F910-1F93E 1F940-1F970 1F973-1F976 1F97A 1F97C-1F9A2 "
    "1F9B0-1F9B9 1F9C0-1F9C2 1F9D0-1F9FF 1FA60-1FA6D"
)
"""General category So as of Unicode 11."""
_PUNCTUATION = "…,:;!?¿؟¡()[]{}<>_#*&。？！，、；：～·।،۔؛٪"
_QUOTES = "'\"”“`‘´’‚,„»«「」『』（）〔〕【】《》〈〉〈〉⟦⟧"
_CURRENCY = "$£€¥฿₽﷼₴₠₡₢₣₤₥₦₧₨₩₪₫€₭₮₯₰₱₲₳₴₵₶₷₸₹₺₻₼₽₾₿"
_DASHES = "—–"
_UNITS = (
    "km km² km³ m m² m³ dm dm² dm³ cm cm² cm³ mm mm² mm³ ha µm nm yd in ft kg g mg µg t lb oz m/s km/h "
    "kmh mph "
    "hPa Pa mbar mb MB kb KB gb GB tb TB T G M K % км км² км³ м м² м³ дм дм² дм³ см см² см³ мм мм² мм³ "
    "нм кг г мг "
    "м/с км/ч кПа Па мбар Кб КБ кб Мб МБ мб Гб ГБ гб Тб ТБ тбكم كم² كم³ م م² م³ سم سم² سم³ مم مم² مم³ "
    "كم غرام جرام "
    "جم كغ ملغ كوب اكواب"
)
"""Split off behind a digit. Two of them run into one another (`тбكم`) in spaCy's list, and so here."""

LONGEST_EXCEPTION = 12
LONGEST_UNIT = 5
"""In code points."""
MARKS_SHIFT = 16
HASH_BASE = np.uint64(0x9E3779B97F4A7C15 | 1)
"""Base of the polynomial hash of a token's code points modulo 2^64: hash(ab) = hash(a) base^|b| + hash(b)."""


class SpacyTables(NamedTuple):
    """Everything that the tokenizer kernel looks up."""

    classes: NDArray[np.uint16]
    """Bits above, by code point."""
    keys: NDArray[np.uint64]
    """Open-addressing table of exceptions: hashes of their text; 0 is empty."""
    pieces: NDArray[np.int8]
    """[slots, 4]: lengths of the tokens that the exception in the slot splits into, then zeros."""
    merges: NDArray[np.int64]
    """[slots]: the exception as the other rules would split it, lengths as hexadecimal digits; else 0."""
    first_signs: NDArray[np.bool_]
    """[256]: some merge begins with a token that begins with a code point of this low byte."""
    second_signs: NDArray[np.bool_]
    """[256]: likewise for its second token."""
    units: NDArray[np.uint64]
    """Sorted hashes of the units."""
    powers: NDArray[np.uint64]
    """HASH_BASE to the powers 0 to 255."""
    listed: NDArray[np.uint64]
    """A bit by the highest 16 of a hash: set where some exception has these, as few other words do."""
    kinds: NDArray[np.uint32]
    """By code point: the bits of `classes`, and those of `marks` shifted by MARKS_SHIFT."""


def code_point_set(ranges: str) -> NDArray[np.int64]:
    """Code points of hexadecimal ranges such as `41-5A 2028`."""
    bounds = [part.partition("-") for part in ranges.split()]
    return np.concatenate([np.arange(int(low, 16), int(high or low, 16) + 1) for low, _, high in bounds])


def icons() -> NDArray[np.int64]:
    """Code points of symbols and emoji."""
    return code_point_set(_ICONS)


def polynomial_hash(text: str) -> int:
    """The hash of a token as the kernels compute it."""
    state = 0
    for character in text:
        state = (state * int(HASH_BASE) + ord(character) + 1) % 2**64
    return state


def build_tables() -> SpacyTables:
    """The tables, but for `merges` and the signs, which need the tokenizer itself (`spacy_words`), and the
    marks in `kinds`."""
    size = 1 << 13
    keys = np.zeros(size, np.uint64)
    pieces = np.zeros((size, 4), np.int8)
    merges = np.zeros(size, np.int64)
    signs = np.zeros((2, 256), np.bool_)
    listed = np.zeros(1 << 10, np.uint64)
    for text, parts in exceptions().items():
        key = polynomial_hash(text)
        slot = (key >> 20) & (size - 1)
        while keys[slot]:
            slot = (slot + 1) & (size - 1)
        keys[slot] = key
        listed[key >> 54] |= np.uint64(1 << ((key >> 48) & 63))
        pieces[slot, : len(parts)] = [len(part) for part in parts]
    units = np.array(sorted(polynomial_hash(unit) for unit in set(_UNITS.split())), np.uint64)
    powers = np.array([pow(int(HASH_BASE), power, 2**64) for power in range(256)], np.uint64)
    classes = _classes()
    kinds = classes.astype(np.uint32)
    return SpacyTables(classes, keys, pieces, merges, signs[0], signs[1], units, powers, listed, kinds)


def _classes() -> NDArray[np.uint16]:
    classes = np.zeros(NUM_CODE_POINTS, np.uint16)

    def mark(code_points: NDArray[np.int64] | str, bits: int) -> None:
        chosen = [ord(sign) for sign in code_points] if isinstance(code_points, str) else code_points
        classes[chosen] |= bits

    for code_point in code_point_set(_CASED):
        is_lower = chr(code_point).islower()
        classes[code_point] |= ALPHA | (LOWER if is_lower else UPPER)
    classes[code_point_set(_NEITHER_CASE)] = ALPHA
    classes[code_point_set(_LOWER_ONLY)] = ALPHA | LOWER
    classes[code_point_set(_UPPER_ONLY)] |= UPPER
    mark(code_point_set(_UNCASED), ALPHA | LOWER | UPPER)
    mark("0123456789", DIGIT | DOT_FOLLOWS | ACTIVE)
    classes[(classes & LOWER) != 0] |= DOT_FOLLOWS
    mark("%²-+|" + _PUNCTUATION + _QUOTES, DOT_FOLLOWS)
    mark(_PUNCTUATION + _QUOTES + _DASHES, PREFIX | SUFFIX | ACTIVE)
    mark("§%=" + _CURRENCY, PREFIX | ACTIVE)
    mark(icons(), PREFIX | SUFFIX | INFIX | ACTIVE)
    mark("…", INFIX)
    mark(_QUOTES, QUOTE)
    mark(_CURRENCY, CURRENCY)
    mark("+-*^.,:<>=/~", ACTIVE)
    characters = np.arange(NUM_CODE_POINTS, dtype=np.uint32).view("U1")
    classes[np.char.isalnum(characters)] |= WORD
    mark("_", WORD)
    return classes
