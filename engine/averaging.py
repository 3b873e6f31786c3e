"""A running average of a model's weights, which often measures better than the weights that learn."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import keras
import numpy as np
import tensorflow as tf


class WeightAverage:
    """Exponential moving average of the weights of ``model``, kept beside them on every replica.

    The n-th update, counted from 0, keeps min(``decay``, (1 + n) / (10 + n)) of the average, the ramp of
    ``tf.train.ExponentialMovingAverage``: until ``decay`` is reached, what counts is about the last tenth of the run,
    however short that is.

    BatchNorm statistics are averaged like weights: the newest ones belong to the newest weights, while the average of
    statistics is, to first order, what the averaged weights would measure. What stands still is its own average.
    """

    def __init__(self, model: keras.Model, decay: float, strategy: tf.distribute.Strategy) -> None:
        self.decay = decay
        self.strategy = strategy
        # Not model.variables: the counters of random generators have no average.
        self.weights = {weight.path: weight.value for weight in model.weights}
        with strategy.scope():
            self.averages = {path: tf.Variable(np.asarray(weight)) for path, weight in self.weights.items()}
            self.updates = tf.Variable(0, dtype=tf.int64)

    def update(self) -> None:
        """Moves the average towards the weights; call it once after each step, outside the replicas."""
        n = tf.cast(self.updates, tf.float32)
        rate = 1.0 - tf.minimum((1.0 + n) / (10.0 + n), self.decay)
        for path, average in self.averages.items():
            self.strategy.extended.update(average, _move, args=(self.weights[path], rate))
        self.updates.assign_add(1)

    def tensors(self) -> dict[str, np.ndarray]:
        """The average of each weight by the weight's path."""
        return {path: average.numpy() for path, average in self.averages.items()}

    def restore(self, tensors: Mapping[str, np.ndarray], updates: int) -> None:
        """Goes on from ``tensors`` after ``updates`` updates; from the weights as they are where ``tensors`` is empty.

        KeyError when ``tensors`` lacks a weight.
        """
        self.updates.assign(updates if tensors else 0)
        for path, average in self.averages.items():
            average.assign(tensors[path] if tensors else self.weights[path])

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """Within, the model computes with the average; afterwards with its own weights again."""
        own = {path: weight.numpy() for path, weight in self.weights.items()}
        try:
            self._set_weights(self.tensors())
            yield
        finally:
            self._set_weights(own)

    def _set_weights(self, values: Mapping[str, np.ndarray]) -> None:
        for path, weight in self.weights.items():
            weight.assign(values[path])


def _move(average: tf.Variable, weight: tf.Variable, rate: tf.Tensor) -> tf.Operation:
    return average.assign_sub(rate * (average - weight))
