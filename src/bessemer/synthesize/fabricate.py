"""Names that look real and are not: what an honest model must decline to explain.

Four kinds: a new function name built from pieces of real ones; a real name put in a wrong module; an
invented word; an invented module. A name is only used when the documentation knows no such object.
"""

import re
from collections.abc import Collection, Sequence

import numpy as np

_PIECE = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])|[0-9]+")
_ONSETS = (
    "b",
    "bl",
    "cr",
    "d",
    "dr",
    "f",
    "fl",
    "g",
    "gr",
    "j",
    "k",
    "l",
    "m",
    "n",
    "p",
    "pl",
    "qu",
    "r",
    "s",
)
_ONSETS += ("sn", "st", "t", "tr", "v", "w", "z")
_RHYMES = (
    "ab",
    "ad",
    "ark",
    "ax",
    "eb",
    "eff",
    "el",
    "ent",
    "ib",
    "ick",
    "im",
    "ix",
    "ob",
    "olt",
    "on",
    "orp",
)
_RHYMES += ("ub", "uff", "um", "unk", "y", "o", "a")


def pieces_of(name: str) -> list[str]:
    """`read_csv` → [read, csv]; `OrderedDict` → [Ordered, Dict]."""
    return _PIECE.findall(name)


def fabricate(
    names: Sequence[str], known: Collection[str], count: int, generator: np.random.Generator
) -> list[str]:
    """`count` distinct qualified names that are not in `known`, modelled on the real `names`.

    `names` are qualified (`math.gcd`); `known` holds every qualified name the documentation has, and
    every short name, so that a fabrication never asks about a real object by accident. Made-up short
    names differ too: a question may be asked with the short name alone.
    """
    modules = sorted({name.rpartition(".")[0] for name in names})
    shorts = [name.rpartition(".")[2] for name in names]
    pieces = sorted({piece for short in shorts for piece in pieces_of(short)})
    # Names of single letters have no pieces that would make another name look real.
    pieces = [piece for piece in pieces if len(piece) > 1 and piece.isalpha()] or list(_RHYMES)
    found: dict[str, None] = {}
    found_shorts: set[str] = set()
    while len(found) < count:
        kind = generator.choice(4, p=[0.45, 0.2, 0.25, 0.1])
        module = str(generator.choice(modules))
        if kind == 0:
            short = _recombine(str(generator.choice(shorts)), pieces, generator)
        elif kind == 1:
            short = str(generator.choice(shorts))
        else:
            short = _invented_word(generator)
            if kind == 3:
                module = _invented_word(generator)
        name = f"{module}.{short}"
        is_taken = name in found or name in known
        is_short_taken = kind != 1 and (short in known or short in found_shorts)
        if not is_taken and not is_short_taken:
            found[name] = None
            found_shorts.add(short)
    return list(found)


def _recombine(short: str, pieces: Sequence[str], generator: np.random.Generator) -> str:
    """Replace or add one piece of a real name, in its own style of writing."""
    own = pieces_of(short) or [short]
    new = str(generator.choice(pieces))
    place = int(generator.integers(len(own) + 1))
    if place == len(own) or len(own) == 1:
        own = [*own, new] if generator.random() < 0.5 else [new, *own]
    else:
        own[place] = new
    if "_" in short or short.islower():
        joiner = "_" if "_" in short or generator.random() < 0.7 else ""
        return joiner.join(piece.lower() for piece in own)
    return "".join(piece[:1].upper() + piece[1:] for piece in own)


def _invented_word(generator: np.random.Generator) -> str:
    syllables = int(generator.integers(2, 4))
    word = "".join(str(generator.choice(_ONSETS)) + str(generator.choice(_RHYMES)) for _ in range(syllables))
    return word.capitalize() if generator.random() < 0.2 else word
