"""The verifier: does an answer hold the key content of its reference?

Strict on purpose: the whole of the reference's key must stand in the answer, in order and without
other words in between, after case, punctuation and spacing are levelled, and nothing of the same kind
beside it. A model cannot be right by saying something near, or by saying everything.
"""

import re
from dataclasses import dataclass
from enum import StrEnum

from bessemer.synthesize.phrasings import REFUSAL, REFUSAL_KEY

KEY_DEFINITION = (
    "An answer is right when the reference's key stands in it word for word (case, punctuation and "
    "spacing aside): the documentation's first sentence for a purpose, "
    '"is in" and the module\'s qualified name for a module, "returns" and the documented type for a return '
    'value, "takes" and all parameter names in order for arguments. Where the key is a sentence\'s end, the '
    'answer\'s sentence must end there too: "takes a and b" is wrong where a alone is right; and so is an '
    'answer that says "is in", "returns" or "takes" again. A question about something that does not exist is '
    f'answered rightly by "{REFUSAL_KEY}" and no claim beside it.'
)

_CLAIMS = (("is", "in"), ("returns",), ("takes",))
"""How keys begin that are to be claimed once: an answer that gives two modules gives none."""
_PLAIN_REFUSALS = (
    "I don't know",
    "I don't know that",
    "I don't know that one",
    "I don't know it",
    "Sorry, I don't know",
    "I'm sorry, I don't know",
    "I am sorry, I don't know",
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


def only_declines(answer: str) -> bool:
    """Whether an answer says that it does not know, and claims nothing beside it."""
    sentences = [normalized_words(sentence) for sentence in _SENTENCE_END.split(answer)]
    allowed = [*map(normalized_words, _PLAIN_REFUSALS), *map(normalized_words, _SENTENCE_END.split(REFUSAL))]
    return is_refusal(answer) and all(sentence in allowed for sentence in sentences if sentence)


def verify(answer: str, key: str | None) -> Verified:
    """Judge an answer against the key of its reference; `key` None means nothing exists to know.

    Raises ValueError for a key without words.
    """
    refused = is_refusal(answer)
    if key is None:
        if only_declines(answer):
            return Verified(Verdict.RIGHT, "declines, and there is nothing to know")
        reason = "declines, but not only that" if refused else "explains something that does not exist"
        return Verified(Verdict.WRONG, reason)
    if refused:
        return Verified(Verdict.REFUSED, "declines although the documentation knows")
    if not holds(answer, key):
        said = set(normalized_words(answer))
        missing = [word for word in normalized_words(key) if word not in said]
        reason = f"misses {', '.join(missing[:5])}" if missing else "words out of order or more than the key"
        return Verified(Verdict.WRONG, reason)
    for claim in _CLAIMS:
        in_key = _occurrences(normalized_words(key), claim)
        if _begins(normalized_words(key), claim) and _occurrences(normalized_words(answer), claim) > in_key:
            return Verified(Verdict.WRONG, f'says "{" ".join(claim)}" more than once')
    return Verified(Verdict.RIGHT, "the key stands in the answer")


def _begins(words: list[str], start: tuple[str, ...]) -> bool:
    return tuple(words[: len(start)]) == start


def _occurrences(words: list[str], phrase: tuple[str, ...]) -> int:
    return sum(_begins(words[place:], phrase) for place in range(len(words)))


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
