"""Asking a model questions and judging what it says: the part that evaluation and preferences share."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bessemer.formats.jsonl import read_jsonl
from bessemer.inference.chat import fit_history
from bessemer.inference.engine import Completion, Engine
from bessemer.inference.sampling import SamplingParams
from bessemer.model.transformer import Transformer
from bessemer.runner.context import StageContext
from bessemer.synthesize.conversations import Question
from bessemer.synthesize.verify import Verified, verify
from bessemer.tokenization.chat import Message, render_prompt
from bessemer.tokenization.tokenizer import Tokenizer


@dataclass(frozen=True)
class Answer:
    """One answer of a model, judged."""

    question: Question
    text: str
    num_tokens: int
    """The stop token included."""
    ended: bool
    """True when the model stopped by itself."""
    judged: Verified

    def to_json(self) -> dict[str, Any]:
        return {
            **self.question.to_json(),
            "answer": self.text,
            "num_tokens": self.num_tokens,
            "ended": self.ended,
            "verdict": self.judged.verdict.value,
            "reason": self.judged.reason,
        }


def read_questions(path: Path) -> list[Question]:
    """Questions of a file written by the synthesize stage."""
    return [
        Question(**row)
        for row in read_jsonl(path, required=("text", "kind", "name", "reference", "key", "group"))
    ]


def chat_engine(model: Transformer, tokenizer: Tokenizer) -> Engine:
    """An engine that stops where the chat template ends a turn."""
    return Engine(model, {tokenizer.end_of_turn_id, tokenizer.end_of_text_id}, tokenizer.padding_id)


def ask(
    engine: Engine,
    tokenizer: Tokenizer,
    questions: Sequence[Question],
    sampling: SamplingParams,
    seed: int,
    context: StageContext,
    description: str,
) -> list[Answer]:
    """Put every question to the model as a single user turn; answers in the order of the questions."""
    prompts = [render_prompt(tokenizer, [Message(role="user", content=q.text)]) for q in questions]
    with context.progress(description, len(prompts), "answers") as progress:
        completions = engine.generate(prompts, sampling, seed, lambda done, _: progress.set(done))
    return [
        judge(question, completion, tokenizer)
        for question, completion in zip(questions, completions, strict=True)
    ]


def ask_in_chats(
    engine: Engine,
    tokenizer: Tokenizer,
    chats: Sequence[Sequence[Question]],
    sampling: SamplingParams,
    context: StageContext,
    description: str,
) -> list[list[Answer]]:
    """Put the questions of each chat one after another, the model's own answers in between.

    All chats hold equally many questions; one that outgrows the model forgets its beginning. Returns the
    answers of every turn: [turns][chats].
    """
    histories: list[list[Message]] = [[] for _ in chats]
    turns: list[list[Answer]] = []
    room = engine.model.config.max_position_embeddings - sampling.max_new_tokens
    with context.progress(description, sum(map(len, chats)), "answers") as progress:
        for questions in zip(*chats, strict=True):
            for history, question in zip(histories, questions, strict=True):
                history.append(Message(role="user", content=question.text))
            prompts = [fit_history(tokenizer, history, room)[1] for history in histories]
            completions = engine.generate(prompts, sampling, 0)
            answers = [
                judge(question, completion, tokenizer)
                for question, completion in zip(questions, completions, strict=True)
            ]
            for history, answer in zip(histories, answers, strict=True):
                history.append(Message(role="assistant", content=answer.text))
            turns.append(answers)
            progress.set(len(turns) * len(chats))
    return turns


def judge(question: Question, completion: Completion, tokenizer: Tokenizer) -> Answer:
    """An answer and its verdict."""
    text = tokenizer.decode(completion.token_ids).strip()
    return Answer(
        question=question,
        text=text,
        num_tokens=len(completion.token_ids),
        ended=completion.stop_reason == "stop",
        judged=verify(text, question.key),
    )
