"""The floating-point type that training steps compute in, and the scale that keeps float16's gradients in range."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from nets.depthwise import depthwise_conv2d
from utils.config import Precision
from utils.errors import DivergedError

Capability = tuple[int, int] | None
FIRST_SCALE = 2.0**15
LARGEST_SCALE = 2.0**24
GROWS_AFTER = 2000
"""Steps in a row without an overflow after which the scale doubles."""
MOST_SKIPPED = 30
"""Steps in a row that may be skipped: by then the scale is 2^-15, or 2^-6 after the largest, and no scale will help."""

SUMMED = 64 * 64
"""Ones that a gradient is the sum of, to see whether all arrive."""


def precision_for(asked: Precision, capabilities: Sequence[Capability]) -> Precision:
    """What ``asked`` means on GPUs of these CUDA compute capabilities (None: not known); none stands for a CPU.

    The least of them decides for all. Tensor cores know float16 from 7.0 on and bfloat16 from 8.0 on.
    """
    if asked != "auto":
        return asked
    least = min((capability or (0, 0) for capability in capabilities), default=(0, 0))
    if least >= (8, 0):
        return "mixed_bfloat16"
    return "mixed_float16" if least >= (7, 0) else "float32"


def gpu_capabilities() -> list[Capability]:
    """The compute capability of each GPU that TensorFlow sees, None where it knows of none."""
    gpus = tf.config.list_physical_devices("GPU")
    return [tf.config.experimental.get_device_details(gpu).get("compute_capability") for gpu in gpus]


def cpu_has_bfloat16(described: Path = Path("/proc/cpuinfo")) -> bool:
    """Whether the processor multiplies bfloat16 by instructions of its own; False where ``described`` cannot tell.

    TensorFlow has kernels for those of x86 processors alone. Whether a step gains by them depends on the network and on
    the processor (docs/speed.md).
    """
    try:
        words = described.read_text().split()
    except OSError:
        return False
    return not {"avx512_bf16", "amx_bf16"}.isdisjoint(words)


def gradient_remarks(precision: Precision) -> list[str]:
    """A line about it where convolutions here add up a kernel's gradient in the half type, none where they do not.

    From 256 on bfloat16 has no room for 1 more. TensorFlow's own kernels for CPUs, which compute where oneDNN does not,
    add up so in parts.
    """
    half = keras.DTypePolicy(precision).compute_dtype
    ones, kernels = tf.ones([1, 66, 66, 8], half), [tf.zeros([3, 3, 8, count], half) for count in (16, 1)]
    with tf.GradientTape() as tape:
        tape.watch(kernels)
        outputs = [tf.nn.conv2d(ones, kernels[0], 1, "VALID"), depthwise_conv2d(ones, kernels[1], (1, 1), "VALID")]
    sums = tape.gradient(outputs, kernels, [tf.ones_like(output) for output in outputs])
    least = min(float(tf.reduce_min(tf.cast(one, tf.float32))) for one in sums)
    if least >= SUMMED:
        return []
    return [
        f"gradients in {precision} fall short here: of {SUMMED} ones {least:.0f} arrive; train.precision float32 has "
        f"them all{'' if tf.config.list_physical_devices('GPU') else ', and is faster on this CPU'}"
    ]


class LossScale:
    """What the loss is multiplied by before its gradients are taken in float16 (arXiv:1710.03740 section 3.2).

    It halves with every step whose gradients overflow, which is skipped, and doubles after ``GROWS_AFTER`` good ones.
    Always a power of two, so it changes no digit of a gradient.
    """

    def __init__(self) -> None:
        self.value, self.good, self.skipped = FIRST_SCALE, 0, 0

    def follow(self, finite: bool) -> None:
        """After each step: whether its gradients were numbers. DivergedError after ``MOST_SKIPPED`` that were not."""
        if not finite:
            self.value, self.good, self.skipped = self.value / 2.0, 0, self.skipped + 1
            if self.skipped >= MOST_SKIPPED:
                raise DivergedError(
                    f"train.precision: mixed_float16: the gradients of {self.skipped} steps in a row are not numbers; "
                    "lower train.learning_rate, or train in mixed_bfloat16 or float32"
                )
            return
        self.good, self.skipped = self.good + 1, 0
        if self.good >= GROWS_AFTER:
            self.value, self.good = min(2.0 * self.value, LARGEST_SCALE), 0

    def tensor(self) -> np.ndarray:
        """Its state, [3] float32."""
        return np.array([self.value, self.good, self.skipped], np.float32)

    def restore(self, tensor: np.ndarray) -> None:
        """The inverse of ``tensor``."""
        self.value, self.good, self.skipped = float(tensor[0]), int(tensor[1]), int(tensor[2])
