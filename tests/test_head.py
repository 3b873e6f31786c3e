from __future__ import annotations

from dataclasses import replace

import keras
import numpy as np
import pytest
import tensorflow as tf

from nets.backbones import BACKBONES
from nets.detector import build_detector, freeze_backbone, head_kernels
from tests.specs import detector_spec
from utils.config import STRIDES
from utils.errors import ConfigError

VOC = tuple(f"class {index}" for index in range(20))

# Parameters with 20 classes, in millions.
PARAMETERS = {
    "efficientnet_b0": 10.65,
    "efficientnet_lite0": 10.02,
    "efficientnet_b1": 13.18,
    "efficientnet_b2": 15.73,
    "efficientnet_b3": 20.30,
    "efficientnet_b4": 30.63,
    "efficientnet_b5": 45.27,
    "efficientnet_b6": 62.20,
    "efficientnet_b7": 90.35,
    "mobilenet_v1_0.25": 0.54,
    "mobilenet_v1_0.5": 2.02,
    "mobilenet_v1_0.75": 4.45,
    "mobilenet_v1_1.0": 7.81,
    "mobilenet_v1_0.25_shallow": 0.45,
    "mobilenet_v1_0.5_shallow": 1.68,
    "mobilenet_v1_0.75_shallow": 3.68,
    "mobilenet_v1_1.0_shallow": 6.45,
    "mobilenet_v2_0.35": 0.80,
    "mobilenet_v2_0.5": 1.57,
    "mobilenet_v2_0.75": 3.40,
    "mobilenet_v2_1.0": 5.93,
    "mobilenet_v2_1.3": 9.90,
    "mobilenet_v2_1.4": 11.49,
    "densenet121": 28.10,
    "densenet169": 34.06,
    "densenet201": 39.94,
}


@pytest.fixture(scope="module")
def model():
    return build_detector(detector_spec(class_names=VOC, prior_probability=0.01))


def photos(size: int, batch: int = 2) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (batch, size, size, 3), dtype=np.uint8)


def test_the_head_leaks_a_tenth(model) -> None:
    leaky = [layer for layer in model.layers if isinstance(layer, keras.layers.LeakyReLU)]
    assert len(leaky) == 3 * 6 + 2  # of each level five convolutions and one before the logits; two ways up
    assert {layer.negative_slope for layer in leaky} == {0.1}


def test_blocks_are_left_out_more_often_the_deeper_they_lie(model) -> None:
    rates = [layer.rate for layer in model.get_layer("backbone").layers if layer.name.endswith("drop")]
    shortcuts = (2, 4, 6, 7, 9, 10, 12, 13, 14)  # of the 16 blocks those that keep shape and channels
    assert rates == pytest.approx([0.2 * block / 16 for block in shortcuts])


def test_every_backbone_has_a_parameter_count() -> None:
    assert set(PARAMETERS) == set(BACKBONES)


@pytest.mark.parametrize("name", PARAMETERS)
def test_parameters_of_the_20_class_detector(name: str) -> None:
    spec = detector_spec(class_names=VOC, backbone=name, separable_head=BACKBONES[name].separable_head)
    assert round(build_detector(spec).count_params() / 1e6, 2) == PARAMETERS[name]


@pytest.mark.parametrize("size", [32, 96])
def test_levels_shapes_and_type(model, size: int) -> None:
    logits = model(photos(size))
    assert {level: tuple(tensor.shape) for level, tensor in logits.items()} == {
        level: (2, size // stride, size // stride, 3 * 25) for level, stride in STRIDES.items()
    }
    assert all(tensor.dtype == tf.float32 for tensor in logits.values())


def test_uint8_and_float_pixels_give_the_same(model) -> None:
    images = photos(32)
    for level, tensor in model(images).items():
        np.testing.assert_array_equal(tensor, model(images.astype(np.float32))[level])


def test_anchors_of_a_level_follow_its_mask() -> None:
    spec = detector_spec(class_names=("cell",), masks=((0, 1), (2, 3, 4), (5, 6, 7, 8)))
    logits = build_detector(spec)(photos(32, 1))
    assert {level: tensor.shape[-1] for level, tensor in logits.items()} == {"P3": 12, "P4": 18, "P5": 24}


def test_untrained_objectness_is_the_prior(model) -> None:
    bias = model.get_layer("head_P4_logits").bias.numpy().reshape(3, 25)
    np.testing.assert_allclose(1 / (1 + np.exp(-bias[:, 4])), 0.01, rtol=1e-5)
    np.testing.assert_array_equal(np.delete(bias, 4, axis=1), 0)


def test_prior_of_zero_leaves_biases_at_zero() -> None:
    zero = build_detector(detector_spec(prior_probability=0.0))
    for level in STRIDES:
        np.testing.assert_array_equal(zero.get_layer(f"head_{level}_logits").bias.numpy(), 0)


def test_head_kernels_are_the_heads_alone(model) -> None:
    kernels = head_kernels(model)
    # Five convolutions and two of the output branch on three levels, and two ways up.
    assert len(kernels) == 3 * 7 + 2
    backbone = {id(weight) for weight in model.get_layer("backbone").weights}
    assert not backbone & {id(kernel) for kernel in kernels}
    assert all(np.std(kernel.numpy()) == pytest.approx(0.02, rel=0.05) for kernel in kernels)


def test_way_up_is_the_level_above_doubled_and_the_tap(model) -> None:
    names = ("head_P4_up_activation", "head_P4_concat")
    up, concat = keras.Model(model.inputs[0], [model.get_layer(name).output for name in names])(photos(64, 1))
    np.testing.assert_array_equal(concat[..., :112], np.repeat(np.repeat(up, 2, axis=1), 2, axis=2))
    tap = model.get_layer("backbone")(photos(64, 1))["P4"]
    np.testing.assert_allclose(concat[..., 112:], tap, atol=1e-5)


def test_separable_head_is_smaller_and_as_shaped(model) -> None:
    spec = detector_spec(class_names=VOC)
    light = build_detector(replace(spec, separable_head=True))
    assert light.count_params() < 0.7 * model.count_params()
    # Each of the nine 3x3 becomes two.
    assert len(head_kernels(light)) == len(head_kernels(model)) + 9
    assert {k: v.shape for k, v in light(photos(32)).items()} == {k: v.shape for k, v in model(photos(32)).items()}


def test_frozen_backbone_is_still_and_deterministic_in_training() -> None:
    model = build_detector(detector_spec())
    freeze_backbone(model, True)
    backbone = model.get_layer("backbone")
    before = backbone.get_weights()
    images = photos(64)
    assert not any(weight.path.startswith("block") for weight in model.trainable_variables)
    assert len(model.trainable_variables) == 23 + 3 + 2 * 20
    in_training, in_inference = backbone(images, training=True), backbone(images, training=False)
    model(images, training=True)
    for level in STRIDES:
        np.testing.assert_array_equal(in_training[level], in_inference[level])
    assert all(np.array_equal(a, b) for a, b in zip(before, backbone.get_weights(), strict=True))

    freeze_backbone(model, False)
    again = backbone(images, training=True)
    assert not np.allclose(again["P5"], in_inference["P5"])
    assert not all(np.array_equal(a, b) for a, b in zip(before, backbone.get_weights(), strict=True))


def test_the_batch_norm_of_a_free_backbone_can_stay_still() -> None:
    model = build_detector(detector_spec())
    freeze_backbone(model, False, batch_norm=True)
    backbone = model.get_layer("backbone")
    names = ("gamma", "beta", "moving_mean", "moving_variance")
    free = {variable.path for variable in backbone.trainable_variables}
    assert not any(path.endswith(names) for path in free)
    assert free >= {variable.path for variable in backbone.variables if variable.path.endswith("kernel")}
    before = {variable.path: np.array(variable) for variable in backbone.variables}
    model(photos(64), training=True)
    assert all(np.array_equal(before[v.path], v) for v in backbone.variables if v.path.endswith(names))
    freeze_backbone(model, False)
    assert len(backbone.trainable_variables) > len(free)


def test_gradient_reaches_every_trainable_variable_of_a_free_detector(model) -> None:
    with tf.GradientTape() as tape:
        loss = tf.add_n([tf.reduce_sum(tensor**2) for tensor in model(photos(64), training=True).values()])
    gradients = tape.gradient(loss, model.trainable_variables)
    assert all(gradient is not None and np.isfinite(gradient).all() for gradient in gradients)


def test_freezing_what_has_no_backbone_is_an_error() -> None:
    with pytest.raises(ValueError, match="backbone"):
        freeze_backbone(keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)]), True)


def test_same_seed_same_detector() -> None:
    first, again, other = (build_detector(detector_spec(), seed=seed).get_weights() for seed in (3, 3, 4))
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert any(not np.array_equal(a, b) for a, b in zip(first, other, strict=True))


def test_unknown_backbone() -> None:
    with pytest.raises(ConfigError, match="efficientnet_b9"):
        build_detector(detector_spec(backbone="efficientnet_b9"))
