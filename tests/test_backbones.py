from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from nets.backbones import BACKBONES, build_backbone, build_classifier
from nets.backbones.efficientnet import STAGES
from tests.official_weights import official_model, save_official
from utils.config import STRIDES
from utils.errors import ConfigError

# Size, channels of P3, P4, P5, parameters with a top of 1000 classes (arXiv:1905.11946 table 2 rounds them).
# Odd sizes among the inputs, because stride 2 pads them differently.
CASES = {
    "efficientnet_b0": (75, (40, 112, 320), 5_330_564),
    "efficientnet_b1": (64, (40, 112, 320), 7_856_232),
    "efficientnet_b2": (69, (48, 120, 352), 9_177_562),
    "efficientnet_b3": (64, (48, 136, 384), 12_320_528),
    "efficientnet_b4": (71, (56, 160, 448), 19_466_816),
    "efficientnet_b5": (64, (64, 176, 512), 30_562_520),
    "efficientnet_b6": (64, (72, 200, 576), 43_265_136),
    "efficientnet_b7": (64, (80, 224, 640), 66_658_680),
}


def photo(size: int, batch: int = 1) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (batch, size, size, 3), dtype=np.uint8)


def assert_agree(ours: tf.Tensor, theirs: tf.Tensor) -> None:
    assert 0.1 < np.abs(theirs).max() < 10
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-5)


def test_every_backbone_has_a_case() -> None:
    # Keras has no EfficientNet-Lite0; tests/test_lite0.py holds it to its author's code.
    assert set(BACKBONES) == {*CASES, "efficientnet_lite0"}


@pytest.mark.parametrize("name", CASES)
def test_agrees_with_keras_applications_through_an_official_file(name: str, tmp_path) -> None:
    size, channels, parameters = CASES[name]
    official = official_model(name, size)
    path = save_official(official, tmp_path / "weights.h5")
    image = photo(size)
    tensors = [official.get_layer(tap).output for tap in BACKBONES[name].taps]
    theirs = keras.Model(official.inputs[0], [*tensors, official.output])
    *their_taps, probabilities = theirs(image.astype(np.float32))

    classifier = build_classifier(name, classes=10, input_shape=(size, size, 3), weights=path)
    backbone = build_backbone(name, weights=path)
    path.unlink()  # up to 270 MB each

    features = classifier.get_layer("predictions").kernel.shape[0]
    assert classifier.count_params() + 990 * (features + 1) == parameters
    assert_agree(classifier(image), probabilities)
    for (level, ours), expected, width in zip(backbone(image).items(), their_taps, channels, strict=True):
        assert ours.shape[-1] == width, level
        assert_agree(ours, expected)


def test_default_classifier_has_the_probabilities_of_1000_classes() -> None:
    probabilities = build_classifier("efficientnet_b0")(photo(64, batch=2)).numpy()
    assert probabilities.shape == (2, 1000)
    np.testing.assert_allclose(probabilities.sum(1), 1, rtol=1e-5)


def test_loads_a_file_without_top(tmp_path) -> None:
    official = official_model("efficientnet_b0", 64, include_top=False)
    path = save_official(official, tmp_path / "notop.h5")
    backbone = build_backbone("efficientnet_b0", weights=path)
    last = keras.Model(official.inputs[0], official.get_layer("block7a_project_bn").output)
    expected = last(photo(64).astype(np.float32))
    assert_agree(backbone(photo(64))["P5"], expected)


def test_fresh_top_takes_a_file_without_top_or_of_other_classes(tmp_path) -> None:
    for include_top in (False, True):
        official = official_model("efficientnet_b0", 64, include_top, classes=10)
        path = save_official(official, tmp_path / f"{include_top}.h5")
        model = build_classifier("efficientnet_b0", classes=3, weights=path, fresh_top=True)
        kernel = official.get_layer("top_conv").kernel.numpy()
        np.testing.assert_array_equal(model.get_layer("top_conv").kernel.numpy(), kernel)
        assert model(photo(64)).shape == (1, 3)


@pytest.mark.parametrize("size_hw", [(64, 64), (96, 160)])
def test_levels_have_their_strides(size_hw: tuple[int, int]) -> None:
    height, width = size_hw
    levels = build_backbone("efficientnet_b0")(np.zeros((2, height, width, 3), np.uint8))
    assert {k: tuple(v.shape[:3]) for k, v in levels.items()} == {
        level: (2, height // stride, width // stride) for level, stride in STRIDES.items()
    }


def test_taps_are_the_last_blocks_of_stages_3_5_7() -> None:
    for spec in BACKBONES.values():
        for tap, stage in zip(spec.taps, (3, 5, 7), strict=True):
            repeats = spec.architecture.repeats(STAGES[stage - 1].repeats)
            ending = "project_bn" if repeats == 1 else "add"
            assert tap == f"block{stage}{chr(ord('a') + repeats - 1)}_{ending}"


def test_raw_pixels_may_be_uint8_or_float() -> None:
    backbone = build_backbone("efficientnet_b0")
    image = photo(32)
    for ours, floats in zip(backbone(image).values(), backbone(image.astype(np.float32)).values(), strict=True):
        np.testing.assert_array_equal(ours, floats)


def test_start_follows_from_the_seed_alone() -> None:
    first, again, other = (build_backbone("efficientnet_b0", seed=seed).get_weights() for seed in (1, 1, 2))
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert not np.array_equal(first[0], other[0])


def test_a_batch_equals_its_images_one_by_one() -> None:
    backbone = build_backbone("efficientnet_b0")
    images = photo(64, batch=3)
    together = backbone(images)["P5"].numpy()
    apart = np.concatenate([backbone(images[i : i + 1])["P5"].numpy() for i in range(3)])
    np.testing.assert_allclose(together, apart, atol=1e-5)


def test_unknown_name_gets_the_nearest() -> None:
    with pytest.raises(ConfigError, match="did you mean 'efficientnet_b0'"):
        build_backbone("eficientnet_b0")
