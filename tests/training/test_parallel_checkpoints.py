"""A run goes on with any number of processes: weights, optimizer state and the data's order."""

import errno
import io
import os
from dataclasses import replace

import pytest
import torch
from parallel_helpers import RankFailed, run_ranks
from test_data_parallel import rows
from torch import Tensor
from torch.distributed.checkpoint.filesystem import FileSystem
from training_helpers import MUON_ROUNDING, Reports, plan

from bessemer.errors import BessemerError
from bessemer.training.checkpoint import Checkpoints, is_sound
from bessemer.training.loop import fit
from bessemer.training.optimizers import OptimizerConfig, Optimizers
from bessemer.training.parallel.joined import whole_tensor
from bessemer.training.parallel.layout import ParallelConfig, build_layout
from bessemer.training.parallel.ranks import Alone, Ranks
from bessemer.training.parallel.together import Together
from model_helpers import tiny_model

OPTIMIZER = OptimizerConfig(learning_rate=1e-3, muon_learning_rate=0.01)
STEPS = 6


def train(folder, ranks: Ranks, num_steps: int, die_after: int | None = None) -> list[float]:
    """Losses of the steps that this call took, with a checkpoint after every second one."""
    model = tiny_model()
    ranks.prepare(model, OPTIMIZER)

    def die(report) -> None:
        if report.step == die_after:
            os._exit(9)

    reports = Reports(die)
    the_plan = replace(
        plan(STEPS, lambda step: rows(step, ranks), optimizer=OPTIMIZER, checkpoint_every=2),
        should_stop=lambda: len(reports.all) == num_steps,
    )
    fit(model, the_plan, Checkpoints(folder, ranks=ranks), reports, ranks)
    return [report.loss for report in reports.all]


def train_together(rank: int, world_size: int, folder, config, num_steps: int) -> list[float]:
    return train(folder, Together(build_layout(config, world_size)), num_steps)


def state_of(folder, ranks: Ranks) -> dict[str, Tensor]:
    """The newest checkpoint's weights and optimizer state, whole, as these processes load it."""
    model = tiny_model(seed=5)
    ranks.prepare(model, OPTIMIZER)
    optimizers = Optimizers(model, OPTIMIZER)
    assert Checkpoints(folder, ranks=ranks).load_newest(model, optimizers) > 0
    found = {name: whole_tensor(p).clone() for name, p in model.named_parameters()}
    for place, optimizer in enumerate(optimizers.all):
        for number, state in optimizer.state_dict()["state"].items():
            for name, value in state.items():
                found[f"{place}.{number}.{name}"] = whole_tensor(value).clone()
    return found


def load_together(rank: int, world_size: int, folder, config) -> dict[str, Tensor]:
    return state_of(folder, Together(build_layout(config, world_size)))


def test_a_checkpoint_of_any_layout_loads_into_any_other(tmp_path):
    """4 → 2 → 1 and 1 → 2, bit by bit: weights and optimizer state."""
    run_ranks(4, train_together, tmp_path, ParallelConfig(data=2, shard=2), 3)
    alone = state_of(tmp_path, Alone())
    assert len(alone) > 30, "weights, two moments of AdamW, Muon's momentum"
    for config in (ParallelConfig(shard=2), ParallelConfig(data=2)):
        for loaded in run_ranks(2, load_together, tmp_path, config):
            assert loaded.keys() == alone.keys()
            assert all(torch.equal(value, alone[name]) for name, value in loaded.items())


def test_a_run_goes_on_from_one_process_to_two_and_back_with_the_same_losses(tmp_path):
    undisturbed = train(tmp_path / "alone", Alone(), STEPS)
    folder = tmp_path / "changing"
    losses = train(folder, Alone(), 3)[:2]  # the newest checkpoint is after two steps
    losses += run_ranks(2, train_together, folder, ParallelConfig(shard=2), 3)[0][:2]
    losses += train(folder, Alone(), STEPS)
    assert losses == pytest.approx(undisturbed, rel=MUON_ROUNDING / 100)


def die_at_step_three(rank: int, world_size: int, folder, config) -> None:
    train(folder, Together(build_layout(config, world_size)), STEPS, die_after=3 if rank == 1 else None)


def test_a_killed_rank_and_a_restart_give_the_losses_of_an_undisturbed_run(tmp_path):
    config = ParallelConfig(shard=2)
    undisturbed = run_ranks(2, train_together, tmp_path / "calm", config, STEPS)[0]
    with pytest.raises(RankFailed, match="rank 1 ended with exit code 9"):
        run_ranks(2, die_at_step_three, tmp_path / "killed", config)
    sound = [folder.name for folder in (tmp_path / "killed").glob("step-*") if is_sound(folder)]
    assert sound in ([], ["step-00000002"])
    again = run_ranks(2, train_together, tmp_path / "killed", config, STEPS)[0]
    assert again == undisturbed[-len(again) :]


class FullFile(io.FileIO):
    """Takes a little more than nothing."""

    def write(self, data) -> int:
        if self.tell() > 200:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return super().write(data)


def with_a_full_disk(rank: int, world_size: int, folder, full_at: list[int]) -> tuple[list[float], list[str]]:
    """Losses, and what the checkpoints said, where the second rank's disk is full at some of the saves, in
    the midst of a tensor: torch's writer then hides what the system said."""
    real, saves, said = FileSystem.create_stream, iter(range(9)), []

    def create_stream(self, path, mode):
        if rank == 1 and path.suffix == ".distcp" and next(saves) in full_at:
            return FullFile(path, mode)
        return real(self, path, mode)

    FileSystem.create_stream = create_stream
    ranks, model = Together(build_layout(ParallelConfig(shard=2), world_size)), tiny_model()
    ranks.prepare(model, OPTIMIZER)
    reports = Reports()
    the_plan = plan(STEPS, lambda step: rows(step, ranks), optimizer=OPTIMIZER, checkpoint_every=2)
    try:
        fit(model, the_plan, Checkpoints(folder, say=said.append, ranks=ranks), reports, ranks)
    except BessemerError as error:
        said.append(str(error))
    return [report.loss for report in reports.all], said


@pytest.mark.parametrize("full_at", [[1], [0, 1]], ids=["once", "twice"])
def test_a_full_disk_of_one_rank_loses_nothing_that_was_saved(tmp_path, full_at):
    """Once, training goes on; twice in a row, all ranks stop, at the end of this short run at the latest."""
    for losses, said in run_ranks(2, with_a_full_disk, tmp_path, full_at):
        assert len(said) == len(full_at)
        assert "the disk is full" in said[0]
        assert ("second time in a row" in said[-1]) == (len(full_at) == 2)
        assert len(losses) == STEPS
    folders = sorted(folder.name for folder in tmp_path.iterdir())
    assert folders == (["step-00000002"] if full_at == [1] else [])
    assert all(is_sound(tmp_path / name) for name in folders)


def resume_with_damage(rank: int, world_size: int, folder) -> tuple[int, list[str]]:
    """The step that a rank continues from, and what it said."""
    said: list[str] = []
    ranks, model = Together(build_layout(ParallelConfig(shard=2), world_size)), tiny_model()
    ranks.prepare(model, OPTIMIZER)
    checkpoints = Checkpoints(folder, say=said.append, ranks=ranks)
    return checkpoints.load_newest(model, Optimizers(model, OPTIMIZER)), said


@pytest.mark.parametrize("damage", ["a changed byte", "missing"])
def test_a_damaged_part_of_one_rank_makes_all_ranks_take_the_checkpoint_before(tmp_path, damage):
    run_ranks(2, train_together, tmp_path, ParallelConfig(shard=2), STEPS)
    before, newest = sorted(tmp_path.glob("step-*"))
    (part,) = newest.glob("__1_*.distcp")
    whole = part.read_bytes()
    if damage == "missing":
        part.unlink()
    else:
        middle = len(whole) // 2
        part.write_bytes(whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :])
    (first, said), (second, _) = run_ranks(2, resume_with_damage, tmp_path)
    assert first == second == int(before.name.removeprefix("step-")) > 0
    assert any(newest.name in line and "damaged" in line for line in said)
