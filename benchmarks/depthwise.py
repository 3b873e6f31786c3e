"""The kernel's gradient of depthwise convolutions, as TensorFlow takes it by default and as we do, on one thread.

Of the depthwise layers of EfficientNet-B0 with kernels of 5x5. By default oneDNN computes, where TensorFlow uses it.

    python -m benchmarks.depthwise --size 416 --batch 4
"""

from __future__ import annotations

import argparse
from typing import Any

import tensorflow as tf

from benchmarks.step_profile import fastest
from nets.depthwise import kernel_gradient

LAYERS = ((4, 144, 2), (8, 240, 1), (16, 480, 1), (16, 672, 1), (16, 672, 2), (32, 1152, 1))
"""The input's share of the image's side, channels, strides."""
KERNEL = (5, 5)


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=416, help="side of the photos in pixels, a multiple of 32")
    parser.add_argument("--batch", type=int, default=4, help="photos")
    parser.add_argument("--rounds", type=int, default=9, help="of each, of which the fastest counts")
    given = parser.parse_args()
    tf.config.threading.set_intra_op_parallelism_threads(1)
    print("| input | stride | TensorFlow's default, ms | ours, ms | times as fast |\n|---|---|---|---|---|")
    for share, channels, stride in LAYERS:
        side = given.size // share
        x = tf.random.normal([given.batch, side, side, channels])
        dy = x[:, ::stride, ::stride]
        shape = (*KERNEL, channels, 1)
        options: dict[str, Any] = {"strides": [1, stride, stride, 1], "padding": "SAME"}
        by_default = tf.function(
            lambda x=x, dy=dy, shape=shape, options=options: tf.raw_ops.DepthwiseConv2dNativeBackpropFilter(
                input=x, filter_sizes=shape, out_backprop=dy, **options
            )
        )
        ours = tf.function(
            lambda x=x, dy=dy, shape=shape, options=options: kernel_gradient(x, shape, dy, KERNEL, **options)
        )
        slow, fast = (1e3 * fastest(act, given.rounds) for act in (by_default, ours))
        print(f"| {side}x{side}x{channels} | {stride} | {slow:.1f} | {fast:.1f} | {slow / fast:.1f} |")


if __name__ == "__main__":
    main()
