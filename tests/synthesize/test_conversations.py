import json
import re

import numpy as np
import pytest
from synthesize_helpers import MODULES, page_of, some_facts

from bessemer.errors import BessemerError
from bessemer.synthesize.conversations import (
    Asker,
    ambiguous_shorts,
    askable_kinds,
    choose_subjects,
    follow_up_conversations,
    held_out_questions,
    known_conversations,
)
from bessemer.synthesize.facts import Fact
from bessemer.synthesize.phrasings import (
    CLOSERS,
    FILLERS,
    FOLLOW_UPS,
    HELD_OUT,
    NOUNS,
    OPENERS,
    REFUSAL,
    REFUSAL_KEY,
    SMALL_TALK,
    TRAINING,
    VERBS,
)
from bessemer.synthesize.stage import SynthesizeConfig, synthesize
from bessemer.synthesize.verify import Verdict, verify
from stage_helpers import contents, said, stage_context, write_documents

CONFIG = SynthesizeConfig(
    objects=40,
    held_out_objects=12,
    phrasings={"purpose": 4},
    nonexistent_questions=120,
    practice_unknown=80,
)
FACTS = some_facts()
AMBIGUOUS = ambiguous_shorts([fact.name for fact in FACTS])


def generator(seed=0):
    return np.random.Generator(np.random.Philox(seed))


@pytest.fixture(scope="module")
def documents(tmp_path_factory):
    pages = [(m, page_of(m, [fact for fact in FACTS if fact.module == m])) for m in MODULES]
    return write_documents(tmp_path_factory.mktemp("documents"), [pages])


@pytest.fixture(scope="module")
def made(documents, tmp_path_factory):
    """The four files of one run of the stage, as lists of rows."""
    context = stage_context(tmp_path_factory.mktemp("work"), documents)
    metrics = synthesize(CONFIG, context)
    rows = {
        path.stem: [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        for path in context.output.glob("*.jsonl")
    }
    return {**rows, "metrics": metrics}


def asked(made, role="user"):
    return [m["content"] for row in made["conversations"] for m in row["messages"] if m["role"] == role]


def as_pattern(phrasing, *, decorated=False):
    """A regular expression of everything that a phrasing can be filled to."""
    name = r"`?[\w.]+`?(?:\(\))?"
    body = re.escape(phrasing).replace(r"\{name\}", name).replace(r"\{short\}", name)
    body = body.replace(r"\{word\}", r"[a-z]+")
    for slot, words in (("noun", NOUNS), ("verb", VERBS)):
        body = body.replace(rf"\{{{slot}\}}", f"(?:{'|'.join(map(re.escape, words))})")
    fillers = [re.escape(filler).replace(r"\{word\}", r"\w+") for filler in FILLERS]
    before = f"(?i:{'|'.join([*map(re.escape, OPENERS), *fillers])})?"
    after = f"(?:{'|'.join(map(re.escape, CLOSERS))})?"
    return re.compile(f"{before}{body}{after}" if decorated else body)


def patterns_of(phrasings, *, decorated=False):
    return {
        kind: [as_pattern(phrasing, decorated=decorated) for phrasing in group]
        for kind, group in phrasings.items()
    }


def sentences_of(phrasing):
    levelled = re.sub(r"\{\w+\}", "NAME", phrasing).lower()
    return {" ".join(re.findall(r"\w+", part)) for part in re.split(r"(?<=[.?!])\s+|: ", levelled)}


def test_held_out_phrasings_never_occur_in_training(made):
    patterns = [as_pattern(phrasing) for group in HELD_OUT.values() for phrasing in group]
    for text in [*asked(made), *(row["text"] for row in made["practice"])]:
        assert not any(pattern.search(text) for pattern in patterns), text


def test_no_held_out_phrasing_shares_a_whole_sentence_with_a_training_one():
    training = {
        s for group in (*TRAINING.values(), *FOLLOW_UPS.values()) for p in group for s in sentences_of(p)
    }
    training |= {s for questions, _ in SMALL_TALK for p in questions for s in sentences_of(p)}
    for group in HELD_OUT.values():
        for phrasing in group:
            fresh = sentences_of(phrasing) - training
            assert fresh, f"{phrasing!r} says nothing that training does not"


def test_every_evaluation_question_is_in_a_held_out_phrasing_and_every_training_one_is_not(made):
    held_out, training = patterns_of(HELD_OUT), patterns_of(TRAINING, decorated=True)
    for row in made["questions"]:
        assert any(pattern.fullmatch(row["text"]) for pattern in held_out[row["kind"]]), row
    for row in made["practice"]:
        assert any(pattern.fullmatch(row["text"]) for pattern in training[row["kind"]]), row


def test_names_that_do_not_exist_are_apart_in_evaluation_practice_and_training(made):
    def unknown(rows):
        return {row["name"] for row in rows if row["group"] == "nonexistent"}

    evaluation, practice = unknown(made["questions"]), unknown(made["practice"])
    training = {name for row in made["conversations"] if row["kind"] == "unknown" for name in row["names"]}
    assert (len(evaluation), len(practice)) == (120, 80)
    assert evaluation.isdisjoint(practice)
    assert evaluation.isdisjoint(training)
    assert practice.isdisjoint(training)
    real = {fact.name for fact in FACTS}
    assert real.isdisjoint(evaluation | practice | training)
    texts = "\n".join([*asked(made), *(row["text"] for row in made["practice"])])
    words = set(re.findall(r"[\w.]+\w", texts))
    assert words.isdisjoint(evaluation)


def test_made_up_short_names_of_the_evaluation_never_occur_in_training_either(made):
    real = {fact.short for fact in FACTS}
    short = {
        row["name"].rpartition(".")[2] for row in made["questions"] if row["group"] == "nonexistent"
    } - real
    texts = "\n".join([*asked(made), *(row["text"] for row in made["practice"])])
    used = {word.rpartition(".")[2] for word in re.findall(r"[\w.]+\w", texts)}
    assert short
    assert used.isdisjoint(short)


def test_held_out_objects_never_occur_in_training_or_practice(made):
    held_out = {row["name"] for row in made["facts"] if row["group"] == "held_out_objects"}
    trained = {row["name"] for row in made["facts"] if row["group"] == "trained"}
    assert (len(held_out), len(trained)) == (12, 40)
    assert held_out.isdisjoint(trained)
    texts = [*asked(made), *asked(made, "assistant"), *(row["text"] for row in made["practice"])]
    words = {word for text in texts for word in re.findall(r"[\w.]+\w", text)}
    assert words.isdisjoint(held_out)
    summaries = {row["summary"] for row in made["facts"] if row["group"] == "held_out_objects"}
    assert summaries.isdisjoint(asked(made, "assistant"))
    assert {r["name"] for r in made["questions"] if r["group"] == "held_out_objects"} == held_out
    assert {r["name"] for r in made["questions"] if r["group"] == "trained"} == trained


def test_the_module_of_a_short_name_that_two_modules_have_is_never_asked(made):
    assert AMBIGUOUS, "the made-up library has such names"
    patterns = [as_pattern(p, decorated=True) for p in (*TRAINING["module"], *HELD_OUT["module"])]
    for text in [*asked(made), *(row["text"] for name in ("questions", "practice") for row in made[name])]:
        if any(pattern.fullmatch(text) for pattern in patterns):
            assert not any(re.search(rf"\b{short}\b", text) for short in AMBIGUOUS), text


def test_a_real_short_name_in_a_wrong_module_is_never_asked_for_its_module(made):
    real = {fact.short for fact in FACTS}
    for row in [*made["questions"], *made["practice"]]:
        if row["group"] == "nonexistent" and row["kind"] == "module":
            assert row["name"].rpartition(".")[2] not in real


def test_every_reference_answer_is_judged_right_by_its_own_key(made):
    for row in [*made["questions"], *made["practice"]]:
        assert verify(row["reference"], row["key"]).verdict is Verdict.RIGHT, row
        assert (row["key"] is None) == (row["group"] == "nonexistent")


def test_every_conversation_alternates_from_user_to_assistant_and_holds_text(made):
    for row in made["conversations"]:
        roles = [message["role"] for message in row["messages"]]
        assert roles == ["user", "assistant"] * (len(roles) // 2)
        assert all(message["content"].strip() for message in row["messages"])


def test_what_does_not_exist_is_declined_and_what_does_is_not(made):
    for row in made["conversations"]:
        declines = [REFUSAL_KEY in m["content"].lower() for m in row["messages"] if m["role"] == "assistant"]
        assert all(declines) if row["kind"] == "unknown" else not any(declines)
    assert REFUSAL_KEY in REFUSAL.lower()


def test_the_shares_of_the_kinds_are_those_of_the_config(made):
    kinds = [row["kind"] for row in made["conversations"] if row["kind"] != "small_talk"]
    assert kinds.count("unknown") / len(kinds) == pytest.approx(CONFIG.unknown_share, abs=0.01)
    assert kinds.count("follow_up") / len(kinds) == pytest.approx(CONFIG.follow_up_share, abs=0.01)
    assert made["metrics"]["conversations"] == len(made["conversations"])
    greetings = sum(len(questions) for questions, _ in SMALL_TALK) * CONFIG.small_talk_repeats
    assert made["metrics"]["conversations_small_talk"] == greetings


def test_a_follow_up_asks_another_question_about_the_same_object():
    rows = follow_up_conversations(choose_subjects(FACTS, AMBIGUOUS, 4, generator()), 30, Asker(generator()))
    follow_ups = {text for group in FOLLOW_UPS.values() for text in group}
    assert len(rows) == 30
    for row in rows:
        first, answer, second, other = (message["content"] for message in row["messages"])
        assert second in follow_ups
        assert answer != other
        (name,) = row["names"]
        assert name in first or name.rpartition(".")[2] in first


def test_follow_ups_are_left_out_where_nothing_has_two_answers():
    bare = Fact("a.f", "function", "Do the one thing well.", None, None, "d")
    subjects = choose_subjects([bare], frozenset({"f"}), 4, generator())
    assert follow_up_conversations(subjects, 5, Asker(generator())) == []


def test_every_kind_chosen_for_a_subject_is_taught_in_as_many_phrasings_as_wanted():
    wanted = {"purpose": 5, "module": 3, "returns": 2, "arguments": 1}
    subjects = choose_subjects(FACTS, AMBIGUOUS, 3, generator())
    rows = known_conversations(subjects, wanted, Asker(generator()))
    for subject in subjects:
        mine = [row for row in rows if row["names"] == [subject.fact.name]]
        found = {kind: [row for row in mine if row["kind"] == kind] for kind in wanted}
        assert {kind: len(group) for kind, group in found.items() if group} == {
            kind: wanted[kind] for kind in subject.kinds
        }


def test_a_subject_is_asked_for_its_purpose_and_for_others_that_have_an_answer():
    assert [s.kinds for s in choose_subjects(FACTS, AMBIGUOUS, 1, generator())] == [("purpose",)] * len(FACTS)
    for limit in (2, 4):
        for subject in choose_subjects(FACTS, AMBIGUOUS, limit, generator()):
            askable = askable_kinds(subject.fact, AMBIGUOUS)
            assert subject.kinds[0] == "purpose"
            assert len(set(subject.kinds)) == len(subject.kinds) == min(limit, len(askable))
            assert set(subject.kinds) <= set(askable)


def test_half_of_the_evaluation_and_more_asks_for_purposes_and_nothing_untaught():
    subjects = choose_subjects(FACTS, AMBIGUOUS, 2, generator())
    questions = held_out_questions(subjects, "trained", Asker(generator()))
    assert [question.name for question in questions] == [subject.fact.name for subject in subjects]
    assert all(question.kind == "purpose" for question in questions[::2])
    assert {question.kind for question in questions} == {"purpose", "module", "returns", "arguments"}
    assert all(q.kind in subject.kinds for q, subject in zip(questions, subjects, strict=True))


def test_names_that_two_modules_share_are_ambiguous():
    assert ambiguous_shorts(["a.f", "b.f", "a.g", "a.b.h"]) == {"f"}


def test_equal_seeds_give_equal_bytes_and_others_do_not(documents, tmp_path):
    outputs = []
    for name, seed in (("one", 1), ("two", 1), ("three", 2)):
        context = stage_context(tmp_path / name, documents, seed=seed)
        (context.output / "conversations.jsonl").write_text("left over from a killed attempt")
        synthesize(CONFIG, context)
        outputs.append(contents(context.output))
    assert outputs[0] == outputs[1]
    assert all(outputs[0][name] != outputs[2][name] for name in outputs[0])


def test_fewer_objects_than_wanted_are_used_as_they_are_and_said(documents, tmp_path):
    context = stage_context(tmp_path, documents)
    wanted = CONFIG.model_copy(update={"objects": 400, "held_out_objects": 100})
    metrics = synthesize(wanted, context)
    assert metrics["objects"] + metrics["held_out_objects"] == metrics["usable_objects"]
    assert metrics["held_out_objects"] == round(metrics["usable_objects"] / 5)
    assert f"500 objects wanted, {metrics['usable_objects']} found" in said(context)


def test_only_the_modules_asked_for_are_taught(documents, tmp_path):
    context = stage_context(tmp_path, documents)
    synthesize(CONFIG.model_copy(update={"modules": ("beta",)}), context)
    rows = [json.loads(line) for line in (context.output / "facts.jsonl").read_text().splitlines()]
    assert {row["name"].rpartition(".")[0] for row in rows} == {"beta"}


def test_documents_without_facts_are_an_error_with_its_mend(tmp_path):
    documents = write_documents(tmp_path / "documents", [[("a", "Some prose that documents nothing.")]])
    with pytest.raises(BessemerError, match=r"only 0 documented objects .* collect more documentation"):
        synthesize(CONFIG, stage_context(tmp_path, documents))


def test_shares_that_leave_no_room_are_refused_by_the_config():
    with pytest.raises(ValueError, match="leave no room for questions about what exists"):
        SynthesizeConfig(unknown_share=0.6, follow_up_share=0.4)


def test_kinds_left_out_of_the_phrasings_keep_their_default():
    assert set(CONFIG.phrasings) == {"purpose", "module", "returns", "arguments"}
    assert CONFIG.phrasings["purpose"] == 4
    assert CONFIG.phrasings["module"] == SynthesizeConfig().phrasings["module"]


def test_objects_that_most_documents_mention_are_taught(tmp_path):
    pages = [(m, page_of(m, [fact for fact in FACTS if fact.module == m])) for m in MODULES]
    pages += [(f"more{i}", f"Page {i} calls merge_token and open_table.") for i in range(2)]
    context = stage_context(tmp_path, write_documents(tmp_path / "documents", [pages]))
    synthesize(CONFIG.model_copy(update={"objects": 10, "held_out_objects": 3}), context)
    rows = [json.loads(line) for line in (context.output / "facts.jsonl").read_text().splitlines()]
    taught = {row["name"].rpartition(".")[2] for row in rows if row["group"] == "trained"}
    assert {"merge_token", "open_table"} <= taught
    assert sum(row["group"] == "trained" for row in rows) == 10
    assert sum(row["group"] != "trained" for row in rows) == 3
