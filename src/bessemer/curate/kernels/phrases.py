"""Finding many phrases in one pass, without regard to case (Aho and Corasick 1975, "Efficient string
matching")."""

from collections import deque
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from bessemer.curate.kernels.characters import NUM_CODE_POINTS, character_tables
from bessemer.curate.kernels.decoding import decode, longest_span
from bessemer.curate.kernels.marks import WORD

_NONE = -1


class Automaton(NamedTuple):
    """States 0..S-1, of which 0 is the start; a step goes from a state by a letter to a state."""

    letters: NDArray[np.uint16]
    """By code point; upper and lower case are one letter, all that is in no phrase is letter 0."""
    steps: NDArray[np.int32]
    """[states, letters]."""
    phrases: NDArray[np.int32]
    """[states]: the longest phrase that ends in the state, by its number; -1 for none."""
    shorter: NDArray[np.int32]
    """[states]: the state that stands for the next shorter phrase that ends here too; -1 for none."""
    lengths: NDArray[np.int32]
    """[phrases]: in code points."""


def build_automaton(phrases: Sequence[str]) -> Automaton:
    """The automaton of some phrases, none of them empty. Equal ones (but for case) count as the first."""
    assert all(phrases), "an empty phrase is everywhere"
    lower = character_tables().lower
    spelled = [[int(lower[ord(sign)]) for sign in phrase] for phrase in phrases]
    alphabet = {code: i for i, code in enumerate(sorted({code for phrase in spelled for code in phrase}), 1)}
    letter_of = np.zeros(NUM_CODE_POINTS, np.uint16)
    letter_of[list(alphabet)] = list(alphabet.values())
    branches: list[dict[int, int]] = [{}]
    ends: list[int] = [_NONE]
    for number, phrase in enumerate(spelled):
        state = 0
        for code in phrase:
            state = branches[state].setdefault(alphabet[code], len(branches))
            if state == len(branches):
                branches.append({})
                ends.append(_NONE)
        ends[state] = number if ends[state] == _NONE else ends[state]
    steps, shorter, found = _complete(branches, ends, len(alphabet) + 1)
    lengths = np.array([len(phrase) for phrase in spelled], np.int32)
    return Automaton(letter_of[lower], steps, found, shorter, lengths)


def _complete(
    branches: Sequence[dict[int, int]], ends: Sequence[int], num_letters: int
) -> tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.int32]]:
    """Steps for every letter, and per state the shorter phrases that end there: breadth first."""
    steps = np.zeros((len(branches), num_letters), np.int32)
    shorter = np.full(len(branches), _NONE, np.int32)
    found = np.array(ends, np.int32)
    fallback = np.zeros(len(branches), np.int32)
    waiting = deque([0])
    while waiting:
        state = waiting.popleft()
        if state:
            steps[state] = steps[fallback[state]]
        for letter, following in branches[state].items():
            fallback[following] = steps[state, letter] if state else 0
            steps[state, letter] = following
            waiting.append(following)
        behind = fallback[state]
        if state and found[behind] != _NONE:
            if found[state] == _NONE:
                found[state], shorter[state] = found[behind], shorter[behind]
            else:
                shorter[state] = behind
    return steps, shorter, found


@njit(cache=True)
def find_phrases(codes, start, end, automaton, groups, counts):
    """Add the occurrences in a range of code points to `counts`, by the group [phrases] of each phrase."""
    state = 0
    for i in range(start, end):
        state = automaton.steps[state, automaton.letters[codes[i]]]
        place = state
        while place >= 0 and automaton.phrases[place] >= 0:
            counts[groups[automaton.phrases[place]]] += 1
            place = automaton.shorter[place]


@njit(cache=True)
def count_words(
    buffer: NDArray[np.uint8], offsets: NDArray[np.int64], automaton: Automaton, marks: NDArray[np.uint16]
) -> NDArray[np.float64]:
    """Occurrences [documents] of the phrases that stand alone: no letter, digit or underscore beside them."""
    totals = np.zeros(len(offsets) - 1, np.float64)
    codes = np.empty(longest_span(offsets), np.uint32)
    for document in range(len(totals)):
        num_codes = decode(buffer, offsets[document], offsets[document + 1], codes)
        state = 0
        for i in range(num_codes):
            state = automaton.steps[state, automaton.letters[codes[i]]]
            place = state
            while place >= 0 and automaton.phrases[place] >= 0:
                before = i - automaton.lengths[automaton.phrases[place]]
                is_alone = before < 0 or not marks[codes[before]] & WORD
                is_alone = is_alone and (i + 1 == num_codes or not marks[codes[i + 1]] & WORD)
                totals[document] += is_alone
                place = automaton.shorter[place]
    return totals
