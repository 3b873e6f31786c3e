from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable

import keras
import numpy as np
import pytest
import tensorflow as tf

from nets.depthwise import depthwise_conv2d
from nets.layers import FusedBatchNormalization, LayerFactory, PointwiseConv2D, SeededDropout
from nets.normalisation import PixelNormalization
from nets.silu import Silu, SiluAndMean, silu, silu_and_mean
from tests.conftest import ROOT


def features(*shape: int, seed: int = 0) -> tf.Tensor:
    return tf.constant(np.random.default_rng(seed).normal(3, 2, shape).astype(np.float32))


def pair_of_norms(channels: int = 5, momentum: float = 0.9) -> tuple[FusedBatchNormalization, keras.Layer]:
    ours = FusedBatchNormalization(momentum, epsilon=1e-3)
    theirs = keras.layers.BatchNormalization(momentum=momentum, epsilon=1e-3)
    rng = np.random.default_rng(1)
    for layer in (ours, theirs):
        layer.build((None, None, None, channels))
    assert [weight.name for weight in ours.weights] == [weight.name for weight in theirs.weights]
    values = [rng.uniform(0.5, 1.5, channels) for _ in range(4)]
    ours.set_weights(values)
    theirs.set_weights(values)
    return ours, theirs


@pytest.mark.parametrize("training", [False, True])
def test_batch_norm_equals_keras(training: bool) -> None:
    ours, theirs = pair_of_norms()
    x, weight = features(4, 6, 7, 5), features(4, 6, 7, 5, seed=2)
    gradients = []
    for layer in (ours, theirs):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = layer(x, training=training)
            loss = tf.reduce_sum(y * weight)
        gradients.append((y, *tape.gradient(loss, [x, *layer.trainable_variables])))
    for own, expected in zip(*gradients, strict=True):
        np.testing.assert_allclose(own, expected, rtol=1e-4, atol=1e-4)
    for own, expected in zip(ours.get_weights(), theirs.get_weights(), strict=True):
        np.testing.assert_allclose(own, expected, rtol=1e-5)


def test_batch_norm_keeps_the_plain_variance_even_of_two_values() -> None:
    layer = FusedBatchNormalization(momentum=0.0)
    layer(tf.constant([1.0, 3.0])[None, :, None, None], training=True)
    # Mean 2; (1 + 1) / 2 = 1, where the unbiased variance would be 2.
    np.testing.assert_allclose(layer.moving_mean, 2, rtol=1e-6)
    np.testing.assert_allclose(layer.moving_variance, 1, rtol=1e-6)


@pytest.mark.parametrize("options", [{}, {"use_bias": False}, {"activation": "sigmoid"}])
@pytest.mark.parametrize("traced", [False, True])
def test_pointwise_convolution_learns_as_kerass_does(traced: bool, options: dict) -> None:
    ours, theirs = PointwiseConv2D(4, 1, **options), keras.layers.Conv2D(4, 1, **options)
    x, dy = features(2, 5, 3, 6), features(2, 5, 3, 4, seed=1)
    for layer in (ours, theirs):
        layer.build(x.shape)
    ours.set_weights(theirs.get_weights())

    def gradient(layer: keras.Layer) -> list[tf.Tensor]:
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = layer(x, training=True) if layer is ours else layer(x)
        weights = [weight.value for weight in layer.trainable_weights]
        return [y, *tape.gradient(y, [x, *weights], output_gradients=dy)]

    run = tf.function(gradient, input_signature=None) if traced else gradient
    for own, expected in zip(run(ours), run(theirs), strict=True):
        np.testing.assert_allclose(own, expected, rtol=1e-4, atol=1e-4)
    np.testing.assert_array_equal(ours(x), theirs(x))
    ours.trainable = False
    np.testing.assert_array_equal(ours(x, training=True), theirs(x))


def test_frozen_batch_norm_uses_its_statistics_and_leaves_them() -> None:
    ours, _ = pair_of_norms()
    ours.trainable = False
    before = ours.get_weights()
    x = features(2, 3, 3, 5)
    np.testing.assert_array_equal(ours(x, training=True), ours(x, training=False))
    assert all(np.array_equal(a, b) for a, b in zip(before, ours.get_weights(), strict=True))


REPLICAS = """
import keras, numpy as np, tensorflow as tf
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
from nets.layers import FusedBatchNormalization, SeededDropout
from nets.silu import Silu

x = np.random.default_rng(0).normal(20, 2, (4, 6, 6, 3)).astype("f")
target = np.random.default_rng(1).normal(0, 1, x.shape).astype("f")
found = []
for strategy in (tf.distribute.get_strategy(), tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])):
    with strategy.scope():
        layer, swish = FusedBatchNormalization(momentum=0.8), Silu()
        layer.build(x.shape)
    replicas = strategy.num_replicas_in_sync
    share = lambda values: strategy.experimental_distribute_values_from_function(
        lambda context: tf.constant(np.split(values, replicas)[context.replica_id_in_sync_group]))
    def step(x, target):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = swish(layer(x, training=True), training=True)
            loss = tf.reduce_sum(y * target)
        dx, dgamma, dbeta = tape.gradient(loss, [x, layer.gamma.value, layer.beta.value])
        total = tf.distribute.get_replica_context().all_reduce("sum", [dgamma, dbeta])
        return y, dx, *total
    run = tf.function(lambda: strategy.run(step, (share(x), share(target))))
    for _ in range(3):
        y, dx, dgamma, dbeta = [strategy.experimental_local_results(part) for part in run()]
    copies = [strategy.experimental_local_results(v.value) for v in (layer.moving_mean, layer.moving_variance)]
    for copy in copies:
        np.testing.assert_array_equal(copy[0], copy[-1])
    found.append([np.concatenate(y), np.concatenate(dx), dgamma[0], dbeta[0], *(copy[-1] for copy in copies)])
for one, two in zip(*found, strict=True):
    # Sums in another order: 1.1e-5 was seen, on a CPU with AVX2 alone.
    np.testing.assert_allclose(one, two, rtol=5e-5, atol=5e-5)

with strategy.scope():
    drop = SeededDropout(0.5, seed=1)
run = tf.function(lambda: strategy.run(lambda: drop(tf.ones([2, 100]), training=True)))
whole = SeededDropout(0.5, seed=1)
for _ in range(2):
    masks = strategy.experimental_local_results(run())
    np.testing.assert_array_equal(np.concatenate(masks), whole(tf.ones([4, 100]), training=True))
print("equal")
"""


def test_two_replicas_are_one_device_with_the_whole_batch() -> None:
    done = subprocess.run([sys.executable, "-c", REPLICAS], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout == "equal\n"


def test_stochastic_depth_drops_whole_samples_and_keeps_the_mean() -> None:
    layer = SeededDropout(0.25, seed=3, whole_samples=True)
    y = layer(tf.ones([4000, 2, 2, 3]), training=True).numpy()
    assert np.ptp(y, axis=(1, 2, 3)).max() == 0
    assert set(np.unique(y)) == {0.0, np.float32(1 / 0.75)}
    assert y.mean() == pytest.approx(1, abs=0.03)


def test_dropout_drops_values_apart() -> None:
    y = SeededDropout(0.5, seed=3)(tf.ones([2, 1000]), training=True).numpy()
    assert np.mean(y == 0) == pytest.approx(0.5, abs=0.06)
    assert not np.array_equal(y[0], y[1])


def test_dropout_state_repeats_the_draws_and_is_no_weight() -> None:
    layer = SeededDropout(0.5, seed=3)
    x = tf.ones([1, 100])
    state = layer.variables[0].numpy()
    first, second = layer(x, training=True), layer(x, training=True)
    assert not np.array_equal(first, second)
    layer.variables[0].assign(state)
    np.testing.assert_array_equal(layer(x, training=True), first)
    assert layer.weights == []


def test_dropout_is_off_in_inference_and_while_frozen() -> None:
    layer, x = SeededDropout(0.5, seed=3), tf.ones([4, 4])
    np.testing.assert_array_equal(layer(x, training=False), x)
    layer.trainable = False
    np.testing.assert_array_equal(layer(x, training=True), x)


def test_pixels_are_normalised_per_channel() -> None:
    layer = PixelNormalization((127, 100, 0), (128, 50, 1))
    # (255 - 127) / 128 = 1, (50 - 100) / 50 = -1, (7 - 0) / 1 = 7
    np.testing.assert_allclose(layer(np.array([[[[255, 50, 7]]]], np.uint8)), [[[[1, -1, 7]]]], rtol=1e-6)


@pytest.mark.parametrize("traced", [False, True])
def test_silu_and_its_gradient_equal_tensorflows(traced: bool) -> None:
    x, dy = features(2, 5, 4, 3) * 4, features(2, 5, 4, 3, seed=1)

    def gradient(function) -> tf.Tensor:
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = function(x)
        return y, tape.gradient(y, x, output_gradients=dy)

    run = tf.function(gradient) if traced else gradient
    for own, expected in zip(run(silu), run(tf.nn.silu), strict=True):
        np.testing.assert_allclose(own, expected, rtol=1e-5, atol=1e-5)


def test_silu_and_mean_equals_the_two_apart() -> None:
    x, dy, dmean = features(2, 5, 4, 3), features(2, 5, 4, 3, seed=1), features(2, 1, 1, 3, seed=2)
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(x)
        own = silu_and_mean(x)
        y = tf.nn.silu(x)
        apart = (y, tf.reduce_mean(y, [1, 2], keepdims=True))
    for ours, theirs in zip(own, apart, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)
    gradients = [tape.gradient(pair, x, output_gradients=(dy, dmean)) for pair in (own, apart)]
    np.testing.assert_allclose(*gradients, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("layer", [Silu(), SiluAndMean()])
def test_silu_layers_are_the_same_in_training_and_inference(layer: keras.Layer) -> None:
    x = features(2, 3, 3, 4)
    for ours, theirs in zip(tf.nest.flatten(layer(x, training=True)), tf.nest.flatten(layer(x)), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-6)


@pytest.mark.parametrize(
    "layer",
    [
        FusedBatchNormalization(0.9, 1e-4, name="norm"),
        PointwiseConv2D(4, 1, name="pointwise"),
        SeededDropout(0.3, 7, whole_samples=True, name="drop"),
        PixelNormalization((1, 2, 3), (4, 5, 6), name="pixels"),
        Silu(name="silu"),
        SiluAndMean(name="silu_and_mean"),
    ],
)
def test_layers_survive_serialisation(layer: keras.Layer) -> None:
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(layer))
    assert type(again) is type(layer)
    assert again.get_config() == layer.get_config()


@pytest.mark.parametrize("size", [3, 5])
@pytest.mark.parametrize(("strides", "padding"), [((1, 1), "SAME"), ((2, 2), "VALID")])
def test_depthwise_gradients_in_bfloat16_are_those_of_float32(
    size: int, strides: tuple[int, int], padding: str
) -> None:
    rng = np.random.default_rng(4)
    # Short enough numbers that bfloat16 holds them, so that only what comes out is rounded.
    x, kernel = (rng.integers(-8, 9, shape) / 8 for shape in ((2, 9, 8, 3), (size, size, 3, 1)))

    def gradients(dtype: tf.DType) -> list[np.ndarray]:
        inputs = [tf.constant(value, dtype) for value in (x, kernel)]
        with tf.GradientTape() as tape:
            tape.watch(inputs)
            outputs = depthwise_conv2d(*inputs, strides, padding)
            loss = tf.reduce_sum(tf.cast(outputs, tf.float32))
        assert outputs.dtype == dtype
        found = tape.gradient(loss, inputs)
        assert all(gradient.dtype == dtype for gradient in found)
        return [tf.cast(value, tf.float32).numpy() for value in (outputs, *found)]

    for half, whole in zip(gradients(tf.bfloat16), gradients(tf.float32), strict=True):
        np.testing.assert_allclose(half, whole, rtol=2**-8)


@pytest.mark.parametrize("size", [3, 5])
@pytest.mark.parametrize("strides", [1, 2])
@pytest.mark.parametrize("padding", ["SAME", "VALID"])
@pytest.mark.parametrize("sides", [(11, 8), (12, 13), (6, 5)])
def test_depthwise_gradients_are_tensorflows(size: int, strides: int, padding: str, sides: tuple[int, int]) -> None:
    rng = np.random.default_rng(6)
    inputs = [tf.constant(rng.normal(size=shape), tf.float32) for shape in ((2, *sides, 3), (size, size, 3, 1))]

    @tf.function(input_signature=[tf.TensorSpec([None, None, None, 3]), tf.TensorSpec([size, size, 3, 1])])
    def own(x: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
        return depthwise_conv2d(x, kernel, (strides, strides), padding)

    def gradients(convolve: Callable[..., tf.Tensor]) -> list[tf.Tensor]:
        with tf.GradientTape() as tape:
            tape.watch(inputs)
            loss = tf.reduce_sum(tf.square(convolve(*inputs)))
        return tape.gradient(loss, inputs)

    plain = gradients(lambda x, kernel: tf.nn.depthwise_conv2d(x, kernel, [1, strides, strides, 1], padding))
    for found, expected in zip(gradients(own), plain, strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize(("size", "padding"), [(3, b"SAME"), (5, b"EXPLICIT")])
@pytest.mark.parametrize("dtype", [tf.float32, tf.bfloat16])
def test_large_depthwise_kernels_do_not_learn_through_onednn(size: int, padding: bytes, dtype: tf.DType) -> None:
    @tf.function
    def slope(x: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
        return tf.gradients(depthwise_conv2d(x, kernel, (1, 1), "SAME"), kernel)[0]

    graph = slope.get_concrete_function(tf.ones([1, 9, 9, 2], dtype), tf.ones([size, size, 2, 1], dtype)).graph
    found = [one for one in graph.get_operations() if one.type == "DepthwiseConv2dNativeBackpropFilter"]
    assert [one.get_attr("padding") for one in found] == [padding]
    assert found[0].get_attr("T") == tf.float32


@pytest.mark.parametrize(("strides", "padding"), [(1, "same"), (2, "same"), (2, "valid")])
def test_depthwise_convolution_is_keras_own(strides: int, padding: str) -> None:
    x = np.random.default_rng(5).normal(size=(2, 9, 8, 3)).astype(np.float32)
    own = LayerFactory(0).depthwise(3, "dw", strides, padding)
    plain = keras.layers.DepthwiseConv2D(3, strides, padding, use_bias=False)
    plain.build(x.shape)
    own.build(x.shape)
    plain.set_weights(own.get_weights())
    np.testing.assert_allclose(np.asarray(own(x)), np.asarray(plain(x)), rtol=1e-6, atol=1e-6)
