"""Metrics to other tools, beside metrics.jsonl: TensorBoard, Weights & Biases, MLflow, trackio.

Each is an extra of the package and imported only when a recipe asks for it.
"""

import importlib.util
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol

from bessemer.errors import BessemerError

SinkName = Literal["tensorboard", "wandb", "mlflow", "trackio"]


class Sink(Protocol):
    """Takes numbers by step."""

    def log(self, step: int, values: Mapping[str, float]) -> None: ...
    def close(self) -> None: ...


def open_sinks(names: Sequence[SinkName], run: str, stage: str, folder: Path) -> list[Sink]:
    """One sink a name. `folder` is where tools that write files put them.

    Raises BessemerError that names the extra where a package is missing.
    """
    return [_SINKS[name](run, stage, folder) for name in names]


def missing_packages(names: Sequence[SinkName]) -> str:
    """Which tools are not installed, with the mend; empty where all are. Nothing is imported."""
    missing = [name for name in dict.fromkeys(names) if not _is_installed(name)]
    return "" if not missing else f"{' and '.join(missing)}, not installed here: {_mend(missing)}"


class TensorBoard:
    """Event files in `<folder>/tensorboard`."""

    def __init__(self, run: str, stage: str, folder: Path) -> None:
        _package("tensorboard", "tensorboard")
        writer = _package("torch.utils.tensorboard", "tensorboard").SummaryWriter
        self._writer = writer(log_dir=str(folder / "tensorboard"))

    def log(self, step: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        self._writer.close()


class WandbLike:
    """A run in Weights & Biases, or in trackio, which has the same functions."""

    def __init__(self, package: str, run: str, stage: str) -> None:
        self._tool = _package(package, package)
        self._tool.init(project=run, name=stage)

    def log(self, step: int, values: Mapping[str, float]) -> None:
        self._tool.log(dict(values), step=step)

    def close(self) -> None:
        self._tool.finish()


class Mlflow:
    """A run in the MLflow experiment of the recipe's name."""

    def __init__(self, run: str, stage: str, folder: Path) -> None:
        self._tool = _package("mlflow", "mlflow")
        self._tool.set_experiment(run)
        self._tool.start_run(run_name=stage)

    def log(self, step: int, values: Mapping[str, float]) -> None:
        self._tool.log_metrics(dict(values), step=step)

    def close(self) -> None:
        self._tool.end_run()


_SINKS: Mapping[str, Callable[[str, str, Path], Sink]] = {
    "tensorboard": TensorBoard,
    "wandb": lambda run, stage, folder: WandbLike("wandb", run, stage),
    "trackio": lambda run, stage, folder: WandbLike("trackio", run, stage),
    "mlflow": Mlflow,
}


def _is_installed(package: str) -> bool:
    try:
        return importlib.util.find_spec(package) is not None
    except ValueError:  # it is loaded, by other means than files
        return True


def _mend(extras: Sequence[str]) -> str:
    return f"pip install 'bessemer[{','.join(extras)}]', or leave it out of report_to"


def _package(module: str, extra: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise BessemerError(
            f"report_to names {extra}, and it cannot be imported ({error}): {_mend([extra])}"
        ) from error
