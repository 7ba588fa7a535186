import pytest

from bessemer.evaluation.answers import Answer
from bessemer.synthesize.conversations import Question
from bessemer.synthesize.phrasings import REFUSAL
from bessemer.synthesize.prefer import PreferConfig, balancing, over_refusal, pair
from bessemer.synthesize.verify import verify

KNOWN = Question(
    "What is gcd?", "purpose", "math.gcd", "Return the gcd of a.", "Return the gcd of a.", "trained"
)
UNKNOWN = Question("What is zork?", "purpose", "math.zork", REFUSAL, None, "nonexistent")
RIGHT, ALSO_RIGHT = "Return the gcd of a.", "It does: return the gcd of a."


def pairs(texts, question=KNOWN, unfinished=(), **config):
    answers = [
        Answer(question, text, 5, text not in unfinished, verify(text, question.key)) for text in texts
    ]
    return pair(answers, PreferConfig(**config), "sft")


def sides(rows):
    return [(row["chosen"][0]["content"], row["rejected"][0]["content"]) for row in rows]


def test_a_right_answer_is_chosen_over_a_wrong_one():
    (row,) = pairs([RIGHT, "Wrong."])
    assert row["prompt"] == [{"role": "user", "content": "What is gcd?"}]
    assert row["chosen"] == [{"role": "assistant", "content": RIGHT}]
    assert row["rejected"] == [{"role": "assistant", "content": "Wrong."}]
    assert (row["kind"], row["name"], row["chosen_source"]) == ("purpose", "math.gcd", "sampled")
    assert row["rejected_reason"] == "misses return, the, gcd, of, a"
    assert row["annotator"] == "verifier, answers sampled by sft"


def test_the_most_frequent_right_answer_is_chosen_and_ties_fall_by_the_alphabet():
    assert sides(pairs([RIGHT, ALSO_RIGHT, ALSO_RIGHT, "Wrong."])) == [(ALSO_RIGHT, "Wrong.")]
    assert sides(pairs([RIGHT, ALSO_RIGHT, "Wrong."])) == [(ALSO_RIGHT, "Wrong.")]
    assert sides(pairs([ALSO_RIGHT, RIGHT, "Wrong."])) == [(ALSO_RIGHT, "Wrong.")]


def test_each_distinct_wrong_answer_is_rejected_once_up_to_the_limit():
    assert sides(pairs([RIGHT, "One.", "One.", "Two.", "Three."])) == [(RIGHT, "One."), (RIGHT, "Two.")]
    assert len(pairs([RIGHT, "One.", "Two.", "Three."], pairs_per_question=5)) == 3


def test_the_documentation_stands_in_when_no_answer_was_right():
    (row,) = pairs(["Wrong.", "Wrong."])
    assert sides([row]) == [(KNOWN.reference, "Wrong.")]
    assert row["chosen_source"] == "reference"
    assert pairs(["Wrong."] * 2, reference_when_none_right=False) == []


def test_there_is_no_pair_when_every_answer_was_right():
    assert pairs([RIGHT, RIGHT, ALSO_RIGHT]) == []


@pytest.mark.parametrize("cut", [RIGHT, "Wrong."])
def test_an_answer_cut_off_is_neither_chosen_nor_rejected(cut):
    found = sides(pairs([RIGHT, ALSO_RIGHT, "Wrong.", "Also wrong."], unfinished=(cut,)))
    assert all(cut not in row for row in found)
    assert found


def test_declining_what_is_known_is_rejected():
    assert sides(pairs([RIGHT, REFUSAL])) == [(RIGHT, REFUSAL)]


def test_declining_what_does_not_exist_is_chosen_over_making_it_up():
    (row,) = pairs([REFUSAL, "Return the zork of a."], UNKNOWN)
    assert sides([row]) == [(REFUSAL, "Return the zork of a.")]
    assert row["kind"] == "nonexistent"
    assert row["rejected_reason"] == "explains something that does not exist"


def test_a_pair_never_has_two_equal_sides():
    """A reference that the key does not accept could meet itself among the sampled answers."""
    odd = Question("?", "purpose", "a.b", "Something else.", "the key", "trained")
    assert pairs(["Something else.", "Something else."], odd) == []


def row(chosen, rejected):
    return {"chosen": [{"content": chosen}], "rejected": [{"content": rejected}]}


@pytest.mark.parametrize(("share", "expected"), [(0.0, 0), (0.5, 1), (0.75, 2), (1.0, 3)])
def test_contrasts_are_added_until_they_are_the_asked_share(share, expected):
    rows = [*[row(REFUSAL, "Made up.")] * 4, row(RIGHT, REFUSAL), row(RIGHT, "Wrong.")]
    contrasts = [row(f"right {i}", REFUSAL) for i in range(10)]
    added = balancing(rows, contrasts, share)
    assert len(added) == expected
    assert len({r["chosen"][0]["content"] for r in added}) == expected


def test_only_a_question_that_was_always_answered_rightly_gives_a_contrast():
    def contrast(texts, question=KNOWN):
        return over_refusal(
            [Answer(question, text, 5, True, verify(text, question.key)) for text in texts], "sft"
        )

    assert sides(contrast([RIGHT, ALSO_RIGHT])) == [(RIGHT, REFUSAL)]
    assert contrast([RIGHT, "Wrong."]) == []
    assert contrast([REFUSAL, REFUSAL], UNKNOWN) == []
