from dataclasses import replace

import pytest
import torch
from training_helpers import Reports, new_model, plan, run, weights

from bessemer.training.average import AverageConfig, WeightAverage


def test_the_average_is_the_weighted_sum_of_all_weights_so_far():
    model = new_model()
    average = WeightAverage(model, AverageConfig(decay=0.3))
    expected = {name: p.detach().double().clone() for name, p in model.named_parameters()}
    for step in range(1, 6):
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(step)))
        average.update()
        decay = min(0.3, (1 + step) / (10 + step))
        for name, parameter in model.named_parameters():
            expected[name] = decay * expected[name] + (1 - decay) * parameter.detach().double()
    for name, value in average.tensors.items():
        torch.testing.assert_close(value.double(), expected[name], rtol=1e-5, atol=1e-5)


def test_early_on_the_start_is_forgotten_faster_than_the_decay_says():
    model = new_model()
    average = WeightAverage(model, AverageConfig(decay=0.9999))
    start = average.tensors["final_norm"].clone()
    with torch.no_grad():
        model.final_norm.fill_(5.0)
    for _ in range(20):
        average.update()
    assert float((average.tensors["final_norm"] - 5).abs().max()) < 0.01 * float((start - 5).abs().max())


@pytest.mark.parametrize("export", ["average", "last"])
def test_weights_are_swapped_for_a_validation_and_come_back_bit_by_bit(export):
    model = new_model()
    average = WeightAverage(model, AverageConfig(export=export))
    with torch.no_grad():
        model.final_norm.fill_(5.0)
    before = weights(model)
    with average.applied():
        assert model.final_norm[0].item() == (1.0 if export == "average" else 5.0)
    assert weights(model) == before
    average.write_to_model()
    assert model.final_norm[0].item() == (1.0 if export == "average" else 5.0)


def averaged_plan(model, num_steps):
    average = WeightAverage(model, AverageConfig(decay=0.9))
    return replace(plan(num_steps, checkpoint_every=4), average=average)


def test_a_resumed_run_has_the_same_average(tmp_path):
    model = new_model()
    whole = averaged_plan(model, 10)
    run(model, whole, tmp_path / "whole")
    reports, cut = Reports(), new_model()
    stopped = replace(averaged_plan(cut, 10), should_stop=lambda: len(reports.all) == 6)
    run(cut, stopped, tmp_path / "two", reports)
    other = new_model()
    resumed = averaged_plan(other, 10)
    result, _ = run(other, resumed, tmp_path / "two")
    assert result.first_step == 4
    assert resumed.average.num_updates == whole.average.num_updates == 10
    for name, value in whole.average.tensors.items():
        assert torch.equal(value, resumed.average.tensors[name]), name


def test_averaging_leaves_training_itself_alone(tmp_path):
    plain, averaged = new_model(), new_model()
    run(plain, plan(6), tmp_path / "plain")
    run(averaged, averaged_plan(averaged, 6), tmp_path / "averaged")
    assert weights(plain) == weights(averaged)
