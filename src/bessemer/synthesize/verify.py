"""The verifier: does an answer hold the key content of its reference?

Strict on purpose: the whole of the reference's key must stand in the answer, in order and without
other words in between, after case, punctuation and spacing are levelled. A model cannot be right by
saying something near.
"""

import re
from dataclasses import dataclass
from enum import StrEnum

from bessemer.synthesize.phrasings import REFUSAL_KEY

KEY_DEFINITION = (
    "An answer is right when the reference's key stands in it word for word (case, punctuation and "
    "spacing aside): the documentation's first sentence for a purpose, the module's qualified name "
    'for a module, "returns" and the documented type for a return value, "takes" and all parameter names '
    "in order for arguments. Where the key is a sentence's end, the answer's sentence must end there too: "
    '"takes a and b" is wrong where a alone is right. '
    f'A question about something that does not exist is answered rightly by "{REFUSAL_KEY}".'
)

_WORD = re.compile(r"[^\W_]+(?:[._][^\W_]+)*")
_SENTENCE_END = re.compile(r"[.!?\n]")


class Verdict(StrEnum):
    RIGHT = "right"
    WRONG = "wrong"
    REFUSED = "refused"
    """The answer says that it does not know."""


@dataclass(frozen=True)
class Verified:
    """A verdict and its reason."""

    verdict: Verdict
    reason: str


def normalized_words(text: str) -> list[str]:
    """Lower-case words; dotted and underscored names stay whole, all other punctuation goes."""
    return _WORD.findall(text.lower())


def is_refusal(answer: str) -> bool:
    """Whether an answer says that it does not know."""
    return holds(answer, REFUSAL_KEY)


def verify(answer: str, key: str | None) -> Verified:
    """Judge an answer against the key of its reference; `key` None means nothing exists to know.

    Raises ValueError for a key without words.
    """
    refused = is_refusal(answer)
    if key is None:
        if refused:
            return Verified(Verdict.RIGHT, "declines, and there is nothing to know")
        return Verified(Verdict.WRONG, "explains something that does not exist")
    if refused:
        return Verified(Verdict.REFUSED, "declines although the documentation knows")
    if holds(answer, key):
        return Verified(Verdict.RIGHT, "the key stands in the answer")
    said = set(normalized_words(answer))
    missing = [word for word in normalized_words(key) if word not in said]
    reason = f"misses {', '.join(missing[:5])}" if missing else "words out of order or more than the key"
    return Verified(Verdict.WRONG, reason)


def holds(answer: str, key: str) -> bool:
    """Whether the key's words stand in the answer side by side, ending a sentence if the key does."""
    text = answer.lower()
    said, wanted = list(_WORD.finditer(text)), normalized_words(key)
    if not wanted:
        raise ValueError(f"the key {key!r} holds no words to look for")
    for last in range(len(wanted) - 1, len(said)):
        if [word[0] for word in said[last + 1 - len(wanted) : last + 1]] != wanted:
            continue
        gap = text[said[last].end() : said[last + 1].start()] if last + 1 < len(said) else "."
        if not key.endswith(".") or _SENTENCE_END.search(gap):
            return True
    return False
