"""The validation of stages that train on running text: bits per byte of each corpus, and samples."""

import math
from collections.abc import Mapping

import torch

from bessemer.errors import BessemerError
from bessemer.evaluation.bits import bits_per_byte
from bessemer.formats.tokens import TokenSplit
from bessemer.inference.engine import Engine
from bessemer.inference.sampling import SamplingParams
from bessemer.model.config import ModelConfig
from bessemer.runner.context import StageContext
from bessemer.tokenization.tokenizer import Tokenizer
from bessemer.training.corpora import CorpusConfig
from bessemer.training.parallel.ranks import View

VALIDATION = "validation_bits_per_byte"


def validate(
    view: View,
    step: int,
    validation: Mapping[str, TokenSplit],
    config: CorpusConfig,
    tokenizer: Tokenizer,
    context: StageContext,
) -> dict[str, float]:
    """Bits per byte over all corpora (their mean) and, where there are several, of each; says them."""
    scores = {
        name: bits_per_byte(view.evaluate, split, config.sequence_length, config.validation_tokens).value
        for name, split in validation.items()
    }
    mean = sum(scores.values()) / len(scores)
    parts = ", ".join(f"{name} {score:.3f}" for name, score in scores.items())
    detail = f" ({parts})" if len(scores) > 1 else ""
    context.say(f"step {step:,}: {mean:.3f} bits per byte on held-out documents{detail}")
    if math.isfinite(mean):  # a ruined model has no next token; the guard says what to do about it
        say_samples(view, tokenizer, config.sample_prompts, context)
    each = {f"{VALIDATION}/{name}": score for name, score in scores.items()} if len(scores) > 1 else {}
    return {VALIDATION: mean, **each}


def check_prompts(config: CorpusConfig, tokenizer: Tokenizer, shape: ModelConfig) -> None:
    """Raises BessemerError for a sample prompt that the model could not continue: before training, not at its
    first validation."""
    for prompt in config.sample_prompts:
        num_tokens = len(tokenizer.encode(prompt))
        if num_tokens >= shape.max_position_embeddings:
            shown = prompt if len(prompt) <= 30 else f"{prompt[:30]}…"
            raise BessemerError(
                f"sample_prompts: {shown!r} has {num_tokens} tokens and leaves no room within the model's "
                f"{shape.max_position_embeddings} positions: shorten it"
            )


def say_samples(view: View, tokenizer: Tokenizer, prompts: tuple[str, ...], context: StageContext) -> None:
    """Print how the model goes on from each prompt."""
    if not prompts:
        return
    token_ids = [tokenizer.encode(prompt) for prompt in prompts]
    sampling = SamplingParams(temperature=0.7, max_new_tokens=32)
    if view.whole is None:
        assert view.generate is not None, "of a model that nobody has whole"
        answers = view.generate(token_ids, sampling, 0, {tokenizer.end_of_text_id})
    else:
        was_training = view.whole.training
        view.whole.eval()
        engine = Engine(view.whole, {tokenizer.end_of_text_id}, tokenizer.padding_id)
        with torch.inference_mode():
            answers = [each.token_ids for each in engine.generate(token_ids, sampling, seed=0)]
        view.whole.train(was_training)
    for prompt, answer in zip(prompts, answers, strict=True):
        context.say("  " + " ".join((prompt + tokenizer.decode(answer)).split()))
