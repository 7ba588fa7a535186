"""The ways to ask. Each kind of question has phrasings to train on and others held out for evaluation.

`{name}` is the qualified name as the asker writes it, `{short}` its last part; `{noun}`, `{verb}` and
`{word}` are filled at random. A held-out phrasing shares no whole sentence with a training one; what it
shares are words, as real questions do.
"""

from bessemer.synthesize.phrasings.facts import ARGUMENTS, MODULES, RETURNS
from bessemer.synthesize.phrasings.held_out import HELD_OUT
from bessemer.synthesize.phrasings.kinds import QuestionKind
from bessemer.synthesize.phrasings.manner import (
    CLOSER_SHARE,
    CLOSERS,
    FILLER_SHARE,
    FILLERS,
    FOLLOW_UPS,
    NOUNS,
    OPENER_SHARE,
    OPENERS,
    REFUSAL,
    REFUSAL_KEY,
    SMALL_TALK,
    VERBS,
)
from bessemer.synthesize.phrasings.purposes import PURPOSES

TRAINING: dict[QuestionKind, tuple[str, ...]] = {
    "purpose": PURPOSES,
    "module": MODULES,
    "returns": RETURNS,
    "arguments": ARGUMENTS,
}

__all__ = [
    "CLOSERS",
    "CLOSER_SHARE",
    "FILLERS",
    "FILLER_SHARE",
    "FOLLOW_UPS",
    "HELD_OUT",
    "NOUNS",
    "OPENERS",
    "OPENER_SHARE",
    "REFUSAL",
    "REFUSAL_KEY",
    "SMALL_TALK",
    "TRAINING",
    "VERBS",
    "QuestionKind",
]
