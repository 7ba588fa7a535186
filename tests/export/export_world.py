"""A small run through the real runner: real collection, curation and tokenizer, random models, an
evaluation that is written rather than measured, and the real export."""

import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bessemer.config import Config
from bessemer.evaluation.statistics import Estimate, mean, proportion
from bessemer.formats.jsonl import write_jsonl
from bessemer.model import ModelConfig, Transformer
from bessemer.recipe import parse_recipe
from bessemer.runner.context import Metrics, StageContext
from bessemer.runner.run import StageResult, run_recipe
from bessemer.stages import STAGES, Need, Stage, stage_table
from bessemer.tokenization.tokenizer import load_tokenizer
from bessemer.training.finish import write_model
from bessemer.training.parallel.ranks import Alone

ATTACK = "<script>alert(1)</script>"
"""Stands in texts, URLs, questions and answers; must never stand in a page unescaped."""

DROPPED_TEXT = f"Too short to keep. {ATTACK}"

RECIPE = """
name: small
seed: 1
stages:
  - collect: {path: PAGES, url_column: url}
  - curate:
      workers: 1
      min_language_score: 0.1
      near_duplicates: off
      rules: {"*": off, gopher.word_count: on}
  - tokenizer: {vocab_size: 300}
  - pretrain: {name: base}
  - sft
  - evaluate
  - export
"""

_NOUNS = (
    "river",
    "mountain",
    "teacher",
    "window",
    "garden",
    "letter",
    "engine",
    "market",
    "bridge",
    "farmer",
)
_VERBS = ("crosses", "watches", "repairs", "describes", "follows", "carries", "measures", "paints")
_ADJECTIVES = ("old", "quiet", "narrow", "bright", "heavy", "distant", "green", "wooden", "careful", "early")


class NothingToChoose(Config):
    """For stages that only write."""


def random_model(config: NothingToChoose, context: StageContext) -> Metrics:
    """A model of random weights, with a curve as training would log it."""
    folder = context.input("tokenizer").folder
    tokenizer = load_tokenizer(folder)
    shape = ModelConfig(
        vocab_size=tokenizer.vocab_size,
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=128,
        qk_norm=True,
    )
    model = Transformer(shape).initialize(context.seed)
    for step in range(1, 31):
        context.log(step, loss=5.0 / step, tokens=step * 64, tokens_per_s=1.0)
    context.log(30, validation_bits_per_byte=2.5)
    write_model(model, Alone(), context.output, folder, tokenizer, context.stage)
    return {"parameters": 1, "steps": 30, "loss": 5.0 / 30, "conversations": 0, "flops": 1e9}


def answer_rows(model: str) -> list[dict[str, Any]]:
    """Judged answers: the tuned model is right about half of what was taught, the base model never."""
    rows = []
    for number in range(8):
        kind = ("purpose", "returns")[number % 2]
        is_right = model == "sft" and number < 4
        rows.append(_row(number, kind, "trained", "right" if is_right else "wrong"))
    rows.append(_row(8, "purpose", "held_out_objects", "refused"))
    rows.append(_row(9, "purpose", "nonexistent", "right" if model == "sft" else "wrong"))
    return rows


def _row(number: int, kind: str, group: str, verdict: str) -> dict[str, Any]:
    return {
        "text": f"What is thing {number}? {ATTACK}",
        "kind": kind,
        "name": f"thing.{number}",
        "reference": f"It is reference {number} | {ATTACK}",
        "key": None if group == "nonexistent" else f"reference {number}",
        "group": group,
        "answer": f"Answer {number} {ATTACK}" if verdict != "wrong" or number else "",
        "num_tokens": 7,
        "ended": True,
        "verdict": verdict,
        "reason": "",
    }


def written_evaluation(config: NothingToChoose, context: StageContext) -> Metrics:
    """Files as the evaluate stage writes them."""
    models: dict[str, dict[str, Any]] = {}
    for artifact in context.inputs["model"]:
        rows = answer_rows(artifact.stage)
        right = sum(row["verdict"] == "right" for row in rows if row["group"] == "trained")
        made_up = sum(row["verdict"] == "wrong" for row in rows if row["group"] == "nonexistent")
        figures = {
            "bits_per_byte": Estimate(value=2.5, low=2.25, high=2.75, n=11),
            "answer_accuracy": proportion(right, 8),
            "answer_accuracy_held_out_objects": proportion(0, 1),
            "made_up_rate": proportion(made_up, 1),
            "stop_rate": proportion(10, 10),
            "answer_tokens": mean([7.0]),
            "answer_accuracy_module": proportion(0, 0),
        }
        models[artifact.stage] = {name: figure.to_json() for name, figure in figures.items()}
        write_jsonl(context.output / f"answers-{artifact.stage}.jsonl", rows)
    document = {"key_definition": "Right means right.", "models": models}
    (context.output / "results.json").write_text(json.dumps(document))
    return {"answer_accuracy": 0.5, "made_up_rate": 0.0}


TABLE = stage_table(
    [
        *(STAGES[kind] for kind in ("collect", "curate", "tokenizer", "export")),
        Stage("pretrain", NothingToChoose, (Need("tokenizer"),), "model", random_model),
        Stage("sft", NothingToChoose, (Need("tokenizer"), Need("model")), "model", random_model),
        Stage("evaluate", NothingToChoose, (Need("model", every=True),), "evaluation", written_evaluation),
    ]
)


def run_small(
    root: Path, *, text: str = RECIPE, overrides: Sequence[str] = (), until: str | None = None
) -> list[StageResult]:
    """Run the recipe in `root/runs/small`."""
    pages = root / "pages.jsonl"
    write_jsonl(pages, _pages())
    recipe = parse_recipe(text.replace("PAGES", str(pages)), "small.yaml", overrides, TABLE)
    (root / "runs").mkdir(exist_ok=True)
    return run_recipe(recipe, root / "runs/small", Quiet(), until=until)


def _pages() -> list[dict[str, str]]:
    generator = random.Random(0)
    pages = [{"text": DROPPED_TEXT, "url": f"http://pages.test/short?{ATTACK}"}]
    for number in range(3):
        sentences = [_sentence(generator) for _ in range(20)]
        sentences.insert(1, f"The word {ATTACK} is what the writer of the page has put into it.")
        pages.append({"text": "\n".join(sentences), "url": f"http://pages.test/{number}"})
    return pages


def _sentence(generator: random.Random) -> str:
    words = [generator.choice(words) for words in (_ADJECTIVES, _NOUNS, _VERBS, _ADJECTIVES, _NOUNS, _NOUNS)]
    return "The {} {} {} the {} {} and then it goes to the {}".format(*words) + f" of {generator.random()}."


class Quiet:
    """A reporter that keeps what was said."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def say(self, text: str) -> None:
        self.said.append(text)

    def progress(self, description: str, total: float | None, unit: str) -> "NoProgress":
        return NoProgress()


class NoProgress:
    def advance(self, amount: float = 1) -> None: ...
    def set(self, completed: float, **shown: object) -> None: ...
    def __enter__(self) -> "NoProgress":
        return self

    def __exit__(self, *error: object) -> None: ...
