"""Conversations and evaluation questions from facts, by rule. Pure functions of facts and seed."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from bessemer.synthesize.fabricate import fabricate
from bessemer.synthesize.facts import Fact, answer_to
from bessemer.synthesize.phrasings import (
    FOLLOW_UPS,
    HELD_OUT,
    OPENERS,
    REFUSAL,
    SMALL_TALK,
    TRAINING,
    QuestionKind,
)

KINDS: tuple[QuestionKind, ...] = ("purpose", "module", "returns", "arguments")


@dataclass(frozen=True)
class Question:
    """One evaluation or preference question."""

    text: str
    kind: QuestionKind
    name: str
    """Qualified name asked about."""
    reference: str
    """The right answer."""
    key: str | None
    """What an answer must hold; None when the name does not exist."""
    group: str
    """`trained`, `held_out_objects` or `nonexistent`."""

    def to_json(self) -> dict[str, Any]:
        return dict(self.__dict__)


def key_of(fact: Fact, kind: QuestionKind) -> str:
    """What an answer must hold to be right about `fact`; see verify.KEY_DEFINITION."""
    if kind == "module":
        return fact.module
    answer = answer_to(fact, kind)
    assert answer is not None, "only asked where the fact holds an answer"
    # The verb stays: "list of int" holds "int", but only "returns int" says so.
    return answer.removeprefix("It ") if kind in ("returns", "arguments") else answer


def askable_kinds(fact: Fact, ambiguous_shorts: frozenset[str]) -> list[QuestionKind]:
    """Kinds of question that have one right answer for this fact."""
    return [
        kind
        for kind in KINDS
        if answer_to(fact, kind) is not None and not (kind == "module" and fact.short in ambiguous_shorts)
    ]


def ambiguous_shorts(known_names: Sequence[str]) -> frozenset[str]:
    """Last name parts that more than one documented object has: their module cannot be asked for."""
    counts = Counter(name.rpartition(".")[2] for name in known_names)
    return frozenset(short for short, count in counts.items() if count > 1)


class Asker:
    """Draws phrasings with one generator."""

    def __init__(self, generator: np.random.Generator) -> None:
        self._generator = generator

    def choose(self, options: Sequence[str]) -> str:
        return options[int(self._generator.integers(len(options)))]

    def distinct(self, options: Sequence[str], count: int) -> list[str]:
        """`count` options, all different while they last."""
        order = self._generator.permutation(len(options))
        return [options[order[i % len(options)]] for i in range(count)]

    def fill(self, phrasing: str, name: str, *, opener: bool) -> str:
        """A phrasing with the name in it, written plainly, in backticks or with parentheses."""
        style = self._generator.random()
        short = name.rpartition(".")[2]
        wrap = "`{}`" if style < 0.2 else "{}()" if style < 0.3 else "{}"
        text = phrasing.format(name=wrap.format(name), short=wrap.format(short))
        return (self.choose(OPENERS) if opener else "") + text


def conversation(turns: Sequence[tuple[str, str]], kind: str, names: Sequence[str]) -> dict[str, Any]:
    """A row of the conversations file from (question, answer) turns."""
    messages = []
    for question, answer in turns:
        messages += [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    return {"messages": messages, "kind": kind, "names": list(names)}


def known_conversations(
    facts: Sequence[Fact], ambiguous: frozenset[str], phrasings: int, generator: np.random.Generator
) -> list[dict[str, Any]]:
    """Every askable question of every fact in `phrasings` training phrasings, one turn each."""
    asker = Asker(generator)
    rows = []
    for fact in facts:
        for kind in askable_kinds(fact, ambiguous):
            for phrasing in asker.distinct(TRAINING[kind], phrasings):
                question = asker.fill(phrasing, fact.name, opener=True)
                rows.append(conversation([(question, answer_to(fact, kind) or "")], kind, [fact.name]))
    return rows


def follow_up_conversations(
    facts: Sequence[Fact], ambiguous: frozenset[str], count: int, generator: np.random.Generator
) -> list[dict[str, Any]]:
    """Two turns about one object, the second by pronoun, so that the model learns to look back.

    None when there is no object that two questions can be asked about.
    """
    if not any(len(askable_kinds(fact, ambiguous)) > 1 for fact in facts):
        return []
    asker = Asker(generator)
    rows = []
    while len(rows) < count:
        fact = facts[int(generator.integers(len(facts)))]
        kinds = askable_kinds(fact, ambiguous)
        if len(kinds) < 2:
            continue
        first, second = (kinds[i] for i in generator.permutation(len(kinds))[:2])
        turns = [
            (asker.fill(asker.choose(TRAINING[first]), fact.name, opener=True), answer_to(fact, first) or ""),
            (asker.choose(FOLLOW_UPS[second]), answer_to(fact, second) or ""),
        ]
        rows.append(conversation(turns, "follow_up", [fact.name]))
    return rows


def unknown_kinds(name: str, known_shorts: frozenset[str]) -> list[QuestionKind]:
    """Kinds to ask about a fabricated name: a real short name does have a module."""
    is_real_short = name.rpartition(".")[2] in known_shorts
    return [kind for kind in KINDS if not (kind == "module" and is_real_short)]


def unknown_conversations(
    names: Sequence[str], known_shorts: frozenset[str], generator: np.random.Generator
) -> list[dict[str, Any]]:
    """One question about each fabricated name, declined."""
    asker = Asker(generator)
    rows = []
    for name in names:
        kinds = unknown_kinds(name, known_shorts)
        kind = kinds[int(generator.choice(len(kinds), p=_kind_weights(kinds)))]
        question = asker.fill(asker.choose(TRAINING[kind]), name, opener=True)
        rows.append(conversation([(question, REFUSAL)], "unknown", [name]))
    return rows


def small_talk_conversations(repeats: int, generator: np.random.Generator) -> list[dict[str, Any]]:
    """Greetings and the like, each way of saying them `repeats` times."""
    rows = [
        conversation([(question, answer)], "small_talk", [])
        for questions, answer in SMALL_TALK
        for question in questions
    ] * repeats
    return [rows[i] for i in generator.permutation(len(rows))]


def held_out_questions(
    facts: Sequence[Fact], ambiguous: frozenset[str], group: str, generator: np.random.Generator
) -> list[Question]:
    """One question an object, of each askable kind in turn, in a held-out phrasing."""
    asker = Asker(generator)
    questions = []
    for number, fact in enumerate(facts):
        kinds = askable_kinds(fact, ambiguous)
        # Purposes are every second question: they are what people ask most and the hardest to know.
        kind = "purpose" if number % 2 == 0 else kinds[number // 2 % len(kinds)]
        text = asker.fill(asker.choose(HELD_OUT[kind]), fact.name, opener=False)
        reference = answer_to(fact, kind) or ""
        questions.append(Question(text, kind, fact.name, reference, key_of(fact, kind), group))
    return questions


def nonexistent_questions(
    names: Sequence[str], known_shorts: frozenset[str], generator: np.random.Generator
) -> list[Question]:
    """One question in a held-out phrasing about each fabricated name."""
    asker = Asker(generator)
    questions = []
    for name in names:
        kinds = unknown_kinds(name, known_shorts)
        kind = kinds[int(generator.choice(len(kinds), p=_kind_weights(kinds)))]
        text = asker.fill(asker.choose(HELD_OUT[kind]), name, opener=False)
        questions.append(Question(text, kind, name, REFUSAL, None, "nonexistent"))
    return questions


def _kind_weights(kinds: Sequence[QuestionKind]) -> list[float]:
    """Purposes half of the time, the other kinds evenly: as the known questions are asked."""
    others = len(kinds) - 1
    return [0.5 if kind == "purpose" else 0.5 / others for kind in kinds]


def fabricated_names(
    facts: Sequence[Fact], known_names: Sequence[str], count: int, generator: np.random.Generator
) -> list[str]:
    """Names like those of `facts` that no document knows, in any module or under any path."""
    known = {*known_names, *(name.rpartition(".")[2] for name in known_names)}
    return fabricate([fact.name for fact in facts], known, count, generator)


def practice_questions(
    facts: Sequence[Fact],
    ambiguous: frozenset[str],
    unknown_names: Sequence[str],
    known_shorts: frozenset[str],
    generator: np.random.Generator,
) -> list[Question]:
    """Questions to sample answers to when preferences are made: training phrasings, all taught
    objects once in a random kind, and names that do not exist and were not used for training."""
    asker = Asker(generator)
    questions = []
    for fact in facts:
        kinds = askable_kinds(fact, ambiguous)
        kind = kinds[int(generator.integers(len(kinds)))]
        text = asker.fill(asker.choose(TRAINING[kind]), fact.name, opener=True)
        reference = answer_to(fact, kind) or ""
        questions.append(Question(text, kind, fact.name, reference, key_of(fact, kind), "trained"))
    for name in unknown_names:
        kinds = unknown_kinds(name, known_shorts)
        kind = kinds[int(generator.choice(len(kinds), p=_kind_weights(kinds)))]
        text = asker.fill(asker.choose(TRAINING[kind]), name, opener=True)
        questions.append(Question(text, kind, name, REFUSAL, None, "nonexistent"))
    return questions
