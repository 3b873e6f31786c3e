"""The moving average of a model's weights, on a model that need not learn for it."""

from __future__ import annotations

import contextlib

import keras
import numpy as np
import pytest
import tensorflow as tf

from engine.averaging import WeightAverage


def small_model() -> keras.Model:
    layers = [keras.layers.Dense(2, name="dense"), keras.layers.BatchNormalization(name="bn")]
    return keras.Sequential([keras.Input([3]), *layers])


def averaged(model: keras.Model, decay: float) -> WeightAverage:
    return WeightAverage(model, decay, tf.distribute.get_strategy())


def walk(model: keras.Model, steps: int, seed: int = 0):
    rng = np.random.default_rng(seed)
    for _ in range(steps):
        for weight in model.weights:
            weight.assign(rng.normal(size=weight.shape))
        yield


@pytest.mark.parametrize("decay", [0.5, 0.9999])
def test_it_is_the_average_that_tensorflow_computes(decay: float) -> None:
    model = small_model()
    average = averaged(model, decay)
    shadows = [tf.Variable(weight.value) for weight in model.weights]
    steps = tf.Variable(0.0)
    theirs = tf.train.ExponentialMovingAverage(decay, num_updates=steps)
    theirs.apply(shadows)
    update = tf.function(average.update)
    for _ in walk(model, 20):
        update()
        for shadow, weight in zip(shadows, model.weights, strict=True):
            shadow.assign(weight.value)
        theirs.apply(shadows)
        steps.assign_add(1)
    found = average.tensors()
    assert found.keys() == {weight.path for weight in model.weights}
    for shadow, weight in zip(shadows, model.weights, strict=True):
        np.testing.assert_allclose(found[weight.path], theirs.average(shadow), rtol=1e-5, atol=1e-6)


def test_what_stands_still_is_its_own_average() -> None:
    model = small_model()
    kernel, *others = model.weights
    kernel.assign(np.random.default_rng(1).normal(size=kernel.shape))
    average, still = averaged(model, 0.9), kernel.numpy()
    for step in range(5):
        for weight in others:
            weight.assign(weight + step + 1)
        average.update()
    found = average.tensors()
    np.testing.assert_array_equal(found[kernel.path], still)
    assert all(not np.array_equal(found[weight.path], weight) for weight in others)


def test_in_use_it_is_the_model_and_afterwards_the_weights_are_back_whatever_happens() -> None:
    model = small_model()
    average = averaged(model, 0.9)
    for _ in walk(model, 2):
        average.update()
    own = [weight.numpy() for weight in model.weights]
    with contextlib.suppress(KeyboardInterrupt), average.in_use():
        for weight, before in zip(model.weights, own, strict=True):
            np.testing.assert_array_equal(weight, average.tensors()[weight.path])
            assert not np.array_equal(weight, before)
        raise KeyboardInterrupt
    for weight, before in zip(model.weights, own, strict=True):
        np.testing.assert_array_equal(weight, before)


def test_going_on_equals_never_having_stopped() -> None:
    model = small_model()
    straight = averaged(model, 0.99)
    steps = walk(model, 8)
    for _ in range(5):
        next(steps)
        straight.update()
    resumed = averaged(model, 0.99)
    resumed.restore(straight.tensors(), updates=5)
    for _ in steps:
        straight.update()
        resumed.update()
    for path, value in straight.tensors().items():
        np.testing.assert_array_equal(resumed.tensors()[path], value)


def test_a_run_that_kept_no_average_begins_one_with_the_weights_it_has() -> None:
    model = small_model()
    average = averaged(model, 0.99)
    next(walk(model, 1))
    average.restore({}, updates=500)
    for weight in model.weights:
        np.testing.assert_array_equal(average.tensors()[weight.path], weight)
    assert average.updates == 0
