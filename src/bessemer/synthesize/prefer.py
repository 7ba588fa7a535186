"""The prefer stage: the model answers, the documentation judges, better and worse become pairs."""

from collections.abc import Sequence
from typing import Any

from pydantic import Field

from bessemer.config import Config, Count
from bessemer.errors import BessemerError
from bessemer.evaluation.answers import Answer, ask, chat_engine, read_questions
from bessemer.formats.jsonl import read_jsonl, write_jsonl
from bessemer.inference.sampling import SamplingParams
from bessemer.model.config import flops_per_token
from bessemer.model.folder import load_model
from bessemer.runner.context import StageContext
from bessemer.synthesize.conversations import Question
from bessemer.synthesize.phrasings import REFUSAL
from bessemer.synthesize.stage import PRACTICE
from bessemer.synthesize.verify import Verdict, is_refusal
from bessemer.tokenization.tokenizer import load_tokenizer
from bessemer.training.execute import best_device

PREFERENCES = "preferences.jsonl"
_CHUNK = 512


class PreferConfig(Config):
    """How answers are sampled and paired."""

    samples: int = Field(default=4, ge=2)
    """Answers sampled to each question."""
    temperature: float = Field(default=1.0, gt=0)
    """Of the sampling; 1 is the model's own distribution."""
    max_new_tokens: Count = 64
    """Longest answer in tokens."""
    pairs_per_question: int = Field(default=2, ge=1)
    """At most this many pairs from one question."""
    balance_refusals: float = Field(default=0.95, ge=0, le=1)
    """Add pairs of a right answer over a refusal until those that reject a refusal make up this share of
    those that prefer one; with 0 the lesson of the pairs is mostly to refuse more."""
    reference_when_none_right: bool = True
    """When no sampled answer is right, the documentation's own stands in as the chosen one."""


def prefer(config: PreferConfig, context: StageContext) -> dict[str, Any]:
    """Sample, judge, pair, and write preferences.jsonl (`prompt`, `chosen`, `rejected` as messages).

    Questions are worked through in chunks; a chunk already done by a killed attempt is kept.
    """
    source = context.input("model").folder
    tokenizer = load_tokenizer(source)
    engine = chat_engine(load_model(source, device=best_device()), tokenizer)
    questions = read_questions(context.input("conversations").folder / PRACTICE)
    sampling = SamplingParams(temperature=config.temperature, max_new_tokens=config.max_new_tokens)
    counts = {"sampled": 0, "right": 0, "tokens": 0}
    rows: list[dict[str, Any]] = []
    contrasts: list[dict[str, Any]] = []
    for start in range(0, len(questions), _CHUNK):
        part = context.scratch / f"answers-{start:08}.jsonl"
        if not part.exists():
            chunk = questions[start : start + _CHUNK]
            repeated = [question for question in chunk for _ in range(config.samples)]
            label = f"sampling answers {start + 1:,}–{start + len(chunk):,} of {len(questions):,}"
            answers = ask(engine, tokenizer, repeated, sampling, context.seed + start, context, label)
            done = [
                {
                    "pairs": pair(answers[i : i + config.samples], config, context.stage),
                    "contrast": over_refusal(answers[i : i + config.samples], context.stage),
                    "right": sum(a.judged.verdict is Verdict.RIGHT for a in answers[i : i + config.samples]),
                    "tokens": sum(a.num_tokens for a in answers[i : i + config.samples]),
                }
                for i in range(0, len(answers), config.samples)
            ]
            write_jsonl(part, done)
        for row in read_jsonl(part):
            rows += row["pairs"]
            contrasts += row["contrast"]
            counts["sampled"] += config.samples
            counts["right"] += row["right"]
            counts["tokens"] += row["tokens"]
    if not rows:
        raise BessemerError(
            f"every one of {counts['sampled']:,} sampled answers was right: there is nothing to prefer. "
            "Leave out prefer and dpo, or raise prefer.temperature"
        )
    rows += balancing(rows, contrasts, config.balance_refusals)
    write_jsonl(context.output / PREFERENCES, rows)
    context.say(
        f"{len(rows):,} pairs from {counts['sampled']:,} answers to {len(questions):,} questions, "
        f"{counts['right'] / counts['sampled']:.1%} of them right"
    )
    return {
        "pairs": len(rows),
        "questions": len(questions),
        "answers": counts["sampled"],
        "right_share": counts["right"] / counts["sampled"],
        "pairs_nonexistent": sum(row["kind"] == "nonexistent" for row in rows),
        "chosen_from_reference": sum(row["chosen_source"] == "reference" for row in rows),
        "flops": flops_per_token(engine.model.config, 64) / 3 * counts["tokens"],
    }


def pair(answers: Sequence[Answer], config: PreferConfig, stage: str) -> list[dict[str, Any]]:
    """Pairs of one question: a right answer over each distinct wrong one.

    Answers cut off by the length limit are not used: they hold no end of turn to learn from.
    """
    question = answers[0].question
    right = [a.text for a in answers if a.judged.verdict is Verdict.RIGHT and a.ended]
    wrong = [a for a in answers if a.judged.verdict is not Verdict.RIGHT and a.ended]
    if right:
        chosen, chosen_source = max(sorted(set(right)), key=right.count), "sampled"
    elif config.reference_when_none_right:
        chosen, chosen_source = question.reference, "reference"
    else:
        return []
    distinct = {a.text: a for a in wrong if a.text != chosen}
    return [
        _row(question, chosen, chosen_source, rejected.text, rejected.judged.reason, stage)
        for rejected in list(distinct.values())[: config.pairs_per_question]
    ]


def over_refusal(answers: Sequence[Answer], stage: str) -> list[dict[str, Any]]:
    """A right answer over the refusal, for a question whose sampled answers were all right."""
    question = answers[0].question
    if question.key is None or any(a.judged.verdict is not Verdict.RIGHT or not a.ended for a in answers):
        return []
    return [
        _row(
            question, answers[0].text, "sampled", REFUSAL, "declines although the documentation knows", stage
        )
    ]


def balancing(
    rows: Sequence[dict[str, Any]], contrasts: Sequence[dict[str, Any]], share: float
) -> list[dict[str, Any]]:
    """Contrasts, evenly spaced, until pairs that reject a refusal are `share` of those that prefer one."""
    for_refusal = sum(is_refusal(row["chosen"][0]["content"]) for row in rows)
    against_refusal = sum(is_refusal(row["rejected"][0]["content"]) for row in rows)
    count = min(max(0, round(share * for_refusal) - against_refusal), len(contrasts))
    return [contrasts[i * len(contrasts) // count] for i in range(count)]


def _row(
    question: Question, chosen: str, chosen_source: str, rejected: str, reason: str, stage: str
) -> dict[str, Any]:
    return {
        "prompt": [{"role": "user", "content": question.text}],
        "chosen": [{"role": "assistant", "content": chosen}],
        "rejected": [{"role": "assistant", "content": rejected}],
        "kind": question.group if question.key is None else question.kind,
        "name": question.name,
        "chosen_source": chosen_source,
        "rejected_reason": reason,
        "annotator": f"verifier, answers sampled by {stage}",
    }
