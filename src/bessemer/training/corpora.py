"""The corpora that language modelling trains on: one, or several with weights, and a curriculum."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from pydantic import Field

from bessemer.config import Config, Count
from bessemer.errors import BessemerError
from bessemer.formats.tokens import TokenSplit, read_split, tokenizer_digest
from bessemer.runner.context import StageContext
from bessemer.runner.manifest import Artifact
from bessemer.tokenization.tokenizer import Tokenizer
from bessemer.training.batch_sizes import BatchSizes
from bessemer.training.batches import Batch, DocumentRows, rng, stack_rows
from bessemer.training.config import TrainingConfig
from bessemer.training.early_stop import EarlyStopConfig
from bessemer.training.execute import TrainingData
from bessemer.training.mixture import PERIOD, MixStage, Mixture, RowSource, shares
from bessemer.training.packed_documents import PackedDocuments
from bessemer.training.parallel.ranks import Share

_SOURCE = 5
"""Keeps the seeds of several corpora apart."""


class CurriculumStage(Config):
    """Weights that hold from some point of the run on."""

    after: float = Field(gt=0, lt=1)
    """Share of the steps that go by before."""
    mixture: dict[str, float]
    """As `mixture` of the stage."""


class CorpusConfig(TrainingConfig):
    """What stages can be told that train on running text."""

    mixture: dict[str, float] = Field(default_factory=dict)
    """Name of a tokens stage → weight of its rows; default: the nearest one alone."""
    curriculum: tuple[CurriculumStage, ...] = ()
    """Other mixtures later in the run, in order."""
    packing: Literal["stream", "best_fit"] = "stream"
    """stream: documents end to end, cut where a row ends. best_fit: whole documents where they fit a row."""
    micro_batches: Count = Field(default=1, ge=1)
    """Parts that a step's batch is computed in, to save memory; the result is the same. Or give
    `micro_batch_tokens`."""
    validation_tokens: Count = Field(default=100_000, ge=1)
    """Held-out tokens of each corpus that a validation reads at most."""
    sample_prompts: tuple[str, ...] = ("The", "Return the")
    """Beginnings that the model continues at each validation."""
    z_loss: float = Field(default=0.0, ge=0, allow_inf_nan=False)
    """Coefficient of the penalty on log^2 Z, Z being the softmax's divisor, which keeps logits from drifting
    (Chowdhery et al. 2022, PaLM, section 5, takes 1e-4); 0: none. Validations leave it out."""
    early_stop: EarlyStopConfig | None = None
    """End training when validations get worse, and keep the best weights."""

    def num_steps(self, tokens: int) -> int:
        """Steps that train on so many tokens; one at least."""
        return max(1, self.batch_sizes.steps_within(tokens // self.sequence_length))

    def unread_stages(self, num_steps: int) -> list[str]:
        """Stages of the curriculum that a run of so many steps would never come to."""
        starts = [math.ceil(stage.after * num_steps) for stage in self.curriculum]
        return [
            f"curriculum: the stage after {stage.after:g} of the run has no step of its {num_steps}: lower "
            "`after` or that of the next stage, or train on more tokens"
            for stage, start, end in zip(self.curriculum, starts, [*starts, num_steps][1:], strict=True)
            if start >= end
        ]

    def _contradictions(self) -> list[str]:
        problems = super()._contradictions()
        if self.micro_batches > 1 and self.micro_batch_tokens is not None:
            problems.append("micro_batches and micro_batch_tokens are two ways to say the same: give one")
        for name, mixture in [("mixture", self.mixture)] + [
            (f"curriculum.{place}.mixture", stage.mixture) for place, stage in enumerate(self.curriculum)
        ]:
            if any(not weight >= 0 or math.isinf(weight) for weight in mixture.values()):
                problems.append(f"{name}: weights are numbers from 0")
            elif mixture and not any(mixture.values()):
                problems.append(f"{name}: all weights are 0; give at least one corpus a weight")
            elif mixture:
                problems += _weights_too_small(name, mixture)
        if not all(self.sample_prompts):
            problems.append("sample_prompts: an empty text has nothing to continue; leave it out")
        if self.curriculum and not self.mixture:
            problems.append("a curriculum changes the mixture on the way: say in `mixture` how it begins")
        points = [stage.after for stage in self.curriculum]
        if points != sorted(set(points)):
            problems.append("the stages of a curriculum come in the order of `after`, none twice")
        return problems


def _weights_too_small(name: str, mixture: Mapping[str, float]) -> list[str]:
    """Corpora that would never be read, though they have a weight."""
    rows = shares(list(mixture.values()))
    return [
        f"{name}: {corpus} has less than one row in {PERIOD:,} and would never be read; raise its weight, or "
        "set it to 0"
        for corpus, weight, num_rows in zip(mixture, mixture.values(), rows, strict=True)
        if weight > 0 and num_rows == 0
    ]


@dataclass(frozen=True)
class Corpora:
    """Training rows and held-out documents of the corpora that a stage uses."""

    names: tuple[str, ...]
    sources: tuple[RowSource, ...]
    training: tuple[TokenSplit, ...]
    validation: Mapping[str, TokenSplit]


def open_corpora(config: CorpusConfig, context: StageContext, tokenizer: Tokenizer) -> Corpora:
    """Open every corpus that the mixtures name.

    Raises BessemerError for a name that is no tokens stage, or shards of another tokenizer.
    """
    artifacts = _chosen(config, context)
    names = tuple(artifact.stage for artifact in artifacts)
    splits = [read_split(artifact.folder, "train") for artifact in artifacts]
    for artifact, split in zip(artifacts, splits, strict=True):
        _check_tokenizer(artifact, split, tokenizer, context)
    seeds = [context.seed] + [
        int(rng(context.seed, _SOURCE, number).integers(2**31)) for number in range(1, len(splits))
    ]
    sources = []
    for name, split, seed in zip(names, splits, seeds, strict=True):
        if config.packing == "stream":
            sources.append(DocumentRows(split, config.sequence_length, seed))
            continue
        packed = PackedDocuments(split, config.sequence_length, seed, tokenizer.padding_id)
        context.say(
            f"{name}: {packed.rows_per_epoch:,} rows an epoch, {packed.padding_share:.2%} padding, "
            f"{packed.num_cut:,} documents cut"
        )
        sources.append(packed)
    validation = {
        name: read_split(artifact.folder, "validation")
        for name, artifact in zip(names, artifacts, strict=True)
    }
    return Corpora(names, tuple(sources), tuple(splits), validation)


def _chosen(config: CorpusConfig, context: StageContext) -> list[Artifact]:
    """The tokens artifacts that any mixture of the config names; the nearest where none does."""
    if not config.mixture:
        return [context.input("tokens")]
    wanted = dict.fromkeys(config.mixture)
    for stage in config.curriculum:
        wanted |= dict.fromkeys(stage.mixture)
    found = {artifact.stage: artifact for artifact in context.inputs.get("tokens", ())}
    unknown = [name for name in wanted if name not in found]
    if unknown:
        raise BessemerError(
            f"the mixture names {', '.join(unknown)}, and no earlier stage of that name makes tokens; there "
            f"are: {', '.join(found) or 'none'}"
        )
    return [found[name] for name in wanted]


def _check_tokenizer(
    artifact: Artifact, split: TokenSplit, tokenizer: Tokenizer, context: StageContext
) -> None:
    if split.vocab_size != tokenizer.vocab_size:
        raise BessemerError(
            f"the token shards hold ids of a vocabulary of {split.vocab_size}, the tokenizer has "
            f"{tokenizer.vocab_size}: they belong to different runs; encode the documents again"
        )
    if tokenizer_digest(artifact.folder) != context.input("tokenizer").manifest.digest:
        raise BessemerError(
            f"the token shards of {artifact.stage!r} were encoded with another tokenizer of the same size, "
            "so their ids mean other texts: encode the documents again with this run's tokenizer"
        )


def training_data(
    config: CorpusConfig,
    corpora: Corpora,
    num_steps: int,
    seed: int,
    device: torch.device,
    share: Share = Share(),  # noqa: B008
) -> TrainingData:
    """Micro-batches by number, in the order of the mixture and its curriculum; `share` is this process's part
    of the rows of each step. Raises BessemerError for a stage of the curriculum that no step falls into."""
    if unread := config.unread_stages(num_steps):
        raise BessemerError("; ".join(unread))
    sizes = config.batch_sizes
    starts = [math.ceil(stage.after * num_steps) for stage in config.curriculum]
    source = _row_source(config, corpora, sizes, starts, seed)

    def batches(step: int) -> list[Batch]:
        batch = stack_rows([source.row(number) for number in share.rows(sizes.numbers(step))])
        num_rows = len(sizes.numbers(step))
        num_parts = max(share.num_parts(config.micro_batches), config.num_parts(share.most_rows(num_rows)))
        return [part.to(device) for part in batch.split(share.fitting(num_parts, num_rows))]

    def documents(step: int) -> list[str]:
        return [id for number in sizes.numbers(step) for id in source.documents(number)]

    return TrainingData(batches, documents, frozenset(starts))


def _row_source(
    config: CorpusConfig, corpora: Corpora, sizes: BatchSizes, starts: list[int], seed: int
) -> RowSource:
    if len(corpora.sources) == 1:
        return corpora.sources[0]
    mixtures = [config.mixture, *(stage.mixture for stage in config.curriculum)]
    stages = [
        MixStage(sizes.rows_before(start), tuple(mixture.get(name, 0.0) for name in corpora.names))
        for start, mixture in zip([0, *starts], mixtures, strict=True)
    ]
    return Mixture(corpora.sources, stages, seed)
