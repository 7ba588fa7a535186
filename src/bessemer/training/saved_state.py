"""Tensors of a checkpoint on disk, in torch's distributed checkpoint format: written by all processes that
hold parts, read by each for itself."""

import errno
import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.filesystem import FileSystemReader, FileSystemWriter
from torch.distributed.checkpoint.metadata import TensorStorageMetadata
from torch.distributed.checkpoint.planner import SavePlan, SavePlanner
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save
from torch.distributed.checkpoint.storage import WriteResult
from torch.futures import Future

from bessemer.runner.files import is_disk_full


def save_state(state: dict[str, Any], folder: Path, group: dist.ProcessGroup | None) -> None:
    """Write what this process holds; where the group's others hold the same, one of them does. Raises OSError
    where the disk is full."""
    _silence_single_process_warning()
    try:
        save(state, storage_writer=_Writer(folder), process_group=group, no_dist=group is None)
    except CheckpointException as error:
        problems = [problem for problem, _ in error.failures.values()]
        if any(map(is_disk_full, problems)):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(folder)) from error
        raise problems[0] from error


class _Writer(FileSystemWriter):
    """Raises what the system said when it refused to write. torch's own stream hides that behind a complaint
    about its position, and what is sent to the other processes has no cause left."""

    def write_data(self, plan: SavePlan, planner: SavePlanner) -> Future[list[WriteResult]]:
        try:
            return super().write_data(plan, planner)
        except RuntimeError as error:
            behind: BaseException | None = error
            while behind is not None and not isinstance(behind, OSError):
                behind = behind.__cause__ or behind.__context__
            raise behind or error from error


def load_state(state: dict[str, Any], folder: Path) -> None:
    """Fill the tensors of `state`, or this process's parts of them; every process reads for itself."""
    _silence_single_process_warning()
    load(state, checkpoint_id=str(folder), no_dist=True)


def absent_tensors(state: Mapping[str, Any], folder: Path) -> list[str]:
    """Names of the tensors of `state` that a checkpoint does not hold, sorted."""
    saved = FileSystemReader(str(folder)).read_metadata().state_dict_metadata
    return sorted(set(_names(state)) - saved.keys())


def _names(state: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """As torch's checkpoints name the tensors of nested dictionaries."""
    for name, value in state.items():
        if isinstance(value, Mapping):
            yield from _names(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}"


class SavedWeights(Mapping[str, Tensor]):
    """The weights that were saved by several processes, or their averages, read back from
    their files one at a time: nothing is sent while training goes on."""

    def __init__(self, folder: Path, parts: Sequence[str]) -> None:
        """Of a weight that is in several `parts`, the last one's is taken."""
        self._folder = folder
        self._saved: dict[str, tuple[str, TensorStorageMetadata]] = {}
        saved = FileSystemReader(str(folder)).read_metadata().state_dict_metadata
        for wanted in parts:
            for key, value in saved.items():
                part, _, name = key.partition(".")
                if part == wanted and isinstance(value, TensorStorageMetadata):
                    self._saved[name] = (part, value)

    def __getitem__(self, name: str) -> Tensor:
        part, saved = self._saved[name]
        whole = torch.empty(saved.size, dtype=saved.properties.dtype)
        load_state({part: {name: whole}}, self._folder)
        return whole

    def __iter__(self) -> Iterator[str]:
        return iter(self._saved)

    def __len__(self) -> int:
        return len(self._saved)


def _silence_single_process_warning() -> None:
    """One process is meant. Not `catch_warnings`, which would undo what other threads set meanwhile."""
    warnings.filterwarnings("ignore", message="torch.distributed is (disabled|unavailable)")
