import os
import signal
import time

import pytest
import torch
from training_helpers import Reports, new_model, plan, run, weights

from bessemer.training.checkpoint import CHECKSUMS, Checkpoints, is_sound
from bessemer.training.optimizers import OptimizerConfig, Optimizers
from stage_helpers import kill_at_operation, killed

STEPS, EVERY = 9, 2


def trained(folder, num_steps=5, dtype=torch.float32, checkpoint_every=2):
    model = new_model(dtype)
    run(model, plan(num_steps, checkpoint_every=checkpoint_every), folder)
    return model


def save(folder, step, model, optimizers):
    checkpoints = Checkpoints(folder)
    checkpoints.save(step, model, optimizers)
    checkpoints.wait()


def states(optimizers):
    found = []
    for optimizer in optimizers.all:
        for key, state in sorted(optimizer.state_dict()["state"].items()):
            for name, value in sorted(state.items()):
                found.append((key, name, value.numpy().tobytes()))
    return found


def test_what_is_loaded_is_what_was_saved_bit_by_bit(tmp_path):
    model = new_model()
    config = OptimizerConfig(weight_decay=0.1)
    optimizers = Optimizers(model, config)
    for seed in range(3):
        generator = torch.Generator().manual_seed(seed)
        for parameter in model.parameters():
            parameter.grad = torch.randn(parameter.shape, generator=generator)
        optimizers.step()
    save(tmp_path, 3, model, optimizers)
    other = new_model(seed=9)
    fresh = Optimizers(other, config)
    assert Checkpoints(tmp_path).load_newest(other, fresh) == 3
    assert weights(other) == weights(model)
    assert states(fresh) == states(optimizers)
    assert len(fresh.all) == 2, "Muon and AdamW"


def test_loading_into_an_optimizer_does_not_move_or_decay_anything(tmp_path):
    """Room for the state is made with a step of zero length; it must not show when nothing loads."""
    model = new_model()
    save(tmp_path, 1, model, _with_state(model))
    before = weights(model)
    optimizers = Optimizers(model, OptimizerConfig(weight_decay=0.5))
    rates = [group["lr"] for optimizer in optimizers.all for group in optimizer.param_groups]
    Checkpoints(tmp_path).load_newest(model, optimizers)
    assert weights(model) == before
    assert all(parameter.grad is None for parameter in model.parameters())
    optimizers.set_learning_rate_factor(1.0)
    assert [group["lr"] for o in optimizers.all for group in o.param_groups] == rates


def _with_state(model):
    optimizers = Optimizers(model, OptimizerConfig(weight_decay=0.5))
    optimizers.set_learning_rate_factor(0.0)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizers.step()
    optimizers.zero_grad()
    return optimizers


def test_without_checkpoints_training_starts_at_the_beginning(tmp_path):
    model = new_model()
    assert Checkpoints(tmp_path / "none").load_newest(model, Optimizers(model, OptimizerConfig())) == 0


def test_only_the_newest_checkpoints_are_kept(tmp_path):
    trained(tmp_path, num_steps=9, checkpoint_every=2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-00000006", "step-00000008"]


def cut_short(folder):
    largest = max(folder.glob("*.distcp"), key=lambda path: path.stat().st_size)
    largest.write_bytes(largest.read_bytes()[:-1])


def change_a_bit(folder):
    largest = max(folder.glob("*.distcp"), key=lambda path: path.stat().st_size)
    content = bytearray(largest.read_bytes())
    content[len(content) // 2] ^= 1
    largest.write_bytes(content)


def lose_a_file(folder):
    (folder / ".metadata").unlink()


def lose_the_checksums(folder):
    (folder / CHECKSUMS).unlink()


def scramble_the_checksums(folder):
    (folder / CHECKSUMS).write_bytes(b"\xff\xfe\x00[")


def replace_the_checksums(folder):
    (folder / CHECKSUMS).write_text("[]")


DAMAGES = [
    cut_short,
    change_a_bit,
    lose_a_file,
    lose_the_checksums,
    scramble_the_checksums,
    replace_the_checksums,
]


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_checkpoint_is_passed_over_for_the_one_before_and_said(tmp_path, damage):
    undisturbed = trained(tmp_path / "undisturbed", 7)
    folder = tmp_path / "damaged"
    trained(folder, 7)
    newest = folder / "step-00000006"
    assert is_sound(newest)
    damage(newest)
    assert not is_sound(newest)
    model, reports = new_model(), Reports()
    result, said = run(model, plan(7, checkpoint_every=2), folder, reports)
    assert said == ["checkpoint step-00000006 is damaged or partial: taking the one before"]
    assert result.first_step == 4
    assert [report.step for report in reports.all] == [5, 6, 7]
    assert weights(model) == weights(undisturbed)
    assert is_sound(newest), "it was written anew on the way"


def test_training_starts_over_when_every_checkpoint_is_damaged(tmp_path):
    undisturbed = trained(tmp_path, 5)
    for folder in tmp_path.glob("step-*"):
        cut_short(folder)
    model = new_model()
    result, said = run(model, plan(5), tmp_path)
    assert (result.first_step, len(said)) == (0, 2)
    assert weights(model) == weights(undisturbed)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_run_killed_between_checkpoints_ends_with_the_same_weights(tmp_path, dtype):
    undisturbed = trained(tmp_path / "undisturbed", STEPS, dtype, checkpoint_every=4)

    folder = tmp_path / "killed"

    def die(report):
        if report.step == 7:
            while not (folder / "step-00000004").exists():  # it is written in the background
                time.sleep(0.001)
            os.kill(os.getpid(), signal.SIGKILL)

    assert killed(lambda: run(new_model(dtype), plan(STEPS, checkpoint_every=4), folder, Reports(die)))
    model, reports = new_model(dtype), Reports()
    result, _ = run(model, plan(STEPS, checkpoint_every=4), folder, reports)
    assert result.first_step == 4
    assert [report.step for report in reports.all] == [5, 6, 7, 8, 9]
    assert weights(model) == weights(undisturbed)


def test_a_momentum_that_is_warmed_up_goes_on_rising_after_a_stop(tmp_path):
    warming = OptimizerConfig(muon_momentum_warmup=8)

    def stop(report):
        if report.step == 6:
            raise KeyboardInterrupt

    undisturbed, stopped, constant = new_model(), new_model(), new_model()
    run(undisturbed, plan(STEPS, optimizer=warming), tmp_path / "undisturbed")
    run(constant, plan(STEPS, optimizer=OptimizerConfig()), tmp_path / "constant")
    the_plan = plan(STEPS, checkpoint_every=4, optimizer=warming)
    with pytest.raises(KeyboardInterrupt):
        run(new_model(), the_plan, tmp_path / "stopped", Reports(stop))
    result, _ = run(stopped, the_plan, tmp_path / "stopped")
    assert result.first_step == 4
    assert weights(stopped) == weights(undisturbed)
    assert weights(constant) != weights(undisturbed)


def test_a_run_killed_at_any_file_operation_ends_with_the_same_weights(tmp_path):
    expected = weights(trained(tmp_path / "undisturbed", STEPS, checkpoint_every=EVERY))
    resumed_at = set()
    for operation in range(1, 200, 9):
        folder = tmp_path / f"killed-{operation}"
        folder.mkdir()

        def work(folder=folder, operation=operation):
            kill_at_operation(folder, operation)
            run(new_model(), plan(STEPS, checkpoint_every=EVERY), folder)

        if not killed(work):
            break
        model = new_model()
        result, said = run(model, plan(STEPS, checkpoint_every=EVERY), folder)
        resumed_at.add(result.first_step)
        assert weights(model) == expected, f"killed at file operation {operation}"
        assert not said, "a kill never leaves a newest checkpoint that is damaged"
        assert sorted(path.name for path in folder.glob("step-*")) == ["step-00000006", "step-00000008"]
    assert resumed_at >= {0, 2, 4, 6}
