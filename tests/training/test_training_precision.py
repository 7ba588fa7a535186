"""Loss scaling for float16, gradient norms by group, and clipping."""

import math

import pytest
import torch
from torch import nn
from training_helpers import Reports, new_model, plan, random_batches, run

from bessemer.model.float8 import multiply_in_float8
from bessemer.training.config import TrainingConfig
from bessemer.training.gradients import clip_by_norms, group_of
from bessemer.training.loss_scale import LossScale, dynamic_loss_scale
from bessemer.training.optimizers import OptimizerConfig


def test_the_scale_halves_on_overflow_and_doubles_after_a_row_of_good_steps():
    scale = LossScale(8.0, is_dynamic=True, growth_interval=3)
    seen = []
    for overflowed in (False, True, False, False, False, False, True):
        scale.note(overflowed=overflowed)
        seen.append(scale.scale)
    assert seen == [8, 4, 4, 4, 8, 8, 4]


def test_a_fixed_scale_never_moves():
    scale = LossScale()
    scale.note(overflowed=True)
    assert scale.scale == 1.0
    assert not scale.can_shrink


def test_the_scale_ends_at_its_bounds():
    scale = dynamic_loss_scale()
    for _ in range(60):
        scale.note(overflowed=True)
    assert scale.scale == 2.0**-14
    assert not scale.can_shrink, "now it is the model that is not finite"


def test_float16_training_finds_its_scale_and_learns_as_float32_does(tmp_path):
    ends = {}
    for dtype in (torch.float16, torch.float32):
        config = OptimizerConfig(kind="adamw", learning_rate=0.01)
        reports = Reports()
        run(
            new_model(dtype),
            plan(25, lambda n: random_batches(n % 2), optimizer=config),
            tmp_path / str(dtype),
            reports,
        )
        ends[dtype] = [report.loss for report in reports.all]
        assert all(math.isfinite(loss) for loss in ends[dtype])
        if dtype == torch.float16:
            assert all("overflow" in report.reason for report in reports.all if report.skipped)
    assert ends[torch.float16][-1] < ends[torch.float16][0] - 0.1
    assert ends[torch.float16][0] == pytest.approx(ends[torch.float32][0], rel=1e-2)
    assert ends[torch.float16][-1] == pytest.approx(ends[torch.float32][-1], rel=0.05)


@pytest.mark.parametrize(
    ("name", "group"),
    [
        ("embedding", "embedding"),
        ("positions", "embedding"),
        ("head", "head"),
        ("blocks.3.qkv", "attention"),
        ("blocks.3.qkv_bias", "attention"),
        ("blocks.0.attention_out", "attention"),
        ("blocks.0.attention_norm", "norms"),
        ("blocks.0.q_norm", "norms"),
        ("final_norm", "norms"),
        ("blocks.0.gate_up", "feed_forward"),
        ("blocks.0.down", "feed_forward"),
    ],
)
def test_every_parameter_has_a_group(name, group):
    assert group_of(name) == group


def test_norms_by_group_are_exact_and_add_up_to_the_global_norm_of_torch():
    model = new_model()
    for number, parameter in enumerate(model.parameters()):
        parameter.grad = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(number))
    gradients = {name: p.grad.clone() for name, p in model.named_parameters()}
    reference = [nn.Parameter(torch.zeros_like(g)) for g in gradients.values()]
    for parameter, gradient in zip(reference, gradients.values(), strict=True):
        parameter.grad = gradient.clone()
    expected = float(nn.utils.clip_grad_norm_(reference, 0.5, foreach=True))
    norm, groups = clip_by_norms(model, 0.5)
    assert norm == expected
    assert math.sqrt(sum(value**2 for value in groups.values())) == pytest.approx(norm, rel=1e-5)
    block = torch.cat([g.flatten() for name, g in gradients.items() if group_of(name) == "feed_forward"])
    assert groups["feed_forward"] == pytest.approx(float(block.norm()), rel=1e-5)
    for parameter, clipped in zip(model.parameters(), reference, strict=True):
        assert torch.equal(parameter.grad, clipped.grad)


def test_training_in_float8_learns_as_float32_does(tmp_path):
    ends = {}
    for name in ("float8", "float32"):
        model = new_model()
        if name == "float8":
            multiply_in_float8(model)
        config = OptimizerConfig(kind="adamw", learning_rate=0.01)
        reports = Reports()
        run(model, plan(25, lambda n: random_batches(n % 2), optimizer=config), tmp_path / name, reports)
        ends[name] = [report.loss for report in reports.all]
    assert ends["float8"] != ends["float32"]
    assert ends["float8"][-1] == pytest.approx(ends["float32"][-1], rel=0.1)
    assert ends["float8"][-1] < ends["float8"][0] - 0.1


def test_float8_and_divided_matrices_contradict_each_other():
    with pytest.raises(ValueError, match="float8 multiplies whole matrices"):
        TrainingConfig.model_validate({"float8": "blocks", "parallel": {"tensor": 2}})
