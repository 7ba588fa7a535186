"""Checkpoints in the background: a full disk, damage inside the model folder, milestones, blocking."""

import errno
import json
import math
import os
import threading
from contextlib import contextmanager
from dataclasses import replace

import pytest
import torch
from torch.distributed.checkpoint.filesystem import FileSystem
from training_helpers import Reports, new_model, plan, run, weights

from bessemer.errors import BessemerError
from bessemer.objectives.base import LossSum
from bessemer.objectives.language_modeling import LanguageModeling
from bessemer.runner.files import sha256_of
from bessemer.training import saved_state
from bessemer.training.checkpoint import (
    CHECKSUMS,
    MEMORY,
    MODEL_FOLDER,
    Checkpoints,
    Milestones,
    is_sound,
)
from bessemer.training.loop import fit
from bessemer.training.optimizers import OptimizerConfig, Optimizers
from bessemer.training.quantized import Quantized
from bessemer.training.snapshot import Snapshot


def full_disk(monkeypatch, failing):
    """Writing fails for want of space at the given calls, from 0."""
    real, calls = saved_state.save, []

    def save(*args, **kwargs):
        calls.append(1)
        if len(calls) - 1 in failing:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(*args, **kwargs)

    monkeypatch.setattr(saved_state, "save", save)


def test_one_full_disk_is_said_and_training_ends_with_the_same_weights(tmp_path, monkeypatch):
    undisturbed = new_model()
    run(undisturbed, plan(9, checkpoint_every=2), tmp_path / "undisturbed")
    full_disk(monkeypatch, {1})
    model, folder = new_model(), tmp_path / "full"
    _, said = run(model, plan(9, checkpoint_every=2), folder)
    (message,) = said
    assert "the disk is full" in message
    assert "the newest one is step-00000002; training goes on" in message
    assert weights(model) == weights(undisturbed)
    assert sorted(path.name for path in folder.iterdir()) == ["step-00000006", "step-00000008"]


class Filling:
    """A buffered file on a full disk: what does not fit the buffer fails, and only that."""

    def __init__(self, file):
        self._file = file

    def write(self, data):
        if len(data) >= 4096:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return self._file.write(data)

    def __getattr__(self, name):
        return getattr(self._file, name)


def test_a_disk_that_fills_up_inside_torchs_writer_is_said_and_training_goes_on(tmp_path, monkeypatch):
    """torch's writer hides "no space left" behind an error about positions in its file."""
    real, files = FileSystem.create_stream, []

    @contextmanager
    def create_stream(self, path, mode):
        files.append(path)
        with real(self, path, mode) as stream:
            yield Filling(stream) if len(files) == 1 else stream

    monkeypatch.setattr(FileSystem, "create_stream", create_stream)
    _, said = run(new_model(), plan(5, checkpoint_every=2), tmp_path)
    (message,) = said
    assert "the disk is full" in message
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000004"]


def test_a_disk_that_stays_full_stops_training_and_names_where_it_continues(tmp_path, monkeypatch):
    full_disk(monkeypatch, {1, 2})
    reports = Reports()
    with pytest.raises(BessemerError, match=r"newest one is step-00000002.*free some space.*continues"):
        run(new_model(), plan(20, checkpoint_every=2), tmp_path, reports)
    assert len(reports.all) < 10
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000002"], "no half-written files are left"
    monkeypatch.undo()
    result, _ = run(new_model(), plan(20, checkpoint_every=2), tmp_path)
    assert result.first_step == 2


def test_any_other_fault_of_writing_reaches_the_caller(tmp_path, monkeypatch):
    def broken(*args, **kwargs):
        raise RuntimeError("cannot write this")

    monkeypatch.setattr(saved_state, "save", broken)
    with pytest.raises(RuntimeError, match="cannot write this"):
        run(new_model(), plan(9, checkpoint_every=2), tmp_path)


def test_training_goes_on_while_a_checkpoint_is_written(tmp_path, monkeypatch):
    """Writing waits for a later step: were it not in the background, this would never end."""
    go_on = threading.Event()
    real = saved_state.save

    def slow(*args, **kwargs):
        assert go_on.wait(30)
        return real(*args, **kwargs)

    monkeypatch.setattr(saved_state, "save", slow)
    reports = Reports(lambda report: go_on.set() if report.step == 3 else None)
    run(new_model(), plan(4, checkpoint_every=2), tmp_path, reports)
    assert [path.name for path in tmp_path.glob("step-*")] == ["step-00000002"]


def test_what_is_written_is_the_state_when_it_was_saved_not_later(tmp_path, monkeypatch):
    go_on = threading.Event()
    real = saved_state.save
    monkeypatch.setattr(saved_state, "save", lambda *a, **k: (go_on.wait(30), real(*a, **k)))
    model = new_model()
    optimizers = Optimizers(model, OptimizerConfig())
    checkpoints, before = Checkpoints(tmp_path), weights(model)
    checkpoints.save(1, model, optimizers)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    go_on.set()
    checkpoints.wait()
    other = new_model(seed=5)
    assert Checkpoints(tmp_path).load_newest(other, Optimizers(other, OptimizerConfig())) == 1
    assert weights(other) == before


def test_a_snapshot_copies_everything_into_the_same_memory_again():
    tensors = {
        "a": torch.arange(4.0),
        "b": [torch.ones(2), {"c": torch.zeros(3, dtype=torch.uint8)}],
        "d": 0.5,
    }
    snapshot = Snapshot()
    first = snapshot.take(tensors)
    tensors["a"].fill_(9)
    assert first["a"].tolist() == [0, 1, 2, 3]
    place = first["a"].data_ptr()
    second = snapshot.take(tensors)
    assert second["a"].tolist() == [9, 9, 9, 9]
    assert second["a"].data_ptr() == place
    assert second["b"][1]["c"].dtype == torch.uint8
    assert snapshot.num_bytes == 4 * 4 + 2 * 4 + 3


def checkpoints_with_folder(folder, milestones=None):
    def beside(state, target):
        target.mkdir()
        (target / "weights.json").write_text(json.dumps(sorted(state)))
        (target / "inner").mkdir()
        (target / "inner" / "file").write_text("x")

    return Checkpoints(folder, beside=beside, milestones=milestones)


def test_the_model_folder_is_part_of_the_checkpoint_and_its_damage_is_seen(tmp_path):
    fit(new_model(), plan(5, checkpoint_every=2), checkpoints_with_folder(tmp_path), Reports())
    newest = tmp_path / "step-00000004"
    assert "embedding" in json.loads((newest / MODEL_FOLDER / "weights.json").read_text())
    assert is_sound(newest)
    (newest / MODEL_FOLDER / "inner" / "file").write_text("y")
    assert not is_sound(newest)


def test_damaged_memory_of_the_loop_is_seen_too(tmp_path):
    run(new_model(), plan(5, checkpoint_every=2), tmp_path)
    newest = tmp_path / "step-00000004"
    notes = newest / MEMORY
    notes.write_bytes(notes.read_bytes()[:-1])
    result, said = run(new_model(), plan(5, checkpoint_every=2), tmp_path)
    assert result.first_step == 2
    assert "step-00000004 is damaged" in said[0]


def test_milestones_stay_when_their_checkpoints_go(tmp_path):
    milestones = Milestones(tmp_path / "milestones", every=4)
    checkpoints = checkpoints_with_folder(tmp_path / "checkpoints", milestones)
    fit(new_model(), plan(13, checkpoint_every=2), checkpoints, Reports())
    kept = sorted(path.name for path in (tmp_path / "checkpoints").iterdir())
    assert kept == ["step-00000010", "step-00000012"]
    assert sorted(path.name for path in (tmp_path / "milestones").iterdir()) == [
        "step-00000004",
        "step-00000008",
        "step-00000012",
    ]
    assert (tmp_path / "milestones" / "step-00000004" / "inner" / "file").read_text() == "x"


class Spoilt:
    """Language modelling whose loss is not finite on some batches."""

    def __init__(self, bad):
        self._bad, self._inner = bad, LanguageModeling()

    def count(self, batch):
        return self._inner.count(batch[1])

    def loss(self, model, batch):
        total = self._inner.loss(model, batch[1]).total
        return LossSum(total * math.nan) if batch[0] in self._bad else LossSum(total)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("bad", [{3}, {3, 4}])
def test_a_checkpoint_that_falls_on_a_bad_step_is_written_at_the_next_good_one(tmp_path, bad):
    """And so is the milestone: steps are counted from 1, batches from 0."""
    whole = plan(9, checkpoint_every=4)
    spoilt = replace(
        whole, objective=Spoilt(bad), batches=lambda number: [(number, b) for b in whole.batches(number)]
    )
    checkpoints = checkpoints_with_folder(tmp_path / "c", Milestones(tmp_path / "m", every=4))
    result = fit(new_model(), spoilt, checkpoints, Reports())
    late = f"step-0000000{4 + len(bad)}"
    assert result.skipped_steps == sorted(bad)
    assert names(tmp_path / "c") == names(tmp_path / "m") == [late, "step-00000008"]


def test_a_milestone_that_met_a_full_disk_is_kept_with_the_next_checkpoint(tmp_path, monkeypatch):
    full_disk(monkeypatch, {1})
    checkpoints = checkpoints_with_folder(tmp_path / "c", Milestones(tmp_path / "m", every=4))
    fit(new_model(), plan(9, checkpoint_every=2), checkpoints, Reports())
    assert names(tmp_path / "m") == ["step-00000006", "step-00000008"]


def renamed_quantities(state):
    """8-bit state as the first format had it."""
    return {
        kind: {
            name: {
                key: value
                for quantity, held in quantities.items()
                for key, value in (
                    ((f"{quantity}_codes", held.codes), (f"{quantity}_scales", held.scales))
                    if isinstance(held, Quantized)
                    else ((quantity, held),)
                )
            }
            for name, quantities in of_kind.items()
        }
        for kind, of_kind in state.items()
    }


def set_notes(folder, change):
    """Change what a checkpoint notes beside its tensors, checksum included."""
    notes, checksums = folder / MEMORY, folder / CHECKSUMS
    notes.write_text(json.dumps(change(json.loads(notes.read_text()))))
    checksums.write_text(json.dumps(json.loads(checksums.read_text()) | {MEMORY: sha256_of(notes)}))


def test_a_checkpoint_of_another_format_is_refused_with_its_folder_and_what_to_do(tmp_path, monkeypatch):
    settings = plan(5, checkpoint_every=2, optimizer=OptimizerConfig(kind="adamw", state_bits=8))
    state = Optimizers.state
    with monkeypatch.context() as earlier:
        earlier.setattr(Optimizers, "state", lambda self: renamed_quantities(state(self)))
        run(new_model(), settings, tmp_path)
    newest = tmp_path / "step-00000004"
    set_notes(newest, lambda notes: {name: value for name, value in notes.items() if name != "format"})
    message = (
        rf"checkpoint {newest} has format 1, .*, which reads 2 and lacks \d+ tensors, such as "
        r"optimizers\.adamw_8bit\.blocks.0.*exp_avg: finish the stage with the version that began it, or"
    )
    with pytest.raises(BessemerError, match=message):
        run(new_model(), settings, tmp_path)


def test_a_checkpoint_without_a_format_that_holds_all_tensors_is_read_and_one_of_later_is_not(tmp_path):
    settings = plan(5, checkpoint_every=2)
    run(new_model(), settings, tmp_path)
    newest = tmp_path / "step-00000004"
    set_notes(newest, lambda notes: {name: value for name, value in notes.items() if name != "format"})
    result, _ = run(new_model(), settings, tmp_path)
    assert result.first_step == 4
    set_notes(newest, lambda notes: notes | {"format": 3})
    with pytest.raises(BessemerError, match="has format 3, of another version of Bessemer"):
        run(new_model(), settings, tmp_path)
