"""The midtrain stage: a base model goes on with another mix, a falling rate, and perhaps longer rows.

Several of them in a recipe make the steps of a context extension: each sets its own `sequence_length`,
`rope_theta` and mixture. Annealing on a better mix at the end is what MiniCPM (Hu et al. 2024, section 5)
and OLMo 2 (2025, section 4) do.
"""

import hashlib
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError

from bessemer.config import Count
from bessemer.config_faults import messages
from bessemer.errors import BessemerError
from bessemer.model.config import ModelConfig
from bessemer.model.precision import resolve_dtype
from bessemer.model.rope_scaling import RopeScaling
from bessemer.model.transformer import Transformer
from bessemer.model.weights import FolderWeights
from bessemer.objectives.language_modeling import LanguageModeling
from bessemer.runner.context import StageContext
from bessemer.tokenization.tokenizer import load_tokenizer
from bessemer.training.corpora import CorpusConfig, open_corpora, training_data
from bessemer.training.execute import best_device, check_start, early_stop_of, train
from bessemer.training.held_out import VALIDATION, check_prompts, validate
from bessemer.training.parallel.launch import on_ranks
from bessemer.training.parallel.ranks import Ranks
from bessemer.training.schedules import ScheduleConfig


class MidtrainConfig(CorpusConfig):
    """How a base model is trained on."""

    tokens: Count = Field(ge=1)
    """Tokens to train on."""
    schedule: ScheduleConfig = ScheduleConfig(shape="linear", warmup=0.01)
    """Falls to nothing: the model anneals."""
    max_position_embeddings: Count | None = Field(default=None, ge=1)
    """Longest sequence from now on; default: the model's own, or `sequence_length` where that is more."""
    rope_theta: float | None = Field(default=None, gt=0)
    """Base of the rotary frequencies from now on; a larger one lets the model see farther (Xiong et al.
    2023, arXiv:2309.16039, section 2). Default: the model's own."""
    rope_scaling: RopeScaling | None = None
    """Linear, Llama 3 or YaRN scaling of the frequencies from now on. Default: the model's own."""

    def _contradictions(self) -> list[str]:
        return super()._contradictions() + self.unread_stages(self.num_steps(self.tokens))


def midtrain(config: MidtrainConfig, context: StageContext) -> dict[str, Any]:
    """Train the nearest model on and write its folder."""
    return on_ranks(train_on, config, context)


def train_on(config: MidtrainConfig, context: StageContext, ranks: Ranks) -> dict[str, Any]:
    """The work of `midtrain` in one of its processes."""
    source = context.input("model").folder
    tokenizer = load_tokenizer(source)
    _check_same_tokenizer(source, context.input("tokenizer").folder)
    corpora = open_corpora(config, context, tokenizer)
    device = best_device()
    weights = FolderWeights(source)
    shape = extended_shape(weights.config, config)
    check_start(config, shape, tokenizer, device, context)
    check_prompts(config, tokenizer, shape)
    model = Transformer.without_values(shape, resolve_dtype(config.compute_dtype, device), device)
    num_steps = config.num_steps(config.tokens)
    angles = "learnt one by one" if shape.family == "gpt2" else f"rope_theta {shape.rope_theta:g}"
    context.say(
        f"{num_steps:,} steps of {config.tokens_per_step:,} tokens in rows of {config.sequence_length:,}; "
        f"{shape.max_position_embeddings:,} positions, {angles}"
    )
    return train(
        model,
        config,
        LanguageModeling(z_loss=config.z_loss),
        training_data(config, corpora, num_steps, context.seed, device, ranks.share),
        num_steps,
        context,
        ranks,
        tokenizer_folder=source,
        tokenizer=tokenizer,
        description="mid-training",
        weights=weights,
        check=lambda view, step: validate(view, step, corpora.validation, config, tokenizer, context),
        early_stop=early_stop_of(config.early_stop, VALIDATION, shape, context, ranks),
    )


def extended_shape(shape: ModelConfig, config: MidtrainConfig) -> ModelConfig:
    """The model's shape with the positions and frequencies that the config asks for.

    Raises BessemerError for a model with learnt positions that is to have others, and for frequencies that do
    not fit together."""
    longest = config.max_position_embeddings or max(shape.max_position_embeddings, config.sequence_length)
    if shape.family == "gpt2" and (
        longest != shape.max_position_embeddings or config.rope_theta or config.rope_scaling
    ):
        raise BessemerError(
            f"a GPT-2 shaped model has learnt vectors for {shape.max_position_embeddings} positions and no "
            "RoPE, so it cannot be extended: lower sequence_length to that, and leave out "
            "max_position_embeddings, rope_theta and rope_scaling"
        )
    changed = {
        "max_position_embeddings": longest,
        "rope_theta": config.rope_theta or shape.rope_theta,
        "rope_scaling": config.rope_scaling or shape.rope_scaling,
    }
    try:
        return ModelConfig(**(shape.model_dump() | changed))
    except ValidationError as error:
        raise BessemerError("; ".join(messages(error))) from None


def _check_same_tokenizer(model_folder: Path, tokenizer_folder: Path) -> None:
    """Raises BessemerError when the model was trained with another tokenizer than the shards."""
    digests = [
        hashlib.sha256((folder / "tokenizer.json").read_bytes()).digest()
        for folder in (model_folder, tokenizer_folder)
    ]
    if digests[0] != digests[1]:
        raise BessemerError(
            f"the model in {model_folder} has another tokenizer than the token shards: encode the documents "
            "with the model's own, or start from a model of this run"
        )
