"""Depthwise convolution whose gradient is taken in float32 on CPU.

In bfloat16 TensorFlow's takes two (kernel) to five (input) times as long there, a third of a step of EfficientNet.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tensorflow as tf


def depthwise_conv2d(x: tf.Tensor, kernel: tf.Tensor, strides: Sequence[int], padding: str) -> tf.Tensor:
    """[B, H, W, C] and [h, w, C, 1] of one type, ``padding`` "SAME" or "VALID" -> [B, H', W', C] of that type."""
    options: dict[str, Any] = {"strides": [1, *strides, 1], "padding": padding}
    if x.dtype == tf.float32 or tf.config.list_physical_devices("GPU"):
        return tf.raw_ops.DepthwiseConv2dNative(input=x, filter=kernel, **options)

    @tf.autograph.experimental.do_not_convert  # type: ignore[untyped-decorator]
    @tf.custom_gradient  # type: ignore[untyped-decorator]
    def convolve(x: tf.Tensor, kernel: tf.Tensor) -> tuple[tf.Tensor, Any]:
        def backward(dy: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            whole_x, whole_kernel, whole_dy = (tf.cast(value, tf.float32) for value in (x, kernel, dy))
            dx = tf.raw_ops.DepthwiseConv2dNativeBackpropInput(
                input_sizes=tf.shape(x), filter=whole_kernel, out_backprop=whole_dy, **options
            )
            dkernel = tf.raw_ops.DepthwiseConv2dNativeBackpropFilter(
                input=whole_x, filter_sizes=tf.shape(kernel), out_backprop=whole_dy, **options
            )
            return tf.cast(dx, x.dtype), tf.cast(dkernel, kernel.dtype)

        return tf.raw_ops.DepthwiseConv2dNative(input=x, filter=kernel, **options), backward

    return convolve(x, kernel)
