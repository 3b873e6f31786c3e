"""Depthwise convolution whose gradients on CPU are taken the way that is fast there.

In bfloat16 TensorFlow's takes two (kernel) to five (input) times as long as in float32, a third of a step of
EfficientNet. For kernels larger than 3x3 oneDNN fills each channel up to sixteen: TensorFlow's own code takes a half
to two thirds of that time (``python -m benchmarks.depthwise``).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

ONEDNN_IS_FAST_TO = 3
"""Side of the largest kernel whose gradient oneDNN has code for."""


def depthwise_conv2d(x: tf.Tensor, kernel: tf.Tensor, strides: Sequence[int], padding: str) -> tf.Tensor:
    """[B, H, W, C] and [h, w, C, 1] of one type, ``padding`` "SAME" or "VALID" -> [B, H', W', C] of that type.

    To learn, B must be at least 1.
    """
    options: dict[str, Any] = {"strides": [1, *strides, 1], "padding": padding}
    fast_as_it_is = x.dtype.size >= tf.float32.size and max(kernel.shape[:2]) <= ONEDNN_IS_FAST_TO
    if fast_as_it_is or tf.config.list_physical_devices("GPU"):
        return tf.raw_ops.DepthwiseConv2dNative(input=x, filter=kernel, **options)

    @tf.autograph.experimental.do_not_convert  # type: ignore[untyped-decorator]
    @tf.custom_gradient  # type: ignore[untyped-decorator]
    def convolve(x: tf.Tensor, kernel: tf.Tensor) -> tuple[tf.Tensor, Any]:
        def backward(dy: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            whole = tf.float32 if x.dtype.size < tf.float32.size else x.dtype
            whole_x, whole_kernel, whole_dy = (tf.cast(value, whole) for value in (x, kernel, dy))
            dx = tf.raw_ops.DepthwiseConv2dNativeBackpropInput(
                input_sizes=tf.shape(x), filter=whole_kernel, out_backprop=whole_dy, **options
            )
            dkernel = kernel_gradient(whole_x, tf.shape(kernel), whole_dy, kernel.shape[:2], **options)
            return tf.cast(dx, x.dtype), tf.cast(dkernel, kernel.dtype)

        return tf.raw_ops.DepthwiseConv2dNative(input=x, filter=kernel, **options), backward

    return convolve(x, kernel)


def kernel_gradient(
    x: tf.Tensor, shape: tf.Tensor, dy: tf.Tensor, size: Sequence[int], strides: Sequence[int], padding: str
) -> tf.Tensor:
    """That of a kernel of ``shape`` [h, w, C, 1], whose first two are ``size``.

    ``x`` [B, H, W, C] is the input, ``dy`` [B, H', W', C] the gradient of the output, B at least 1.
    """
    options: dict[str, Any] = {"strides": strides, "padding": padding}
    if max(size) > ONEDNN_IS_FAST_TO:
        if padding == "SAME":
            x = _padded(x, tf.shape(dy), size, strides)
        # Padding that is given outright, be it none, is what oneDNN is not asked for.
        options.update(padding="EXPLICIT", explicit_paddings=[0] * 8)
    return tf.raw_ops.DepthwiseConv2dNativeBackpropFilter(input=x, filter_sizes=shape, out_backprop=dy, **options)


def _padded(x: tf.Tensor, outputs: tf.Tensor, size: Sequence[int], strides: Sequence[int]) -> tf.Tensor:
    """``x`` with the zeros around it that "SAME" means, for outputs of that shape."""
    spans = (outputs[1:3] - 1) * strides[1:3] + size
    missing = tf.maximum(spans - tf.shape(x)[1:3], 0)
    before = missing // 2
    sides = tf.stack([before, missing - before], axis=1)
    return tf.pad(x, tf.pad(sides, [[1, 1], [0, 0]]))
