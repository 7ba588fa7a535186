"""Conversations and evaluation questions from facts, by rule. Pure functions of facts and seed."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from bessemer.synthesize.fabricate import fabricate
from bessemer.synthesize.facts import Fact, answer_to
from bessemer.synthesize.phrasings import (
    CLOSER_SHARE,
    CLOSERS,
    FILLER_SHARE,
    FILLERS,
    FOLLOW_UPS,
    HELD_OUT,
    NOUNS,
    OPENER_SHARE,
    OPENERS,
    REFUSAL,
    SMALL_TALK,
    TRAINING,
    VERBS,
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
    answer = answer_to(fact, kind)
    assert answer is not None, "only asked where the fact holds an answer"
    # The verb stays: "list of int" holds "int", but only "returns int" says so.
    return answer.removeprefix("It ").removeprefix(f"{fact.short} ") if kind != "purpose" else answer


def askable_kinds(fact: Fact, ambiguous_shorts: frozenset[str]) -> list[QuestionKind]:
    """Kinds of question that have one right answer for this fact."""
    return [
        kind
        for kind in KINDS
        if answer_to(fact, kind) is not None and not (kind == "module" and fact.short in ambiguous_shorts)
    ]


@dataclass(frozen=True)
class Subject:
    """A fact, and the kinds of question about it that are asked: taught, practised and evaluated."""

    fact: Fact
    kinds: tuple[QuestionKind, ...]
    """The purpose first, always."""


def choose_subjects(
    facts: Sequence[Fact], ambiguous: frozenset[str], max_kinds: int, generator: np.random.Generator
) -> list[Subject]:
    """Each fact with its purpose and up to `max_kinds` - 1 other askable kinds, drawn at random."""
    subjects = []
    for fact in facts:
        others = [kind for kind in askable_kinds(fact, ambiguous) if kind != "purpose"]
        drawn = [others[i] for i in generator.permutation(len(others))[: max_kinds - 1]]
        subjects.append(Subject(fact, ("purpose", *drawn)))
    return subjects


def ambiguous_shorts(known_names: Sequence[str]) -> frozenset[str]:
    """Last name parts that more than one documented object has: their module cannot be asked for."""
    counts = Counter(name.rpartition(".")[2] for name in known_names)
    return frozenset(short for short, count in counts.items() if count > 1)


class Asker:
    """Draws phrasings with one generator."""

    def __init__(self, generator: np.random.Generator, words: Sequence[str] = ("this",)) -> None:
        """`words` fill the openers that have nothing to do with the question."""
        self.generator = generator
        self._words = words

    def choose(self, options: Sequence[str]) -> str:
        return options[int(self.generator.integers(len(options)))]

    def distinct(self, options: Sequence[str], count: int) -> list[str]:
        """`count` options, all different while they last."""
        order = self.generator.permutation(len(options))
        return [options[int(order[i % len(options)])] for i in range(count)]

    def fill(self, phrasing: str, name: str, *, decorated: bool) -> str:
        """A phrasing with the name in it, written plainly, in backticks or with parentheses."""
        style = self.generator.random()
        short = name.rpartition(".")[2]
        wrap = "`{}`" if style < 0.2 else "{}()" if style < 0.3 else "{}"
        text = self._with_words(phrasing).format(
            name=wrap.format(name),
            short=wrap.format(short),
            noun=self.choose(NOUNS),
            verb=self.choose(VERBS),
        )
        if decorated:
            draw = self.generator.random()
            if draw < OPENER_SHARE:
                text = self.choose(OPENERS) + text
            elif draw < OPENER_SHARE + FILLER_SHARE:
                opener = self._with_words(self.choose(FILLERS))
                text = opener[:1].upper() + opener[1:] + text
            if self.generator.random() < CLOSER_SHARE:
                text += self.choose(CLOSERS)
        return text

    def _with_words(self, text: str) -> str:
        """`text` with a fresh word in each `{word}`."""
        while "{word}" in text:
            text = text.replace("{word}", self.choose(self._words), 1)
        return text


def conversation(turns: Sequence[tuple[str, str]], kind: str, names: Sequence[str]) -> dict[str, Any]:
    """A row of the conversations file from (question, answer) turns."""
    messages = []
    for question, answer in turns:
        messages += [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    return {"messages": messages, "kind": kind, "names": list(names)}


def known_conversations(
    subjects: Sequence[Subject], phrasings: Mapping[QuestionKind, int], asker: Asker
) -> list[dict[str, Any]]:
    """Every taught question of every subject in `phrasings[kind]` training phrasings, one turn each."""
    rows = []
    for subject in subjects:
        fact = subject.fact
        for kind in subject.kinds:
            for phrasing in asker.distinct(TRAINING[kind], phrasings[kind]):
                question = asker.fill(phrasing, fact.name, decorated=True)
                rows.append(conversation([(question, answer_to(fact, kind) or "")], kind, [fact.name]))
    return rows


def follow_up_conversations(subjects: Sequence[Subject], count: int, asker: Asker) -> list[dict[str, Any]]:
    """Two turns about one object, the second by pronoun, so that the model learns to look back.

    None when no subject is asked two kinds of question.
    """
    several = [subject for subject in subjects if len(subject.kinds) > 1]
    rows = []
    for _ in range(count if several else 0):
        subject = several[int(asker.generator.integers(len(several)))]
        fact = subject.fact
        first, second = (subject.kinds[i] for i in asker.generator.permutation(len(subject.kinds))[:2])
        turns = [
            (
                asker.fill(asker.choose(TRAINING[first]), fact.name, decorated=True),
                answer_to(fact, first) or "",
            ),
            (asker.choose(FOLLOW_UPS[second]), answer_to(fact, second) or ""),
        ]
        rows.append(conversation(turns, "follow_up", [fact.name]))
    return rows


def unknown_kinds(name: str, known_shorts: frozenset[str]) -> list[QuestionKind]:
    """Kinds to ask about a fabricated name: a real short name does have a module."""
    is_real_short = name.rpartition(".")[2] in known_shorts
    return [kind for kind in KINDS if not (kind == "module" and is_real_short)]


def unknown_conversations(
    names: Sequence[str], known_shorts: frozenset[str], asker: Asker
) -> list[dict[str, Any]]:
    """One question about each fabricated name, declined."""
    rows = []
    for name in names:
        kinds = unknown_kinds(name, known_shorts)
        kind = kinds[int(asker.generator.choice(len(kinds), p=_kind_weights(kinds)))]
        question = asker.fill(asker.choose(TRAINING[kind]), name, decorated=True)
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


def held_out_questions(subjects: Sequence[Subject], group: str, asker: Asker) -> list[Question]:
    """One question a subject, in a held-out phrasing: the purpose and its other kinds by turns."""
    questions = []
    for number, subject in enumerate(subjects):
        # Every second question is a purpose: they are what people ask most and the hardest to know.
        kind = "purpose" if number % 2 == 0 else subject.kinds[-(number // 2 % len(subject.kinds)) - 1]
        questions.append(_question(subject, kind, HELD_OUT, group, asker, decorated=False))
    return questions


def _question(
    subject: Subject,
    kind: QuestionKind,
    phrasings: Mapping[QuestionKind, Sequence[str]],
    group: str,
    asker: Asker,
    *,
    decorated: bool,
) -> Question:
    """One question about a subject, with its reference and key."""
    fact = subject.fact
    text = asker.fill(asker.choose(phrasings[kind]), fact.name, decorated=decorated)
    return Question(text, kind, fact.name, answer_to(fact, kind) or "", key_of(fact, kind), group)


def nonexistent_questions(
    names: Sequence[str],
    known_shorts: frozenset[str],
    phrasings: Mapping[QuestionKind, Sequence[str]],
    asker: Asker,
) -> list[Question]:
    """One question about each fabricated name, bare of openers and closers, in one of `phrasings`."""
    questions = []
    for name in names:
        kinds = unknown_kinds(name, known_shorts)
        kind = kinds[int(asker.generator.choice(len(kinds), p=_kind_weights(kinds)))]
        text = asker.fill(asker.choose(phrasings[kind]), name, decorated=False)
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
    subjects: Sequence[Subject],
    unknown_names: Sequence[str],
    known_shorts: frozenset[str],
    asker: Asker,
) -> list[Question]:
    """Questions to sample answers to when preferences are made, in training phrasings: every subject
    once in one of its kinds, and names that do not exist and were not used for training."""
    known = []
    for subject in subjects:
        kind = subject.kinds[int(asker.generator.integers(len(subject.kinds)))]
        known.append(_question(subject, kind, TRAINING, "trained", asker, decorated=True))
    return known + nonexistent_questions(unknown_names, known_shorts, TRAINING, asker)
