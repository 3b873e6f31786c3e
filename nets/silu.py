"""Swish, x * sigmoid(x) (arXiv:1702.03118), alone and with its mean, whose backward pass is one pass over memory.

TensorFlow's own gradient of it, plus that of a mean beside it, goes eight times over tensors far larger than any cache:
a tenth of a training step of EfficientNet on CPU. XLA fuses that arithmetic into one loop. Only this arithmetic: on CPU
it is slow at convolutions and at sums.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from nets.layers import PACKAGE


def _derivative(x: tf.Tensor) -> tf.Tensor:
    gate = tf.sigmoid(x)
    return gate * (1.0 + x * (1.0 - gate))


def _silu_backward(x: tf.Tensor, dy: tf.Tensor) -> tf.Tensor:
    return dy * _derivative(x)


def _silu_mean_backward(x: tf.Tensor, dy: tf.Tensor, share: tf.Tensor) -> tf.Tensor:
    return (dy + share) * _derivative(x)


@functools.cache
def _compiled(function: Callable[..., tf.Tensor], arguments: int) -> Callable[..., tf.Tensor]:
    # Shapes are left open, so that one trace serves all layers; XLA compiles once for each shape that comes.
    return tf.function(function, input_signature=[tf.TensorSpec(None, tf.float32)] * arguments, jit_compile=True)


def _fused(function: Callable[..., tf.Tensor], x: tf.Tensor, *others: tf.Tensor) -> tf.Tensor:
    """``function`` as one loop where that is sure to work: XLA on GPU needs CUDA parts that often are not installed."""
    if tf.config.list_physical_devices("GPU"):
        return function(x, *others)
    # XLA rounds to bfloat16 slowly on CPU; TensorFlow does it at the speed of memory.
    whole = [tf.cast(value, tf.float32) for value in (x, *others)]
    result = tf.cast(_compiled(function, len(whole))(*whole), x.dtype)
    result.set_shape(x.shape)
    return result


def _mean(y: tf.Tensor) -> tf.Tensor:
    """Over the image, summed up in float32: [B, H, W, C] -> [B, 1, 1, C]."""
    return tf.cast(tf.reduce_mean(tf.cast(y, tf.float32), [1, 2], keepdims=True), y.dtype)


@tf.autograph.experimental.do_not_convert  # type: ignore[untyped-decorator]
@tf.custom_gradient  # type: ignore[untyped-decorator]
def silu(x: tf.Tensor) -> tuple[tf.Tensor, Any]:
    """Any shape -> the same shape."""
    return x * tf.sigmoid(x), lambda dy: _fused(_silu_backward, x, dy)


@tf.autograph.experimental.do_not_convert  # type: ignore[untyped-decorator]
@tf.custom_gradient  # type: ignore[untyped-decorator]
def silu_and_mean(x: tf.Tensor) -> tuple[tuple[tf.Tensor, tf.Tensor], Any]:
    """[B, H, W, C] -> the same shape, and its mean over the image [B, 1, 1, C]."""
    y = x * tf.sigmoid(x)

    def backward(dy: tf.Tensor, dmean: tf.Tensor) -> tf.Tensor:
        # float16 ends below the number of pixels of a large image.
        share = tf.cast(dmean, tf.float32) / tf.cast(tf.reduce_prod(tf.shape(x)[1:3]), tf.float32)
        return _fused(_silu_mean_backward, x, dy, tf.cast(share, x.dtype))

    return (y, _mean(y)), backward


@keras.saving.register_keras_serializable(PACKAGE)
class Silu(keras.layers.Layer):  # type: ignore[misc]
    """Swish. In inference it is plain arithmetic, which exporters and graph optimizers know."""

    def call(self, inputs: tf.Tensor, training: bool | None = None) -> tf.Tensor:
        """Any shape -> the same shape."""
        return silu(inputs) if training and self.trainable else inputs * tf.sigmoid(inputs)

    def compute_output_shape(self, input_shape: Any) -> Any:
        """The input's."""
        return input_shape


@keras.saving.register_keras_serializable(PACKAGE)
class SiluAndMean(keras.layers.Layer):  # type: ignore[misc]
    """Swish and, for squeeze-and-excitation, its mean over the image."""

    def call(self, inputs: tf.Tensor, training: bool | None = None) -> tuple[tf.Tensor, tf.Tensor]:
        """[B, H, W, C] -> [B, H, W, C], [B, 1, 1, C]."""
        if training and self.trainable:
            return silu_and_mean(inputs)
        y = inputs * tf.sigmoid(inputs)
        return y, _mean(y)

    def compute_output_shape(self, input_shape: Any) -> Any:
        """That of both."""
        batch, _, _, channels = input_shape
        return input_shape, (batch, 1, 1, channels)
