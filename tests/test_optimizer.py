from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from engine.optimizer import build_optimizer
from utils.config import TrainConfig


def variables() -> list[keras.Variable]:
    return [keras.Variable(np.ones(2, np.float32), name=name) for name in ("kernel", "bias", "gamma", "beta")]


def moved(variable: keras.Variable) -> bool:
    return not np.array_equal(np.asarray(variable), np.ones(2))


def test_decay_shrinks_kernels_and_nothing_else() -> None:
    kernel, *others = own = variables()
    optimizer = build_optimizer(TrainConfig(optimizer="adamw", weight_decay=0.1, learning_rate=0.5), own)
    optimizer.apply([tf.zeros(2)] * 4, own)
    # w - lr * decay * w = 1 - 0.5 * 0.1
    np.testing.assert_allclose(np.asarray(kernel), 0.95, rtol=1e-6)
    assert not any(map(moved, others))


@pytest.mark.parametrize("name", ["sgd", "adam"])
def test_without_decay_a_zero_gradient_moves_nothing(name: str) -> None:
    own = variables()
    build_optimizer(TrainConfig(optimizer=name), own).apply([tf.zeros(2)] * 4, own)
    assert not any(map(moved, own))


def test_sgd_takes_nesterov_steps() -> None:
    own = variables()[:1]
    optimizer = build_optimizer(TrainConfig(optimizer="sgd", learning_rate=0.1, momentum=0.9), own)
    optimizer.apply([tf.ones(2)], own)
    # v = -lr g; w += m v - lr g, so the first step is lr * (1 + m).
    np.testing.assert_allclose(np.asarray(own[0]), 1 - 0.1 * 1.9, rtol=1e-6)


@pytest.mark.parametrize("name", ["sgd", "adam", "adamw"])
def test_a_variable_may_take_a_share_of_the_rate(name: str) -> None:
    train = TrainConfig(optimizer=name, weight_decay=0.0, learning_rate=0.1)
    whole, part = own = variables()[:2]
    optimizer = build_optimizer(train, own, [1.0, 0.25])
    for _ in range(3):
        optimizer.apply([tf.ones(2)] * 2, own)
    np.testing.assert_allclose(1 - np.asarray(part), 0.25 * (1 - np.asarray(whole)), rtol=1e-5)


def test_decay_goes_by_the_share_of_the_rate() -> None:
    # Or a pretrained backbone would be forgotten ten times as fast as it learns.
    own = [keras.Variable(np.ones(2, np.float32), name="kernel") for _ in range(3)]
    optimizer = build_optimizer(
        TrainConfig(optimizer="adamw", weight_decay=0.1, learning_rate=0.5), own, [1.0, 0.5, 0.0]
    )
    optimizer.apply([tf.zeros(2)] * 3, own)
    for variable, expected in zip(own, (0.95, 0.975, 1.0), strict=True):
        np.testing.assert_allclose(np.asarray(variable), expected, rtol=1e-6)


@pytest.mark.parametrize("name", ["sgd", "adam", "adamw"])
def test_its_variables_have_the_same_names_every_time(name: str) -> None:
    first, second = (build_optimizer(TrainConfig(optimizer=name), variables()) for _ in range(2))
    assert [v.path for v in first.variables] == [v.path for v in second.variables]
    assert len({v.path for v in first.variables}) == len(first.variables)


@pytest.mark.parametrize("name", ["adam", "adamw"])
def test_steps_are_those_of_keras(name: str) -> None:
    train = TrainConfig(optimizer=name, weight_decay=0.05, learning_rate=0.01)
    plain: keras.optimizers.Optimizer = keras.optimizers.Adam(0.01, beta_1=train.momentum)
    if name == "adamw":
        plain = keras.optimizers.AdamW(0.01, beta_1=train.momentum, weight_decay=train.weight_decay)
        plain.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
    own, expected = variables(), variables()
    plain.build(expected)
    optimizer = build_optimizer(train, own)
    rng = np.random.default_rng(0)

    @tf.function
    def step(fused: list[tf.Tensor]) -> None:
        optimizer.apply(fused, own)

    for count in range(20):
        gradients = [tf.constant(rng.normal(size=2) * 10.0 ** rng.integers(-4, 3), tf.float32) for _ in own]
        for one in (optimizer, plain):
            one.learning_rate = 0.01 / (1 + count)
        step(gradients)
        plain.apply(gradients, expected)
    # One operation a weight: Keras' own make graphs that take twice as long to get ready.
    operations = [one.type for one in step.get_concrete_function(gradients).graph.get_operations()]
    assert operations.count("ResourceApplyAdam") == len(own)
    for mine, theirs in zip([*own, *optimizer.variables], [*expected, *plain.variables], strict=True):
        # 1 - 0.999 is not the same in float32, which TensorFlow takes it in, and in float64.
        np.testing.assert_allclose(np.asarray(mine), np.asarray(theirs), rtol=3e-5, err_msg=mine.path)
