"""The synthesize stage: questions and answers by rule from the curated documentation."""

import re
from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np
from pydantic import Field, field_validator, model_validator

from bessemer.config import Config, Count
from bessemer.errors import BessemerError
from bessemer.formats.jsonl import write_jsonl
from bessemer.runner.context import StageContext
from bessemer.synthesize.conversations import (
    Asker,
    ambiguous_shorts,
    choose_subjects,
    fabricated_names,
    follow_up_conversations,
    held_out_questions,
    known_conversations,
    nonexistent_questions,
    practice_questions,
    small_talk_conversations,
    unknown_conversations,
)
from bessemer.synthesize.documentation import Documentation, read_documentation
from bessemer.synthesize.facts import Fact
from bessemer.synthesize.phrasings import HELD_OUT, QuestionKind

CONVERSATIONS = "conversations.jsonl"
QUESTIONS = "questions.jsonl"
PRACTICE = "practice.jsonl"
FACTS = "facts.jsonl"


class SynthesizeConfig(Config):
    """Which facts are asked about, and how often."""

    objects: Count = Field(default=1100, ge=1)
    """Documented objects whose answers are taught: those that most documents mention."""
    modules: tuple[str, ...] = ()
    """Ask only about objects that lie directly in these modules, earlier ones first among objects that
    equally many documents mention; default all."""
    held_out_objects: Count = Field(default=150, ge=0)
    """Documented objects that are asked about in evaluation only."""
    max_kinds: int = Field(default=2, ge=1, le=4)
    """Kinds of question taught about one object: its purpose and others drawn at random."""
    phrasings: Mapping[QuestionKind, Count] = {"purpose": 12, "module": 4, "returns": 4, "arguments": 5}
    """Training phrasings of each question about an object, by kind; kinds left out keep the default."""
    unknown_share: float = Field(default=0.25, ge=0, lt=1)
    """Share of the conversations that ask about something that does not exist."""
    follow_up_share: float = Field(default=0.06, ge=0, lt=1)
    """Share of the conversations with a second question that refers back."""
    small_talk_repeats: int = Field(default=15, ge=0)
    """How often each greeting and the like occurs."""
    nonexistent_questions: Count = Field(default=600, ge=0)
    """Evaluation questions about names that do not exist; none of them is used for training."""
    practice_unknown: Count = Field(default=1200, ge=0)
    """Further names that do not exist, kept for preference sampling."""
    max_summary_characters: Count = 90
    """Objects with a longer first sentence are left out."""
    max_arguments: Count = 5
    """Argument lists longer than this are not asked about."""

    @field_validator("phrasings")
    @classmethod
    def _complete(cls, given: Mapping[QuestionKind, int]) -> Mapping[QuestionKind, int]:
        return {**cls.model_fields["phrasings"].default, **given}

    @model_validator(mode="after")
    def _check_shares(self) -> "SynthesizeConfig":
        if self.unknown_share + self.follow_up_share >= 1:
            raise ValueError(
                f"unknown_share {self.unknown_share} and follow_up_share {self.follow_up_share} leave no "
                "room for questions about what exists: lower one so that their sum is below 1"
            )
        return self


def synthesize(config: SynthesizeConfig, context: StageContext) -> dict[str, Any]:
    """Write conversations.jsonl (training), questions.jsonl (evaluation), practice.jsonl (preferences)
    and facts.jsonl (what the verifier holds answers against)."""
    documentation = read_documentation(
        context.input("documents").folder, config.max_summary_characters, config.max_arguments
    )
    facts, held_out = _choose(documentation, config, context)
    known = documentation.names
    shorts = frozenset(name.rpartition(".")[2] for name in known)
    ambiguous = ambiguous_shorts(known)
    generator = np.random.Generator(np.random.Philox(context.seed))
    asker = Asker(generator, _filling_words(documentation))
    subjects = choose_subjects(facts, ambiguous, config.max_kinds, generator)
    held_out_subjects = choose_subjects(held_out, ambiguous, config.max_kinds, generator)
    conversations = known_conversations(subjects, config.phrasings, asker)
    others = config.unknown_share + config.follow_up_share
    total = round(len(conversations) / (1 - others))
    num_unknown = round(total * config.unknown_share)
    names = fabricated_names(
        facts, known, config.nonexistent_questions + config.practice_unknown + num_unknown, generator
    )
    for_evaluation = names[: config.nonexistent_questions]
    for_practice = names[config.nonexistent_questions :][: config.practice_unknown]
    for_training = names[config.nonexistent_questions + config.practice_unknown :]
    conversations += unknown_conversations(for_training, shorts, asker)
    conversations += follow_up_conversations(subjects, round(total * config.follow_up_share), asker)
    conversations += small_talk_conversations(config.small_talk_repeats, generator)
    questions = [
        *held_out_questions(subjects, "trained", asker),
        *held_out_questions(held_out_subjects, "held_out_objects", asker),
        *nonexistent_questions(for_evaluation, shorts, HELD_OUT, asker),
    ]
    practice = practice_questions(subjects, for_practice, shorts, asker)
    kinds = Counter(row["kind"] for row in conversations)
    write_jsonl(context.output / CONVERSATIONS, conversations)
    write_jsonl(context.output / QUESTIONS, [question.to_json() for question in questions])
    write_jsonl(context.output / PRACTICE, [question.to_json() for question in practice])
    rows = [{**fact.to_json(), "group": "trained"} for fact in facts]
    rows += [{**fact.to_json(), "group": "held_out_objects"} for fact in held_out]
    write_jsonl(context.output / FACTS, rows)
    context.say(
        f"{len(conversations):,} conversations about {len(facts):,} of {len(documentation.facts):,} "
        f"usable objects ({len(known):,} documented); {len(questions):,} evaluation questions"
    )
    return {
        "documented_objects": len(known),
        "usable_objects": len(documentation.facts),
        "objects": len(facts),
        "held_out_objects": len(held_out),
        "conversations": len(conversations),
        "questions": len(questions),
        **{f"conversations_{kind}": count for kind, count in sorted(kinds.items())},
    }


def _filling_words(documentation: Documentation) -> list[str]:
    """Words for `{word}`: those of the corpus but for those of the held-out phrasings, which stay new."""
    held_out = {
        word.lower() for group in HELD_OUT.values() for text in group for word in re.findall(r"\w+", text)
    }
    return [word for word in documentation.words if word not in held_out] or ["this"]


def _choose(
    documentation: Documentation, config: SynthesizeConfig, context: StageContext
) -> tuple[list[Fact], list[Fact]]:
    """Objects to teach, those that most documents mention, and objects to hold out, drawn from the others."""
    wanted = config.objects + config.held_out_objects
    facts = documentation.facts
    if config.modules:
        facts = [fact for fact in facts if fact.module in config.modules]
    available = len(facts)
    if available < 10:
        raise BessemerError(
            f"only {available} documented objects with a usable first sentence were found in the documents: "
            "collect more documentation (collect.source: builtin), name more synthesize.modules, "
            "or raise synthesize.max_summary_characters"
        )
    if available < wanted:
        context.say(f"{wanted:,} objects wanted, {available:,} found: using what there is")
    num_held_out = round(min(wanted, available) * config.held_out_objects / wanted)
    num_taught = min(wanted, available) - num_held_out
    rank = {module: number for number, module in enumerate(config.modules)}
    by_mentions = sorted(
        facts, key=lambda fact: (-documentation.mentions[fact.short], rank.get(fact.module, 0), fact.name)
    )
    generator = np.random.Generator(np.random.Philox([context.seed, 1]))
    taught = [by_mentions[i] for i in generator.permutation(num_taught)]
    others = by_mentions[num_taught:]
    return taught, [others[i] for i in generator.permutation(len(others))[:num_held_out]]
