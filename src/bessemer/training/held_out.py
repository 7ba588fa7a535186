"""The validation of stages that train on running text: bits per byte of each corpus, and samples."""

from collections.abc import Mapping

import torch

from bessemer.evaluation.bits import bits_per_byte
from bessemer.formats.tokens import TokenSplit
from bessemer.inference.engine import Engine
from bessemer.inference.sampling import SamplingParams
from bessemer.model.transformer import Transformer
from bessemer.runner.context import StageContext
from bessemer.tokenization.tokenizer import Tokenizer
from bessemer.training.corpora import CorpusConfig

VALIDATION = "validation_bits_per_byte"


def validate(
    model: Transformer,
    step: int,
    validation: Mapping[str, TokenSplit],
    config: CorpusConfig,
    tokenizer: Tokenizer,
    context: StageContext,
) -> dict[str, float]:
    """Bits per byte over all corpora (their mean) and, where there are several, of each; says them."""
    scores = {
        name: bits_per_byte(model, split, config.sequence_length, config.validation_tokens).value
        for name, split in validation.items()
    }
    mean = sum(scores.values()) / len(scores)
    parts = ", ".join(f"{name} {score:.3f}" for name, score in scores.items())
    detail = f" ({parts})" if len(scores) > 1 else ""
    context.say(f"step {step:,}: {mean:.3f} bits per byte on held-out documents{detail}")
    say_samples(model, tokenizer, config.sample_prompts, context)
    each = {f"{VALIDATION}/{name}": score for name, score in scores.items()} if len(scores) > 1 else {}
    return {VALIDATION: mean, **each}


def say_samples(
    model: Transformer, tokenizer: Tokenizer, prompts: tuple[str, ...], context: StageContext
) -> None:
    """Print how the model goes on from each prompt."""
    if not prompts:
        return
    was_training = model.training
    model.eval()
    engine = Engine(model, {tokenizer.end_of_text_id}, tokenizer.padding_id)
    sampling = SamplingParams(temperature=0.7, max_new_tokens=32)
    with torch.inference_mode():
        completions = engine.generate([tokenizer.encode(prompt) for prompt in prompts], sampling, seed=0)
    for prompt, completion in zip(prompts, completions, strict=True):
        text = prompt + tokenizer.decode(completion.token_ids)
        context.say("  " + " ".join(text.split()))
    model.train(was_training)
