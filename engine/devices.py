"""Devices: whether TensorFlow uses the GPUs that are here, how much of their memory, and each for its share."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf


def gpu_advice(devices: Path = Path("/dev")) -> str | None:
    """What to do about an NVIDIA GPU that TensorFlow cannot use; None where there is none, or where it was hidden.

    TensorFlow's package comes without NVIDIA's libraries, and without them computes on the CPU.
    """
    # A list of devices ends where one is not known.
    hidden = re.match(r"\s*(-|NoDevFiles|$)", os.environ.get("CUDA_VISIBLE_DEVICES", "all"))
    if hidden or tf.config.list_physical_devices("GPU") or not any(devices.glob("nvidia[0-9]*")):
        return None
    return (
        "this machine has an NVIDIA GPU that TensorFlow cannot use, so the CPU computes; the libraries come with: "
        f"{sys.executable} -m pip install 'tensorflow[and-cuda]=={tf.__version__}'"
    )


def share_gpu_memory() -> None:
    """Lets TensorFlow take memory of a GPU as it needs it, not nearly all at once, unless the user decided otherwise.

    For what only predicts, of which several may run on one. To be called before TensorFlow has computed anything.
    """
    os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")


def forward(model: keras.Model, images: Any) -> Any:
    """What ``model`` makes of images [B, S, S, 3] outside training: a share on each device of this process.

    In a graph, the devices work at the same time. What is first or last in the batch does not change the result.
    """
    strategy = model.distribute_strategy
    # Of the replicas of several workers those of this one: no worker waits for what another computes.
    devices = strategy.extended.worker_devices if strategy.num_replicas_in_sync > 1 else ()
    if len(devices) < 2:
        return model(images, training=False)
    # Cut before it goes to the devices.
    with tf.device("CPU:0"):
        count = tf.shape(images)[0]
        each = -(-count // len(devices))
        # Begun anew at the end, the batch gives all devices as many.
        shares = tf.split(tf.gather(images, tf.range(each * len(devices)) % count), len(devices))
    outputs = []
    for device, share in zip(devices, shares, strict=True):
        # In the strategy's scope a weight is read from the copy of the device.
        with strategy.scope(), tf.device(device):
            outputs.append(model(share, training=False))
    return tf.nest.map_structure(lambda *parts: tf.concat(parts, 0)[:count], *outputs)
