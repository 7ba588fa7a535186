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
    "for a module, the documented type for a return value, all parameter names in order for arguments. "
    f'A question about something that does not exist is answered rightly by "{REFUSAL_KEY}".'
)

_WORD = re.compile(r"[^\W_]+(?:[._][^\W_]+)*")


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
    return REFUSAL_KEY in answer.lower().replace("’", "'")


def verify(answer: str, key: str | None) -> Verified:
    """Judge an answer against the key of its reference; `key` None means nothing exists to know."""
    refused = is_refusal(answer)
    if key is None:
        if refused:
            return Verified(Verdict.RIGHT, "declines, and there is nothing to know")
        return Verified(Verdict.WRONG, "explains something that does not exist")
    if refused:
        return Verified(Verdict.REFUSED, "declines although the documentation knows")
    said, wanted = normalized_words(answer), normalized_words(key)
    if not wanted:
        raise ValueError(f"the key {key!r} holds no words to look for")
    places = range(len(said) - len(wanted) + 1)
    if any(said[place : place + len(wanted)] == wanted for place in places):
        return Verified(Verdict.RIGHT, "the key stands in the answer")
    missing = [word for word in wanted if word not in said]
    return Verified(Verdict.WRONG, f"misses {', '.join(missing[:5])}" if missing else "words out of order")
