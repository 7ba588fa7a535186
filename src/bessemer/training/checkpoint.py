"""Training checkpoints: torch's distributed checkpoint format, checksummed, atomic, last k kept.

A checkpoint is a folder `step-00000400/` with `checksums.json` written last; one that is partial or
damaged is passed over in favour of the one before it. The format is read with pickle inside torch,
so nothing is loaded before every file matches its checksum. Checksums tell damage, not malice: continue
only runs whose folder you trust.
"""

import json
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save

from bessemer.runner.files import fsync_tree, replace_folder, sha256_of
from bessemer.training.optimizers import Optimizers

CHECKSUMS = "checksums.json"


def _state(model: nn.Module, optimizers: Optimizers) -> dict[str, Any]:
    return {
        "model": model.state_dict(),
        "optimizers": [optimizer.state_dict() for optimizer in optimizers.all],
    }


class Checkpoints:
    """The checkpoints of one training run inside a folder."""

    def __init__(self, folder: Path, keep: int = 2, say: Callable[[str], None] = print) -> None:
        self._folder = folder
        self._keep = keep
        self._say = say

    def save(self, step: int, model: nn.Module, optimizers: Optimizers) -> Path:
        """Save the state after `step` steps and delete all but the newest `keep`."""
        self._folder.mkdir(parents=True, exist_ok=True)
        partial = self._folder / f".step-{step:08}.partial"
        shutil.rmtree(partial, ignore_errors=True)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # "no process group": one process is meant
            save(_state(model, optimizers), checkpoint_id=str(partial), no_dist=True)
        checksums = {path.name: sha256_of(path) for path in sorted(partial.iterdir())}
        (partial / CHECKSUMS).write_text(json.dumps(checksums, indent=2))
        fsync_tree(partial)
        target = self._folder / f"step-{step:08}"
        replace_folder(partial, target)
        for old in self._steps()[: -self._keep]:
            shutil.rmtree(old)
        return target

    def load_newest(self, model: nn.Module, optimizers: Optimizers) -> int:
        """Load the newest sound checkpoint into model and optimizers; returns its step, 0 if none."""
        for folder in reversed(self._steps()):
            if not is_sound(folder):
                self._say(f"checkpoint {folder.name} is damaged or partial: taking the one before")
                continue
            for optimizer in optimizers.all:
                _materialize(optimizer)
            state = _state(model, optimizers)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)
                load(state, checkpoint_id=str(folder), no_dist=True)
            model.load_state_dict(state["model"])
            for optimizer, loaded in zip(optimizers.all, state["optimizers"], strict=True):
                optimizer.load_state_dict(loaded)
            return int(folder.name.removeprefix("step-"))
        return 0

    def _steps(self) -> list[Path]:
        return sorted(self._folder.glob("step-*")) if self._folder.exists() else []


def is_sound(folder: Path) -> bool:
    """Whether a checkpoint holds just the files that were written, and each matches its checksum."""
    try:
        checksums = json.loads((folder / CHECKSUMS).read_bytes())
    except (OSError, ValueError):  # ValueError: neither JSON nor, perhaps, text at all
        return False
    present = {path.name for path in folder.iterdir()} - {CHECKSUMS}
    if not isinstance(checksums, dict) or not present or set(checksums) != present:
        return False
    return all(sha256_of(folder / name) == digest for name, digest in checksums.items())


def _materialize(optimizer: Any) -> None:
    """Make an optimizer allocate its state, with a step of zero length, so that it can be loaded into."""
    rates = [group["lr"] for group in optimizer.param_groups]
    for group in optimizer.param_groups:
        group["lr"] = 0.0
        for parameter in group["params"]:
            parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    for group, rate in zip(optimizer.param_groups, rates, strict=True):
        group["lr"] = rate
