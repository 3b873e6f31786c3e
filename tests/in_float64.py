"""A program in float64: ``in_float64.py train --data.train ...``, or any other module with a ``main``.

Batch normalization of a few pixels makes so much of float32's rounding that a step on two devices differs by up to a
twentieth from the same step on one, as does a step from weights that were moved by their last bit. In float64 a mistake
shows that is a billion times as small. Our code has no such mode: this process reads every float32 in it as float64.
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

ROOT = Path(__file__).resolve().parent.parent


def read_float32_as_float64() -> None:
    """Before anything of ours that says float32 is imported."""
    float32, suppress = tf.float32, tf.image.combined_non_max_suppression

    def suppressed(*tensors: tf.Tensor, iou_threshold: Any, score_threshold: Any, **options: Any) -> Any:
        """What TensorFlow's kernel finds, which it has for float32 alone."""
        boxes, scores, iou, score = (tf.cast(one, float32) for one in (*tensors, iou_threshold, score_threshold))
        return suppress(boxes, scores, iou_threshold=iou, score_threshold=score, **options)

    tf.image.combined_non_max_suppression = suppressed
    keras.config.set_floatx("float64")
    tf.float32 = tf.float64
    from nets import layers

    layers.FLOAT32 = keras.DTypePolicy("float64")
    layers.FusedBatchNormalization._fused = _fused


def _fused(self: Any, inputs: tf.Tensor, mean: tf.Tensor, variance: tf.Tensor, training: bool) -> Any:
    """What TensorFlow's kernel computes, which it has for float32 and less."""
    gamma, beta = tf.convert_to_tensor(self.gamma), tf.convert_to_tensor(self.beta)
    if not training:
        return (tf.nn.batch_normalization(inputs, mean, variance, beta, gamma, self.epsilon),)
    mean, variance = tf.nn.moments(inputs, [0, 1, 2])
    count = tf.cast(tf.reduce_prod(tf.shape(inputs)[:-1]), inputs.dtype)
    outputs = tf.nn.batch_normalization(inputs, mean, variance, beta, gamma, self.epsilon)
    return outputs, mean, variance * count / tf.maximum(count - 1.0, 1.0)


def main() -> int | None:
    """Runs the module that the first argument names."""
    sys.path.insert(0, str(ROOT))
    read_float32_as_float64()
    return importlib.import_module(sys.argv[1]).main(sys.argv[2:])


if __name__ == "__main__":
    sys.exit(main())
