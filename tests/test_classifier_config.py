from __future__ import annotations

import json

import pytest

from utils.classifier_config import (
    ClassifierAugmentConfig,
    ClassifierDataConfig,
    ClassifierLossConfig,
    ClassifierModelConfig,
    ClassifierRunConfig,
    ClassifierSpec,
)
from utils.config import PhaseConfig, TrainConfig
from utils.errors import ConfigError


@pytest.mark.parametrize(
    ("sections", "said"),
    [
        ({"data": ClassifierDataConfig(val_fraction=1.0)}, "data.val_fraction: 1.0: must lie in 0..1, 1 excluded"),
        ({"model": ClassifierModelConfig(input_size=31)}, "model.input_size: 31: must be at least 32"),
        ({"model": ClassifierModelConfig(crop_fraction=0)}, "model.crop_fraction: 0: must lie in 0..1, 0 excluded"),
        ({"augment": ClassifierAugmentConfig(area_min=0)}, "augment.area_min: 0"),
        ({"augment": ClassifierAugmentConfig(aspect_max=0.9)}, "augment.aspect_max: 0.9: must be at least 1"),
        ({"augment": ClassifierAugmentConfig(mixup=float("nan"))}, "augment.mixup: nan: must be 0 or more"),
        ({"augment": ClassifierAugmentConfig(hue=1.1)}, "augment.hue: 1.1"),
        ({"loss": ClassifierLossConfig(-0.1)}, "loss.label_smoothing: -0.1: must lie in 0..1"),
        ({"train": TrainConfig(freeze_epochs=0, epochs=0)}, "train.epochs: 0: must be at least 1"),
        ({"train": TrainConfig(phases=(PhaseConfig(3, 4, True), PhaseConfig(2, 4, False)))}, "until_epoch must rise"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(sections, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        ClassifierRunConfig(**sections)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_spec_survives_json() -> None:
    spec = ClassifierSpec(("ä", "細胞"), "efficientnet_b1", 96, "letterbox", 1.0, versions={"keras": "3"})
    assert ClassifierSpec.from_dict(json.loads(json.dumps(spec.to_dict()))) == spec
