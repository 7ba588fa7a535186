"""The evaluate stage: every model of the recipe, side by side, with intervals."""

import json
from collections.abc import Sequence
from typing import Any

from pydantic import Field

from bessemer.config import Config, Count
from bessemer.evaluation.answers import Answer, ask, ask_in_chats, chat_engine, read_questions
from bessemer.evaluation.bits import bits_per_byte
from bessemer.evaluation.scores import evaluate_alone
from bessemer.evaluation.statistics import Estimate, mean, proportion
from bessemer.evaluation.table import format_table
from bessemer.formats.jsonl import write_jsonl
from bessemer.formats.tokens import read_split
from bessemer.inference.sampling import SamplingParams
from bessemer.model.config import flops_per_token
from bessemer.model.folder import load_model
from bessemer.model.precision import ComputeDtype, resolve_dtype
from bessemer.runner.context import StageContext
from bessemer.runner.files import write_atomically
from bessemer.runner.manifest import Artifact
from bessemer.synthesize.conversations import Question
from bessemer.synthesize.stage import QUESTIONS
from bessemer.synthesize.verify import KEY_DEFINITION, Verdict
from bessemer.tokenization.tokenizer import load_tokenizer
from bessemer.training.execute import best_device, check_sequence_length

RESULTS = "results.json"


class EvaluateConfig(Config):
    """What is measured."""

    max_new_tokens: Count = 64
    """Longest answer in tokens; a longer one counts as not ended."""
    sequence_length: Count = Field(default=256, ge=1)
    """Window of the bits-per-byte measurement, in tokens."""
    validation_tokens: Count = Field(default=100_000, ge=1)
    """Held-out tokens that are scored at most."""
    max_questions: Count | None = None
    """Ask only the first questions of each group; default all."""
    chats: Count = Field(default=60, ge=0)
    """Chats of several questions that are held with each model; 0 leaves them out."""
    chat_turns: Count = Field(default=5, ge=2)
    """Questions a chat."""
    compute_dtype: ComputeDtype = "float32"
    """Type of the matrix products."""


def evaluate(config: EvaluateConfig, context: StageContext) -> dict[str, Any]:
    """Write results.json (a row a model), answers-<model>.jsonl, and summary.txt with the table.

    A model already measured by a killed attempt is not measured again. Without conversations in the
    recipe, bits per byte are all there is to measure.
    """
    questions: list[Question] = []
    if context.inputs.get("conversations"):
        questions = _limited(read_questions(context.input("conversations").folder / QUESTIONS), config)
    results: dict[str, dict[str, Estimate]] = {}
    flops = 0.0
    for artifact in context.inputs["model"]:
        measured = context.scratch / f"{artifact.stage}.json"
        if not measured.exists():
            row, answers = _evaluate_model(artifact, questions, config, context)
            write_jsonl(context.output / f"answers-{artifact.stage}.jsonl", [a.to_json() for a in answers])
            spent = _generation_flops(artifact, answers)
            done = {"flops": spent, "row": {name: value.model_dump() for name, value in row.items()}}
            write_atomically(measured, json.dumps(done).encode())
        done = json.loads(measured.read_text())
        results[artifact.stage] = {name: Estimate(**value) for name, value in done["row"].items()}
        flops += done["flops"]
    table = format_table(results)
    document = {
        "key_definition": KEY_DEFINITION if questions else "",
        "models": {
            stage: {name: estimate.to_json() for name, estimate in row.items()}
            for stage, row in results.items()
        },
    }
    write_atomically(context.output / RESULTS, json.dumps(document, indent=2).encode() + b"\n")
    write_atomically(context.output / "summary.txt", f"{table}\n\n{KEY_DEFINITION}\n".encode())
    for line in [*table.splitlines(), *([KEY_DEFINITION] if questions else [])]:
        context.say(line)
    final = results[context.inputs["model"][-1].stage]
    return {name: estimate.value for name, estimate in final.items()} | {"flops": flops}


def _generation_flops(artifact: Artifact, answers: Sequence[Answer]) -> float:
    """Forward passes over the tokens drawn."""
    shape = load_model(artifact.folder).config
    return flops_per_token(shape, 64) / 3 * sum(answer.num_tokens for answer in answers)


def _evaluate_model(
    artifact: Artifact, questions: Sequence[Question], config: EvaluateConfig, context: StageContext
) -> tuple[dict[str, Estimate], list[Answer]]:
    """All figures of one model, and its answers."""
    tokenizer = load_tokenizer(artifact.folder)
    device = best_device()
    dtype = resolve_dtype(config.compute_dtype, device)
    model = load_model(artifact.folder, compute_dtype=dtype, device=device)
    check_sequence_length(config.sequence_length, model.config)
    validation = read_split(context.input("tokens").folder, "validation")
    bits = bits_per_byte(evaluate_alone(model), validation, config.sequence_length, config.validation_tokens)
    if not questions:
        return {"bits_per_byte": bits}, []
    greedy = SamplingParams(temperature=0, max_new_tokens=config.max_new_tokens)
    label = f"{artifact.stage} answers"
    engine = chat_engine(model, tokenizer)
    answers = ask(engine, tokenizer, questions, greedy, 0, context, label)
    row = {"bits_per_byte": bits, **figures(answers)}
    chats = chats_of(questions, config.chats, config.chat_turns)
    if chats:
        turns = ask_in_chats(engine, tokenizer, chats, greedy, context, f"{artifact.stage} chats")
        row |= chat_figures(turns)
    return row, answers


def chats_of(questions: Sequence[Question], num_chats: int, num_turns: int) -> list[list[Question]]:
    """Chats whose every fifth question is about a name that does not exist, the others about taught objects.

    Evenly spread over the questions of each group; fewer chats where there are too few questions.
    """
    taught = [question for question in questions if question.group == "trained"]
    nonexistent = [question for question in questions if question.group == "nonexistent"]
    wanted = [(chat + turn) % 5 == 4 for chat in range(num_chats) for turn in range(num_turns)]
    while wanted and (wanted.count(False) > len(taught) or wanted.count(True) > len(nonexistent)):
        wanted = wanted[:-num_turns]
    spread = {
        True: iter(nonexistent[:: len(nonexistent) // max(1, wanted.count(True)) or 1]),
        False: iter(taught[:: len(taught) // max(1, wanted.count(False)) or 1]),
    }
    asked = [next(spread[is_nonexistent]) for is_nonexistent in wanted]
    return [asked[start : start + num_turns] for start in range(0, len(asked), num_turns)]


def chat_figures(turns: Sequence[Sequence[Answer]]) -> dict[str, Estimate]:
    """Share of right answers over all turns after the first, and at the last one."""

    def right(answers: Sequence[Answer]) -> Estimate:
        return proportion(sum(a.judged.verdict is Verdict.RIGHT for a in answers), len(answers))

    return {
        "answer_accuracy_in_chat": right([answer for turn in turns[1:] for answer in turn]),
        "answer_accuracy_last_turn": right(turns[-1]),
    }


def figures(answers: Sequence[Answer]) -> dict[str, Estimate]:
    """Shares and lengths from judged answers, each with its interval."""

    def share(group: Sequence[Answer], verdict: Verdict) -> Estimate:
        return proportion(sum(a.judged.verdict is verdict for a in group), len(group))

    taught = [a for a in answers if a.question.group == "trained"]
    held_out = [a for a in answers if a.question.group == "held_out_objects"]
    nonexistent = [a for a in answers if a.question.group == "nonexistent"]
    by_kind = {
        f"answer_accuracy_{kind}": share([a for a in taught if a.question.kind == kind], Verdict.RIGHT)
        for kind in ("purpose", "module", "returns", "arguments")
    }
    return {
        "answer_accuracy": share(taught, Verdict.RIGHT),
        "answer_accuracy_held_out_objects": share(held_out, Verdict.RIGHT),
        "refused_held_out_objects": share(held_out, Verdict.REFUSED),
        "refused_known": share(taught, Verdict.REFUSED),
        "made_up_rate": share(nonexistent, Verdict.WRONG),
        "stop_rate": proportion(sum(a.ended for a in answers), len(answers)),
        "answer_tokens": mean([a.num_tokens for a in answers]),
        **by_kind,
    }


def _limited(questions: list[Question], config: EvaluateConfig) -> list[Question]:
    if config.max_questions is None:
        return questions
    seen: dict[str, int] = {}
    kept = []
    for question in questions:
        seen[question.group] = seen.get(question.group, 0) + 1
        if seen[question.group] <= config.max_questions:
            kept.append(question)
    return kept
