import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor
from training_helpers import Reports, new_model, plain_batch, plan, random_batches, run, weights

from bessemer.errors import BessemerError
from bessemer.model.config import MixtureConfig
from bessemer.model.transformer import Transformer
from bessemer.objectives.base import LossSum
from bessemer.objectives.language_modeling import LanguageModeling
from bessemer.training.batches import IGNORE, row_of_conversations, stack_rows
from bessemer.training.guard import GuardConfig
from bessemer.training.loop import clip_gradients
from bessemer.training.optimizers import OptimizerConfig
from model_helpers import assert_same_gradients, tiny_model


class Linear:
    """A loss linear in one parameter, so that its gradient is known by heart."""

    def count(self, batch: tuple[float, int]) -> int:
        return batch[1]

    def loss(self, model, batch: tuple[float, int]) -> LossSum:
        return LossSum(batch[0] * model.final_norm.sum(), {"seen": float(batch[1])})


def caught_gradients(model, batches, folder) -> dict[str, Tensor]:
    """The gradients of one step through `fit`, before the update could hide their scale."""
    wide_open = OptimizerConfig(max_gradient_norm=1e9)
    run(model, plan(1, lambda step: batches, optimizer=wide_open), folder)
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def test_a_step_divides_summed_losses_by_the_global_count(tmp_path):
    model, reports = new_model(), Reports()
    one_step = replace(plan(1), objective=Linear(), batches=lambda step: [(8.0, 3), (4.0, 1)])
    run(model, one_step, tmp_path, reports)
    report = reports.all[0]
    assert report.count == 4
    assert report.loss == pytest.approx((8 + 4) * 32 / 4)
    assert report.sums == {"seen": 1.0}
    assert report.gradient_norm == pytest.approx((8 + 4) / 4 * math.sqrt(32))


def test_packing_padding_and_micro_batches_leave_the_gradient_of_a_step_alone(tmp_path):
    items = [(list(range(3, 3 + n)), [False, *([True] * (n - 1))]) for n in (4, 9, 5, 12, 7, 3)]

    def rows(groups, length):
        return stack_rows([row_of_conversations([items[i] for i in group], length, 60) for group in groups])

    packed = rows([(0, 1, 2), (3, 4, 5)], 24)
    padded = rows([(0,), (1,), (2,), (3,), (4,), (5,)], 12)
    layouts = {"packed": [packed], "padded": [padded], "micro": padded.split(4), "rows": packed.split(2)}
    found = {name: caught_gradients(tiny_model(), b, tmp_path / name) for name, b in layouts.items()}
    for name in ("padded", "micro", "rows"):
        assert_same_gradients(found["packed"], found[name])


def test_micro_batches_give_the_same_trained_model(tmp_path):
    """With SGD's linearity gone, AdamW and Muon still see the same gradient up to rounding."""
    config = OptimizerConfig(kind="adamw", learning_rate=1e-3)
    models = [new_model(), new_model()]
    whole = plan(5, lambda step: [_joined(random_batches(step))], optimizer=config)
    run(models[0], whole, tmp_path / "whole")
    run(models[1], plan(5, random_batches, optimizer=config), tmp_path / "parts")
    for one, two in zip(models[0].parameters(), models[1].parameters(), strict=True):
        torch.testing.assert_close(one, two, rtol=0, atol=2e-4)


def _joined(parts):
    return plain_batch(
        torch.cat([part.token_ids_BT for part in parts]), torch.cat([part.targets_BT for part in parts])
    )


def test_clipping_scales_all_gradients_to_the_norm_and_leaves_small_ones():
    model = new_model()
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    norm = math.sqrt(sum(p.numel() for p in model.parameters()))
    assert clip_gradients(model, 1e9) == pytest.approx(norm, rel=1e-5)
    assert clip_gradients(model, 0.5) == pytest.approx(norm, rel=1e-5)
    assert clip_gradients(model, 1e9) == pytest.approx(0.5, rel=1e-4)


def with_bad_steps(bad):
    """A plan whose loss is NaN at the given steps, from 0; three such steps in a row are the limit."""

    class Poisoned:
        def __init__(self):
            self.step = -1

        def count(self, batch):
            self.step += 1
            return 1

        def loss(self, model, batch):
            scale = math.nan if self.step in bad else 1.0
            return LossSum(scale * (model.final_norm**2).sum())

    whole = plan(max(bad) + 3, guard=GuardConfig(max_skipped=3))
    return replace(whole, objective=Poisoned(), batches=lambda step: [None])


def test_a_step_that_is_not_finite_is_skipped_and_leaves_no_trace(tmp_path):
    model, states = new_model(), []
    reports = Reports(lambda report: states.append(weights(model)))
    result, _ = run(model, with_bad_steps({2, 3}), tmp_path, reports)
    assert [report.skipped for report in reports.all] == [False, False, True, True, False, False]
    assert result.skipped_steps == [2, 3]
    assert states[1] == states[2] == states[3]
    assert states[0] != states[1]
    assert states[3] != states[4]
    assert all(torch.isfinite(parameter).all() for parameter in model.parameters())


def test_tokens_of_a_skipped_step_do_not_move_the_choice_of_experts(tmp_path):
    experts = MixtureConfig(
        num_experts=4, experts_per_token=2, expert_size=16, shared_size=16, scores="sigmoid", balance_rate=0.1
    )
    shape = new_model().config.model_copy(update={"mixture": experts})

    class BadAtOne(LanguageModeling):
        def loss(self, model, batch):
            loss = super().loss(model, batch)
            return LossSum(loss.total * (math.nan if len(left) == 1 else 1.0))

    model, left = Transformer(shape).initialize(0), []
    reports = Reports(lambda report: left.append(model.blocks[0].mixture.load_X))
    result, _ = run(model, replace(plan(3), objective=BadAtOne()), tmp_path, reports)
    assert result.skipped_steps == [1]
    assert left == [None, None, None], "the next step's biases move by its own tokens"


def test_a_finite_loss_with_a_gradient_that_is_not_is_skipped_too(tmp_path):
    class Steep:
        def count(self, batch):
            return 1

        def loss(self, model, batch):
            return LossSum(torch.sqrt((model.final_norm - 1).abs().sum()))  # slope of sqrt at 0: infinite

    model, reports = new_model(), Reports()
    before = weights(model)
    run(model, replace(plan(2), objective=Steep(), batches=lambda step: [None]), tmp_path, reports)
    assert math.isfinite(reports.all[0].loss)
    assert [report.skipped for report in reports.all] == [True, True]
    assert weights(model) == before


def test_persistent_trouble_stops_with_the_mend(tmp_path):
    reports = Reports()
    with pytest.raises(
        BessemerError, match=r"not finite for 3 steps in a row, up to step 5: lower optimizer\."
    ):
        run(new_model(), with_bad_steps({3, 4, 5, 6}), tmp_path, reports)
    assert len(reports.all) == 5


def test_scattered_trouble_does_not_stop_the_run(tmp_path):
    result, _ = run(new_model(), with_bad_steps({1, 2, 4, 5, 7, 8}), tmp_path)
    assert result.skipped_steps == [1, 2, 4, 5, 7, 8]


def test_steps_are_reported_from_one_with_their_rates(tmp_path):
    reports = Reports()
    run(new_model(), plan(10), tmp_path, reports)
    assert [report.step for report in reports.all] == list(range(1, 11))
    assert reports.all[0].learning_rate_factor == 1.0
    assert reports.all[-1].learning_rate_factor == pytest.approx(1 / 5)
    assert all(report.count == 64 for report in reports.all)
    assert reports.all[0].loss == pytest.approx(math.log(32), abs=0.1)


def addition(modulus, step):
    """`a b = c` with c = a + b modulo the modulus: the sum is the only target."""
    generator = torch.Generator().manual_seed(step)
    a_B, b_B = torch.randint(modulus, (2, 64), generator=generator)
    ids_BT = torch.stack([a_B, b_B, torch.full_like(a_B, modulus)], dim=1)
    targets_BT = torch.full_like(ids_BT, IGNORE)
    targets_BT[:, 2] = (a_B + b_B) % modulus
    return [plain_batch(ids_BT, targets_BT)]


def copying(step):
    """Six random letters, a sign, and the same six letters, which are the targets."""
    generator = torch.Generator().manual_seed(step)
    letters_BT = torch.randint(16, (48, 6), generator=generator)
    ids_BT = torch.cat([letters_BT, torch.full((48, 1), 16), letters_BT], dim=1)
    targets_BT = ids_BT[:, 1:].clone()
    targets_BT[:, :6] = IGNORE
    return [plain_batch(ids_BT[:, :-1], targets_BT)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_loop_learns_modular_addition(tmp_path, dtype):
    model, reports = new_model(dtype), Reports()
    config = OptimizerConfig(learning_rate=0.02, muon_learning_rate=0.05)
    run(model, plan(200, lambda step: addition(7, step), optimizer=config), tmp_path, reports)
    assert reports.all[0].loss > 1.9
    assert reports.all[-1].loss < 0.01
    pairs = torch.cartesian_prod(torch.arange(7), torch.arange(7))
    with torch.inference_mode():
        logits = model.logits(model(torch.cat([pairs, torch.full((49, 1), 7)], dim=1)))[:, 2]
    assert torch.equal(logits.argmax(-1), pairs.sum(dim=1) % 7)


def test_the_loop_learns_to_copy_which_takes_attention(tmp_path):
    model, reports = tiny_model(17), Reports()
    config = OptimizerConfig(learning_rate=0.01, muon_learning_rate=0.03)
    run(model, plan(250, copying, optimizer=config), tmp_path, reports)
    assert reports.all[-1].loss < 0.05
