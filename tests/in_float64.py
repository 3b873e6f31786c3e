"""Steps on two devices against those on one, in float64: ``python -m tests.in_float64 FOLDER``, photos go there.

Batch normalization of a few pixels makes so much of float32's rounding that a step on two devices is up to a
twentieth off, and as much off on one whose weights were moved by their last bit. In float64 a mistake shows that is a
billion times as small. Our code has no such mode: this process reads every float32 in it as float64.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf


def read_float32_as_float64() -> None:
    """Before anything of ours that says float32 is imported."""
    keras.config.set_floatx("float64")
    tf.float32 = tf.float64
    from nets import layers

    layers.FLOAT32 = keras.DTypePolicy("float64")
    layers.FusedBatchNormalization._fused = _fused


def _fused(self: Any, inputs: tf.Tensor, mean: tf.Tensor, variance: tf.Tensor, training: bool) -> Any:
    """What TensorFlow's kernel computes, which it has for no more than float32."""
    gamma, beta = tf.convert_to_tensor(self.gamma), tf.convert_to_tensor(self.beta)
    if not training:
        return (tf.nn.batch_normalization(inputs, mean, variance, beta, gamma, self.epsilon),)
    mean, variance = tf.nn.moments(inputs, [0, 1, 2])
    count = tf.cast(tf.reduce_prod(tf.shape(inputs)[:-1]), inputs.dtype)
    outputs = tf.nn.batch_normalization(inputs, mean, variance, beta, gamma, self.epsilon)
    return outputs, mean, variance * count / (count - 1.0)


if __name__ == "__main__":
    read_float32_as_float64()
    from tests.two_replicas import exact

    exact(Path(sys.argv[1]))
