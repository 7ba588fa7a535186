"""The pretrain stage: a new model learns to continue the curated text."""

from typing import Any

from pydantic import Field, model_validator

from bessemer.config import Count
from bessemer.model.config import parameter_count
from bessemer.model.families import expert_remarks, model_type
from bessemer.model.initialization import EMBEDDING_STD
from bessemer.model.precision import resolve_dtype
from bessemer.model.transformer import Transformer
from bessemer.model.weights import DrawnWeights
from bessemer.objectives.language_modeling import LanguageModeling
from bessemer.runner.context import StageContext
from bessemer.tokenization.tokenizer import load_tokenizer
from bessemer.training.corpora import CorpusConfig, open_corpora, training_data
from bessemer.training.dial import ANY_VOCABULARY, ModelDial, model_config
from bessemer.training.execute import (
    best_device,
    check_embedding_rate,
    check_sequence_length,
    check_start,
    early_stop_of,
    train,
)
from bessemer.training.held_out import VALIDATION, check_prompts, validate
from bessemer.training.optimizers import OptimizerConfig
from bessemer.training.parallel.launch import on_ranks
from bessemer.training.parallel.layout import check_model
from bessemer.training.parallel.ranks import Ranks

BASE_WIDTH = 256
"""Width of the model on which the optimizers' default rates were tuned."""
_RATES = {"learning_rate", "muon_learning_rate", "base_width"}


class PretrainConfig(CorpusConfig):
    """How the base model is trained. Unless rates are given, the default ones are carried to its width
    (see `bessemer.model.width`)."""

    model: ModelDial = ModelDial()
    """Size of the model."""
    embedding_std: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    """Standard deviation of an untied embedding's first values; default 0.02 (GPT-2)."""
    tokens: Count | None = Field(default=None, ge=1)
    """Tokens to train on; default 20 per parameter (Hoffmann et al. 2022, Chinchilla)."""

    @model_validator(mode="before")
    @classmethod
    def _default_rates_follow_the_width(cls, data: Any) -> Any:
        """Who sets a rate means that rate; the default ones are those of BASE_WIDTH."""
        given = data.get("optimizer", {}) if isinstance(data, dict) else None
        if isinstance(given, OptimizerConfig):
            given = given.model_dump(exclude_unset=True)
        if not isinstance(given, dict) or _RATES & given.keys():
            return data
        return {**data, "optimizer": {**given, "base_width": BASE_WIDTH}}

    def _contradictions(self) -> list[str]:
        problems = super()._contradictions()
        if self.tokens is not None:
            problems += self.unread_stages(self.num_steps(self.tokens))
        try:
            shape = model_config(self.model, ANY_VOCABULARY, self.sequence_length)
            check_sequence_length(self.sequence_length, shape)
            check_embedding_rate(self.optimizer, shape)
            check_model(self.parallel, shape)
        except ValueError as error:
            problems.append(str(error))
        if self.embedding_std is not None and self.model.tie_word_embeddings:
            problems.append(
                "embedding_std is for an untied embedding, and this model's is the output head too, which "
                "has to start small: leave it out, or set model.tie_word_embeddings to false"
            )
        return problems

    def remarks(self) -> list[str]:
        shape = model_config(self.model, ANY_VOCABULARY, self.sequence_length)
        remarks = super().remarks() + expert_remarks(shape)
        if shape.family == "gpt2" and shape.max_position_embeddings > self.sequence_length:
            remarks.append(
                f"model.max_position_embeddings {shape.max_position_embeddings} is more than sequence_length "
                f"{self.sequence_length}: the positions beyond are never trained, and the model knows "
                "nothing of them until a later stage has longer rows; leave it out, or lengthen the rows"
            )
        return remarks


def pretrain(config: PretrainConfig, context: StageContext) -> dict[str, Any]:
    """Train a model from scratch on the token shards and write its folder."""
    return on_ranks(train_base, config, context)


def train_base(config: PretrainConfig, context: StageContext, ranks: Ranks) -> dict[str, Any]:
    """The work of `pretrain` in one of its processes."""
    tokenizer_folder = context.input("tokenizer").folder
    tokenizer = load_tokenizer(tokenizer_folder)
    corpora = open_corpora(config, context, tokenizer)
    shape = model_config(config.model, tokenizer.vocab_size, config.sequence_length)
    device = best_device()
    check_start(config, shape, tokenizer, device, context)
    check_prompts(config, tokenizer, shape)
    model = Transformer.without_values(shape, resolve_dtype(config.compute_dtype, device), device)
    sizes = config.batch_sizes
    budget = config.tokens or 20 * parameter_count(shape)
    num_steps = config.num_steps(budget)
    num_tokens = sizes.rows_before(num_steps) * config.sequence_length
    context.say(
        f"{model_type(shape)}, {parameter_count(shape):,} parameters: {shape.num_hidden_layers} layers, "
        f"width {shape.hidden_size}, {shape.num_attention_heads} heads "
        f"({shape.num_key_value_heads} key/value); "
        f"{num_steps:,} steps of {config.tokens_per_step:,} tokens, "
        f"{num_tokens / sum(split.num_tokens for split in corpora.training):.2f} epochs"
    )
    return train(
        model,
        config,
        LanguageModeling(z_loss=config.z_loss),
        training_data(config, corpora, num_steps, context.seed, device, ranks.share),
        num_steps,
        context,
        ranks,
        tokenizer_folder=tokenizer_folder,
        tokenizer=tokenizer,
        description="pretraining",
        weights=DrawnWeights(
            shape, context.seed, config.optimizer.base_width, config.embedding_std or EMBEDDING_STD
        ),
        check=lambda view, step: validate(view, step, corpora.validation, config, tokenizer, context),
        early_stop=early_stop_of(config.early_stop, VALIDATION, shape, context, ranks),
    )
