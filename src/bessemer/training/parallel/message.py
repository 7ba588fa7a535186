"""A training stage as JSON, for processes elsewhere: code by name, inputs by folder.

A store on the network is no place for pickles; and whoever reads the message opens the inputs' manifests
anew, on its own machine, so that what it does not see is found at once.
"""

import json
from pathlib import Path
from typing import Any

from bessemer.runner.context import StageContext
from bessemer.runner.manifest import Artifact, read_manifest
from bessemer.stages import imported
from bessemer.training.config import TrainingConfig
from bessemer.training.parallel.reporters import Silent

_PATHS, _PLAIN = ("output", "scratch", "metrics_path"), ("stage", "seed", "on")
"""Fields of a stage's context."""


def packed(work: Any, config: TrainingConfig, context: StageContext) -> bytes:
    """All that another process needs to know about a stage. `work` is importable by name."""
    value = {
        "work": _name(work),
        "config_type": _name(type(config)),
        "config": config.model_dump(mode="json", exclude_unset=True),
        "inputs": {
            kind: [str(artifact.folder.resolve()) for artifact in artifacts]
            for kind, artifacts in context.inputs.items()
        },
        **{name: str(getattr(context, name).resolve()) for name in _PATHS},
        **{name: getattr(context, name) for name in _PLAIN},
        "run": dict(context.run),
    }
    return json.dumps(value).encode()


def unpacked(message: bytes) -> tuple[Any, TrainingConfig, StageContext]:
    """Work, config and context, whose reporter is silent."""
    value = json.loads(message)
    config_type = imported(value["config_type"])
    assert issubclass(config_type, TrainingConfig), "a training stage's config"
    folders = {kind: [Path(folder) for folder in listed] for kind, listed in value["inputs"].items()}
    context = StageContext(
        inputs={kind: [Artifact(f, read_manifest(f)) for f in listed] for kind, listed in folders.items()},
        reporter=Silent(),
        run=value["run"],
        **{name: Path(value[name]) for name in _PATHS},
        **{name: value[name] for name in _PLAIN},
    )
    return imported(value["work"]), config_type.model_validate(value["config"]), context


def _name(thing: Any) -> str:
    return f"{thing.__module__}:{thing.__qualname__}"
