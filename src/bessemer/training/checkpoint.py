"""Training checkpoints: torch's distributed checkpoint format, checksummed, atomic, last k kept.

A checkpoint is a folder `step-00000400/`: weights and optimizer state, `memory.json` with what the loop
decides by, `model/` (a Hugging Face folder, where the stage asks for one), and `checksums.json`, written
last. One that is partial or damaged is passed over in favour of the one before it. The format is read
with pickle inside torch, so nothing is loaded before every file matches its checksum. Checksums tell
damage, not malice: continue only runs whose folder you trust.

Saving copies the state and returns; a thread writes the copy while training goes on.

Of several processes each writes and reads what it holds, and the first makes the whole a checkpoint: it
checksums every file and renames the folder into place. The folder must be one that all of them see. What
is saved by one layout of processes can be loaded by another: the format knows of each tensor which file
holds which part.
"""

import json
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol

import torch
import torch.distributed as dist
from torch import Tensor, nn

from bessemer.errors import BessemerError
from bessemer.runner.files import fsync_tree, is_disk_full, replace_folder, sha256_of
from bessemer.training.background import Background
from bessemer.training.optimizer_state import widened
from bessemer.training.optimizers import Optimizers
from bessemer.training.parallel.ranks import Alone, Ranks
from bessemer.training.quantized import Quantized
from bessemer.training.saved_state import SavedWeights, absent_tensors, load_state, save_state
from bessemer.training.snapshot import Snapshot

CHECKSUMS = "checksums.json"
MEMORY = "memory.json"
MODEL_FOLDER = "model"
FORMAT = 2
"""Of checkpoints. 1, which is not written down, held the codes and scales of 8-bit optimizer state, which one
process alone could read."""

Beside = Callable[[Mapping[str, Tensor], Path], None]
"""Writes a model folder from weights by parameter name."""


class Remembers(Protocol):
    """A part of the loop that decides by what it has seen, and so belongs in a checkpoint."""

    def to_json(self) -> dict[str, Any]: ...
    def from_json(self, value: dict[str, Any]) -> None: ...


def _state(model: nn.Module, optimizers: Optimizers, average: Mapping[str, Tensor]) -> dict[str, Any]:
    """Everything by the names of parameters, so that processes that hold different ones can share a
    checkpoint."""
    state = {"model": model.state_dict(), "optimizers": optimizers.state()}
    return {**state, "average": dict(average)} if average else state


def _with_places(state: dict[str, Any], shapes: Mapping[str, torch.Size], ranks: Ranks) -> dict[str, Any]:
    """The same tensors, and of those that this process has parts of, where they lie in the whole. `shapes`
    are those of the parameters held here."""

    def placed(name: str, value: Any) -> Any:
        has_shape = isinstance(value, Tensor) and value.shape == shapes.get(name)
        return ranks.pieces(name, value) if has_shape or isinstance(value, Quantized) else value

    found: dict[str, Any] = {
        part: {name: placed(name, value) for name, value in state[part].items()}
        for part in ("model", "average")
        if part in state
    }
    found["optimizers"] = {
        kind: {
            name: {quantity: placed(name, value) for quantity, value in quantities.items()}
            for name, quantities in of_kind.items()
        }
        for kind, of_kind in state["optimizers"].items()
    }
    return found


def _widened(state: dict[str, Any]) -> dict[str, Any]:
    """The same state of optimizers, to be loaded into: checkpoints hold no codes."""
    return {
        kind: {
            name: {quantity: widened(value) for quantity, value in quantities.items()}
            for name, quantities in of_kind.items()
        }
        for kind, of_kind in state.items()
    }


def _shapes(model: nn.Module) -> dict[str, torch.Size]:
    return {name: parameter.shape for name, parameter in model.named_parameters()}


class Checkpoints:
    """The checkpoints of one training run inside a folder."""

    def __init__(
        self,
        folder: Path,
        keep: int = 2,
        say: Callable[[str], None] = print,
        beside: Beside | None = None,
        milestones: "Milestones | None" = None,
        ranks: Ranks | None = None,
        exported: Literal["average", "last"] = "average",
    ) -> None:
        """`beside` writes the model folder that goes into each checkpoint, with the average of the weights
        where there is one and it is `exported`; `ranks` are the processes that save and load together,
        default: this one alone."""
        self._folder = folder
        self._keep = keep
        self._say = say
        self._beside = beside
        self._milestones = milestones
        self._ranks = ranks or Alone()
        self._written = ("model", "average") if exported == "average" else ("model",)
        self._snapshot = Snapshot()
        self._writer = Background("checkpoint")
        self._has_failed = False
        self._due: list[int] = []
        """Steps whose checkpoint is not on disk yet: one or, after a full disk, several."""
        self.blocked_s = 0.0
        """Seconds that training stood still for checkpoints."""

    @property
    def folder(self) -> Path:
        return self._folder

    def save(
        self,
        step: int,
        model: nn.Module,
        optimizers: Optimizers,
        memory: Mapping[str, Remembers] | None = None,
        average: Mapping[str, Tensor] | None = None,
        due: int | None = None,
    ) -> None:
        """Copy the state after `step` steps; it is written in the background.

        `due` is the step that the checkpoint was meant for, where it comes later: milestones go by it. All
        but the newest `keep` are deleted. Raises BessemerError when the disk was full twice in a row; once,
        it only says so.
        """
        started = time.perf_counter()
        self.wait()
        state = self._snapshot.take(_state(model, optimizers, average or {}))
        state = _with_places(state, _shapes(model), self._ranks)
        parts = {name: part.to_json() for name, part in (memory or {}).items()}
        has_stepped = [bool(optimizer.state) for optimizer in optimizers.all]
        notes = json.dumps({"format": FORMAT, "has_stepped": has_stepped, "parts": parts})
        self._due.append(step if due is None else due)
        self._writer.start(lambda: self._write(step, state, notes))
        self.blocked_s += time.perf_counter() - started

    def wait(self) -> None:
        """Wait until what was saved is on disk. Raises as `save` does."""
        error = self._writer.wait()
        if error is None:
            return
        if not is_disk_full(error):
            raise error
        needed, free = self._snapshot.num_bytes, shutil.disk_usage(self._folder).free
        newest = self._steps()[-1].name if self._steps() else "none"
        message = (
            f"the disk is full: a checkpoint of about {needed / 1e6:,.0f} MB did not fit into "
            f"{self._folder} ({free / 1e6:,.0f} MB free); the newest one is {newest}"
        )
        if self._has_failed:
            raise BessemerError(
                f"{message}. It is the second time in a row, so training stops before it loses more: free "
                "some space and give the same command again, it continues from there"
            ) from error
        self._has_failed = True
        self._say(f"{message}; training goes on and tries again at the next one: free some space")

    def finish(self) -> None:
        """Wait as `wait` does, at the end of training, when another error may be on its way."""
        self._writer.join()

    def _write(self, step: int, state: dict[str, Any], notes: str) -> None:
        partial = self._folder / f".step-{step:08}.partial"
        try:
            self._together(lambda: self._make_room(partial))
            save_state(state, partial, self._ranks.writers)
            if self._ranks.is_main:
                self._publish(step, state, notes, partial)
        except BaseException:
            if self._ranks.is_main:
                shutil.rmtree(partial, ignore_errors=True)  # so that half a checkpoint takes no space
            raise
        self._has_failed, self._due = False, []

    def _together(self, work: Callable[[], None]) -> None:
        """Do something in the first process while the others wait; what it raises, all raise."""
        if self._ranks.writers is None:
            work()
            return
        error: list[BaseException | None] = [None]
        if self._ranks.is_main:
            try:
                work()
            except OSError as problem:
                error = [problem]
        dist.broadcast_object_list(error, src=0, group=self._ranks.writers)
        if error[0] is not None:
            raise error[0]

    def _make_room(self, partial: Path) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(partial, ignore_errors=True)

    def _publish(self, step: int, state: dict[str, Any], notes: str, partial: Path) -> None:
        """Make the saved parts a checkpoint, and delete those that are too old."""
        (partial / MEMORY).write_text(notes)
        if self._beside is not None:
            weights: Mapping[str, Tensor] = {
                name: value for part in self._written for name, value in state.get(part, {}).items()
            }
            if self._ranks.writers is not None:
                weights = SavedWeights(partial, self._written)
            self._beside(weights, partial / MODEL_FOLDER)
            if self._milestones is not None:
                self._milestones.keep(step, self._due, partial / MODEL_FOLDER)
        checksums = {name: sha256_of(partial / name) for name in _files(partial)}
        (partial / CHECKSUMS).write_text(json.dumps(checksums, indent=2))
        fsync_tree(partial)
        replace_folder(partial, self._folder / f"step-{step:08}")
        for old in self._steps()[: -self._keep]:
            shutil.rmtree(old)

    def load_newest(
        self,
        model: nn.Module,
        optimizers: Optimizers,
        memory: Mapping[str, Remembers] | None = None,
        average: Mapping[str, Tensor] | None = None,
    ) -> int:
        """Load the newest sound checkpoint in place; returns its step, 0 if there is none."""
        return self.go_back(model, optimizers, memory, average) or 0

    def go_back(
        self,
        model: nn.Module,
        optimizers: Optimizers,
        memory: Mapping[str, Remembers] | None = None,
        average: Mapping[str, Tensor] | None = None,
    ) -> int | None:
        """As `load_newest`, but None where there is no sound checkpoint, and all stays as it is."""
        self.wait()
        chosen = self._ranks.agreed(self._newest_sound() if self._ranks.is_main else None)
        if chosen is None:
            return None
        folder = self._folder / chosen
        notes = json.loads((folder / MEMORY).read_text())
        for optimizer, has_stepped in zip(optimizers.all, notes["has_stepped"], strict=True):
            optimizer.state.clear()
            if has_stepped:
                _materialize(optimizer)
        state = _state(model, optimizers, average or {})
        state["optimizers"] = _widened(state["optimizers"])
        placed = _with_places(state, _shapes(model), self._ranks)
        _check_format(folder, notes.get("format", 1), absent_tensors(placed, folder))
        load_state(placed, folder)
        model.load_state_dict(state["model"])
        optimizers.load_state(state["optimizers"])
        for name, part in (memory or {}).items():
            part.from_json(notes["parts"][name])
        return int(folder.name.removeprefix("step-"))

    def _newest_sound(self) -> str | None:
        """Name of the newest checkpoint that is whole; says which are not."""
        for folder in reversed(self._steps()):
            if is_sound(folder):
                return folder.name
            self._say(f"checkpoint {folder.name} is damaged or partial: taking the one before")
        return None

    def _steps(self) -> list[Path]:
        return sorted(self._folder.glob("step-*")) if self._folder.exists() else []


class Milestones:
    """Model folders of some checkpoints, kept for good in the stage's output."""

    def __init__(self, folder: Path, every: int) -> None:
        """`every` in steps, a multiple of those between checkpoints: a milestone is there before the
        checkpoint that a killed run continues from."""
        self._folder, self._every = folder, every

    def keep(self, step: int, due: Sequence[int], model_folder: Path) -> None:
        """Copy the model folder of `step` where one of the steps that it stands for is a milestone."""
        if not any(each > 0 and each % self._every == 0 for each in due):
            return
        self._folder.mkdir(parents=True, exist_ok=True)
        partial = self._folder / f".step-{step:08}.partial"
        shutil.rmtree(partial, ignore_errors=True)
        shutil.copytree(model_folder, partial)
        fsync_tree(partial)
        replace_folder(partial, self._folder / f"step-{step:08}")


def _check_format(folder: Path, version: int, absent: Sequence[str]) -> None:
    """Raises BessemerError for a checkpoint that another version of Bessemer wrote in another way."""
    if version <= FORMAT and not absent:
        return
    lacks = f" and lacks {len(absent)} tensors, such as {absent[0]}" if absent else ""
    raise BessemerError(
        f"checkpoint {folder} has format {version}, of another version of Bessemer than this one, "
        f"which reads {FORMAT}{lacks}: finish the stage with the version that began it, or start it anew "
        "(--from STAGE)"
    )


def is_sound(folder: Path) -> bool:
    """Whether a checkpoint holds just the files that were written, and each matches its checksum."""
    try:
        checksums = json.loads((folder / CHECKSUMS).read_bytes())
    except (OSError, ValueError):  # ValueError: neither JSON nor, perhaps, text at all
        return False
    present = set(_files(folder)) - {CHECKSUMS}
    if not isinstance(checksums, dict) or not present or set(checksums) != present:
        return False
    return all(sha256_of(folder / name) == digest for name, digest in checksums.items())


def _files(folder: Path) -> list[str]:
    """Every file below a folder, by relative name."""
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


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
