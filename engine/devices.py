"""GPUs: whether TensorFlow uses those that are here, and how much of their memory it takes."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

import tensorflow as tf


def unused_gpu(devices: Path = Path("/dev")) -> str | None:
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
