"""Settings of a training stage that contradict each other, or that have no effect."""

import pytest

from bessemer.config_faults import messages
from bessemer.training.config import TrainingConfig
from bessemer.training.pretrain import PretrainConfig


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"guard": {"spikes": "rewind", "patience": 30}},
            "guard.patience 30 is more than guard.max_skipped 20",
        ),
        ({"validation_tokens": 0}, "greater than or equal to 1"),
        ({"model": {"future_tokens": -1}}, "greater than or equal to 0"),
        ({"z_loss": -1e-4}, "greater than or equal to 0"),
        ({"schedule": {"warmup": 0.7, "decay": 0.5}}, "together more than all of it"),
        ({"optimizer": {"muon_momentum_warmup": -1}}, "greater than or equal to 0"),
        (
            {"optimizer": {"embedding_learning_rate": 0.1}},
            "_learning_rate is for an untied embedding",
        ),
        ({"embedding_std": 1.0}, "embedding_std is for an untied embedding"),
        ({"model": {"head_dim": 15}}, "model: the model's shape does not fit together:.*head_dim is 15"),
    ],
)
def test_settings_that_cannot_be_meant_are_refused(options, message):
    with pytest.raises(ValueError, match=f"(?s){message}") as error:
        PretrainConfig.model_validate(options)
    (said,) = messages(error.value)  # type: ignore[arg-type]
    assert "Value error" not in said


@pytest.mark.parametrize(
    ("options", "start"),
    [
        ({"optimizer": {"kind": "adamw", "muon_learning_rate": 0.1}}, "optimizer.muon_learning_rate"),
        ({"optimizer": {"kind": "adamw", "muon_momentum_warmup": 3}}, "optimizer.muon_momentum_warmup"),
        ({"schedule": {"shape": "cosine", "decay": 0.2}}, "schedule.decay"),
        ({"recompute": {"every": 2}}, "recompute.every"),
    ],
)
def test_settings_without_effect_are_remarked_also_in_a_resolved_recipe(options, start):
    config = TrainingConfig.model_validate(options)
    for each in (config, TrainingConfig.model_validate(config.model_dump(mode="json"))):
        (remark,) = each.remarks()
        assert remark.startswith(start)
        assert remark.endswith("has no effect: leave it out")
    plain = TrainingConfig.model_validate(TrainingConfig().model_dump(mode="json"))
    assert plain.remarks() == []
