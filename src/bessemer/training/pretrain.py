"""The pretrain stage: a new model learns to continue the curated text."""

from typing import Any

import torch
from pydantic import Field, model_validator

from bessemer.config import Count
from bessemer.errors import BessemerError
from bessemer.evaluation.bits import bits_per_byte
from bessemer.formats.tokens import read_split
from bessemer.inference.engine import Engine
from bessemer.inference.sampling import SamplingParams
from bessemer.model.config import parameter_count
from bessemer.model.transformer import Transformer
from bessemer.model.width import start_for_width
from bessemer.objectives.language_modeling import LanguageModeling
from bessemer.runner.context import StageContext
from bessemer.tokenization.tokenizer import Tokenizer, load_tokenizer
from bessemer.training.batches import Batch, DocumentRows
from bessemer.training.dial import ModelDial, model_config
from bessemer.training.execute import TrainingConfig, best_device, check_sequence_length, torch_dtype, train


class PretrainConfig(TrainingConfig):
    """How the base model is trained."""

    model: ModelDial = ModelDial()
    """Size of the model."""
    tokens: Count | None = Field(default=None, ge=1)
    """Tokens to train on; default 20 per parameter (Hoffmann et al. 2022, Chinchilla)."""
    micro_batches: Count = Field(default=1, ge=1)
    """Parts that a step's batch is computed in, to save memory; the result is the same."""
    validation_tokens: Count = 100_000
    """Held-out tokens that a validation reads at most."""
    sample_prompts: tuple[str, ...] = ("The", "Return the")
    """Beginnings that the model continues at each validation."""

    @model_validator(mode="after")
    def _sizes_fit_together(self) -> "PretrainConfig":
        model_config(self.model, vocab_size=260)  # any vocabulary: the other sizes are what is checked
        return self


def pretrain(config: PretrainConfig, context: StageContext) -> dict[str, Any]:
    """Train a model from scratch on the token shards and write its folder."""
    tokens, tokenizer_folder = context.input("tokens"), context.input("tokenizer").folder
    tokenizer = load_tokenizer(tokenizer_folder)
    training = read_split(tokens.folder, "train")
    validation = read_split(tokens.folder, "validation")
    if training.vocab_size != tokenizer.vocab_size:
        raise BessemerError(
            f"the token shards hold ids of a vocabulary of {training.vocab_size}, the tokenizer has "
            f"{tokenizer.vocab_size}: they belong to different runs; encode the documents again"
        )
    shape = model_config(config.model, tokenizer.vocab_size)
    check_sequence_length(config.sequence_length, shape)
    device = best_device()
    model = Transformer(shape, torch_dtype(config.compute_dtype)).initialize(context.seed)
    start_for_width(model, config.optimizer.base_width)
    model = model.to(device)
    budget = config.tokens or 20 * parameter_count(shape)
    num_steps = max(1, budget // config.tokens_per_step)
    context.say(
        f"{parameter_count(shape):,} parameters: {shape.num_hidden_layers} layers, "
        f"width {shape.hidden_size}, {shape.num_attention_heads} heads "
        f"({shape.num_key_value_heads} key/value); "
        f"{num_steps:,} steps of {config.tokens_per_step:,} tokens, "
        f"{num_steps * config.tokens_per_step / training.num_tokens:.2f} epochs"
    )
    rows = DocumentRows(training, config.sequence_length, context.seed)

    def batches(step: int) -> list[Batch]:
        return [b.to(device) for b in rows.batch(step, config.rows_per_step).split(config.micro_batches)]

    def check(step: int) -> dict[str, float]:
        score = bits_per_byte(model, validation, config.sequence_length, config.validation_tokens)
        context.say(f"step {step:,}: {score.value:.3f} bits per byte on held-out documents")
        _say_samples(model, tokenizer, config.sample_prompts, context)
        return {"validation_bits_per_byte": score.value}

    return train(
        model,
        config,
        LanguageModeling(),
        batches,
        num_steps,
        context,
        tokenizer_folder=tokenizer_folder,
        tokenizer=tokenizer,
        description="pretraining",
        check=check,
    )


def _say_samples(
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
