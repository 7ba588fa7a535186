"""The table of contents: every stage kind, its config, what it needs and what it makes.

Code is named here as "module:attribute" and imported when a recipe uses it, so that commands which
only look at run folders start without importing torch.
"""

import importlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bessemer.config import Config
from bessemer.runner.context import Metrics, StageContext
from bessemer.runner.forecast import Prediction


@dataclass(frozen=True)
class Maker:
    """An earlier stage of a recipe, as a later one that takes what it makes sees it before anything runs."""

    name: str
    kind: str
    config: Config
    makers: Mapping[str, Sequence["Maker"]]
    """Of its own inputs, by artifact kind, in recipe order."""


StageFunction = Callable[[Any, StageContext], Metrics]
ForecastFunction = Callable[[Any, StageContext], Prediction]
FaultsFunction = Callable[[Any, Mapping[str, Sequence[Maker]]], list[str]]


@dataclass(frozen=True)
class Need:
    """An artifact kind that a stage reads."""

    kind: str
    every: bool = False
    """All earlier artifacts of this kind in recipe order, not only the nearest one."""
    optional: bool = False
    """The stage also runs in a recipe that makes none."""


@dataclass(frozen=True)
class Stage:
    """One kind of stage. `config` and `run` are objects, or "module:attribute" to import on demand."""

    kind: str
    config: type[Config] | str
    needs: tuple[Need, ...]
    makes: str
    """Kind of the artifact that `context.output` becomes."""
    run: StageFunction | str
    format_version: int = 1
    """Raise it when the same config and inputs would make other files: old artifacts are then redone."""
    measured: tuple[str, ...] = ()
    """Patterns of files whose content depends on how long things took; left out of the digest."""
    outside_files: Callable[[Any], Sequence[str]] = lambda config: ()
    """From the config: files, folders and globs that the stage reads besides its inputs. The stage is
    redone when their content changes."""
    forecast: ForecastFunction | str | None = None
    """Tries the stage on a sample of its inputs and predicts the whole, for `run --dry-run`."""
    faults: FaultsFunction | str | None = None
    """From the config and the stages that make its inputs: what would be refused once they are done."""

    def config_type(self) -> type[Config]:
        """The config class; imports its module."""
        return imported(self.config) if isinstance(self.config, str) else self.config

    def function(self) -> StageFunction:
        """The function that does the work; imports its module."""
        return imported(self.run) if isinstance(self.run, str) else self.run

    def faults_with(self, config: Config, makers: Mapping[str, Sequence[Maker]]) -> list[str]:
        """What is wrong with a config and the stages that make its inputs, taken together."""
        if self.faults is None:
            return []
        return (imported(self.faults) if isinstance(self.faults, str) else self.faults)(config, makers)

    def forecast_function(self) -> ForecastFunction:
        """The function that predicts; imports its module."""
        assert self.forecast is not None
        return imported(self.forecast) if isinstance(self.forecast, str) else self.forecast


def imported(reference: str) -> Any:
    """The object that "module:attribute" names."""
    module, _, attribute = reference.partition(":")
    return getattr(importlib.import_module(module), attribute)


def stage_table(stages: Iterable[Stage]) -> Mapping[str, Stage]:
    """Stages by kind."""
    return {stage.kind: stage for stage in stages}


TRAINING_MEASURES = ("tensorboard/*",)
"""Event files carry the times at which they were written."""

STAGES: Mapping[str, Stage] = stage_table(
    [
        # Data
        Stage(
            kind="collect",
            config="bessemer.collect.stage:CollectConfig",
            needs=(),
            makes="pages",
            run="bessemer.collect.stage:collect",
            outside_files=lambda config: config.paths,
        ),
        Stage(
            kind="curate",
            config="bessemer.curate.stage:CurateConfig",
            needs=(Need("pages", every=True),),
            makes="documents",
            run="bessemer.curate.stage:curate",
            forecast="bessemer.curate.forecast:forecast",
            format_version=4,
        ),
        Stage(
            kind="tokenizer",
            config="bessemer.tokenization.stage:TokenizerConfig",
            needs=(Need("documents"),),
            makes="tokenizer",
            run="bessemer.tokenization.stage:train_tokenizer",
            outside_files=lambda config: () if config.path is None else (config.path,),
        ),
        Stage(
            kind="tokens",
            config="bessemer.tokenization.tokens_stage:TokensConfig",
            needs=(Need("documents"), Need("tokenizer")),
            makes="tokens",
            run="bessemer.tokenization.tokens_stage:encode_tokens",
        ),
        # The base model
        Stage(
            kind="pretrained",
            config="bessemer.training.pretrained:PretrainedConfig",
            needs=(),
            makes="model",
            run="bessemer.training.pretrained:pretrained",
            outside_files=lambda config: (config.path,),
        ),
        Stage(
            kind="pretrain",
            config="bessemer.training.pretrain:PretrainConfig",
            needs=(Need("tokens", every=True), Need("tokenizer")),
            makes="model",
            run="bessemer.training.pretrain:pretrain",
            format_version=2,
            faults="bessemer.training.planned:training_faults",
            measured=TRAINING_MEASURES,
        ),
        Stage(
            kind="midtrain",
            config="bessemer.training.midtrain:MidtrainConfig",
            needs=(Need("model"), Need("tokens", every=True), Need("tokenizer")),
            makes="model",
            run="bessemer.training.midtrain:midtrain",
            format_version=2,
            faults="bessemer.training.planned:training_faults",
            measured=TRAINING_MEASURES,
        ),
        # The assistant
        Stage(
            kind="synthesize",
            config="bessemer.synthesize.stage:SynthesizeConfig",
            needs=(Need("documents"),),
            makes="conversations",
            run="bessemer.synthesize.stage:synthesize",
        ),
        Stage(
            kind="sft",
            config="bessemer.training.sft:SftConfig",
            needs=(Need("model"), Need("conversations")),
            makes="model",
            run="bessemer.training.sft:sft",
            format_version=2,
            faults="bessemer.training.planned:training_faults",
            measured=TRAINING_MEASURES,
        ),
        Stage(
            kind="prefer",
            config="bessemer.synthesize.prefer:PreferConfig",
            needs=(Need("model"), Need("conversations")),
            makes="preferences",
            run="bessemer.synthesize.prefer:prefer",
        ),
        Stage(
            kind="dpo",
            config="bessemer.training.dpo:DpoConfig",
            needs=(Need("model"), Need("preferences")),
            makes="model",
            run="bessemer.training.dpo:dpo",
            format_version=2,
            faults="bessemer.training.planned:training_faults",
            measured=TRAINING_MEASURES,
        ),
        # Proof and delivery
        Stage(
            kind="evaluate",
            config="bessemer.evaluation.stage:EvaluateConfig",
            needs=(Need("model", every=True), Need("tokens"), Need("conversations", optional=True)),
            makes="evaluation",
            run="bessemer.evaluation.stage:evaluate",
            faults="bessemer.training.planned:evaluation_faults",
        ),
        Stage(
            kind="export",
            config="bessemer.export.stage:ExportConfig",
            needs=(
                Need("model", every=True),
                Need("evaluation", optional=True),
                Need("pages", every=True, optional=True),
                Need("documents", every=True, optional=True),
                Need("tokenizer", every=True, optional=True),
                Need("tokens", every=True, optional=True),
                Need("conversations", every=True, optional=True),
                Need("preferences", every=True, optional=True),
            ),
            makes="export",
            run="bessemer.export.stage:export",
            measured=("README.md", "report.html"),
        ),
    ]
)
