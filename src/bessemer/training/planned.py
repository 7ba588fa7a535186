"""What a recipe's training stages will meet, told from their configs before anything runs: so that the last
stage does not refuse, after hours, what the first one was asked to make."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bessemer.errors import BessemerError
from bessemer.model.config import ModelConfig
from bessemer.model.folder import read_config
from bessemer.stages import Maker
from bessemer.training.corpora import CorpusConfig
from bessemer.training.dial import ANY_VOCABULARY, model_config
from bessemer.training.execute import check_embedding_rate, check_sequence_length
from bessemer.training.midtrain import MidtrainConfig, extended_shape
from bessemer.training.parallel import torchrun
from bessemer.training.parallel.layout import check_model

Makers = Mapping[str, Sequence[Maker]]


def planned_shape(maker: Maker) -> ModelConfig | None:
    """The shape of the model that a stage will make, but for its vocabulary; None where it cannot be told."""
    config: Any = maker.config
    if maker.kind == "pretrain":
        return model_config(config.model, ANY_VOCABULARY, config.sequence_length)
    if maker.kind == "pretrained":
        return _shape_of_folder(Path(config.path).expanduser())
    shape = _planned_input(maker.makers)
    if shape is None or maker.kind != "midtrain":
        return shape
    try:
        return extended_shape(shape, config)
    except BessemerError:
        return None  # a fault of that stage, which it tells itself


def training_faults(config: Any, makers: Makers) -> list[str]:
    """Why a stage that trains would refuse its inputs, each with the mend."""
    faults = []
    if isinstance(config, CorpusConfig):
        faults = _mixture_faults(config, makers) or _tokenizer_faults(config, makers)
    if (fault := torchrun.fault_of_size(config.parallel)) is not None:
        faults.append(fault)
    shape = _planned_input(makers)
    if shape is None:
        return faults
    try:
        if isinstance(config, MidtrainConfig):
            shape = extended_shape(shape, config)
        check_sequence_length(config.sequence_length, shape)
        check_embedding_rate(config.optimizer, shape)
        if config.parallel.world_size > 1:
            check_model(config.parallel, shape)
    except BessemerError as error:
        faults.append(str(error))
    return faults


def evaluation_faults(config: Any, makers: Makers) -> list[str]:
    """Why the stage that compares all models would refuse one of them."""
    faults = []
    for maker in makers.get("model", ()):
        shape = planned_shape(maker)
        try:
            if shape is not None:
                check_sequence_length(config.sequence_length, shape)
        except BessemerError as error:
            faults.append(f"the model of {maker.name!r}: {error}")
    return faults


def _planned_input(makers: Makers) -> ModelConfig | None:
    models = makers.get("model", ())
    return planned_shape(models[-1]) if models else None


def _shape_of_folder(path: Path) -> ModelConfig | None:
    """None for a GGUF file, and for what is no model folder: the stage that reads it says so."""
    try:
        return read_config(path) if path.is_dir() else None
    except BessemerError:
        return None


def _mixture_faults(config: CorpusConfig, makers: Makers) -> list[str]:
    known = [maker.name for maker in makers.get("tokens", ())]
    mixtures = {"mixture": config.mixture} | {
        f"curriculum.{place}.mixture": stage.mixture for place, stage in enumerate(config.curriculum)
    }
    return [
        f"{name} names {', '.join(unknown)}, and no earlier stage of that name makes tokens; there are: "
        f"{', '.join(known) or 'none'}"
        for name, mixture in mixtures.items()
        if (unknown := [corpus for corpus in mixture if corpus not in known])
    ]


def _tokenizer_faults(config: CorpusConfig, makers: Makers) -> list[str]:
    """Shards and models of another tokenizer: their ids mean other texts."""
    own = makers["tokenizer"][-1].name
    chosen = [maker for maker in makers["tokens"] if maker.name in config.mixture] or makers["tokens"][-1:]
    faults = [
        f"the tokens of {maker.name!r} are encoded with {theirs!r}, and this stage takes {own!r}: name "
        f"{theirs!r} in `from:`, or encode the documents with {own!r}"
        for maker in chosen
        if (theirs := maker.makers["tokenizer"][-1].name) != own
    ]
    trained = _tokenizer_of_model(makers)
    if not faults and trained is not None and trained != own:
        faults.append(
            f"the model is trained with the tokenizer {trained!r}, and the tokens are of {own!r}: encode the "
            f"documents with {trained!r}"
        )
    return faults


def _tokenizer_of_model(makers: Makers) -> str | None:
    """Name of the tokenizer stage behind a stage's model; None where the model brings its own."""
    models = makers.get("model", ())
    if not models:
        return None
    maker = models[-1]
    if maker.kind == "pretrain":
        return maker.makers["tokenizer"][-1].name
    return _tokenizer_of_model(maker.makers)
