"""Milliseconds an image of decode + NMS, as evaluation runs it: score threshold 0.001, NMS IoU 0.5.

  python -m benchmarks.decode_nms [--size 416] [--classes 20] [--objects 20]

Raw outputs are made up in two ways: as a trained detector gives them (a few dozen slots near each object score high,
the rest low), and as an untrained one does (everything scores about the same), which is the worst case.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import tensorflow as tf

from nets.decode import decode
from nets.nms import suppress
from utils.anchors import read_anchors
from utils.config import LEVELS, STRIDES, DetectorSpec

ROOT = Path(__file__).resolve().parent.parent


def main() -> None:
    """Times both kinds of output and prints the medians."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=416)
    parser.add_argument("--classes", type=int, default=20)
    parser.add_argument("--objects", type=int, default=20)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=30)
    given = parser.parse_args()
    anchors = tuple(map(tuple, read_anchors(ROOT / "model_data" / "yolo_anchors.txt").tolist()))
    names = tuple(f"class {i}" for i in range(given.classes))
    spec = DetectorSpec(names, "efficientnet_b0", given.size, anchors)
    detect = tf.function(lambda outputs: suppress(decode(outputs, spec), 0.001, 0.5))
    for title, objects in (("trained", given.objects), ("untrained", None)):
        outputs = _outputs(spec, given.batch, objects)
        found = detect(outputs).counts.numpy().mean()
        times = []
        for _ in range(given.rounds):
            start = time.perf_counter()
            detect(outputs).counts.numpy()
            times.append((time.perf_counter() - start) * 1000 / given.batch)
        print(f"{title:>9}: median {statistics.median(times):.2f} ms an image, {found:.0f} detections an image")


def _outputs(spec: DetectorSpec, batch: int, objects: int | None) -> dict[str, tf.Tensor]:
    rng = np.random.default_rng(0)
    depth = spec.slot_values
    outputs = {}
    for level in LEVELS:
        side = spec.input_size // STRIDES[level]
        values = rng.normal(0, 0.5, (batch, side, side, 3, depth)).astype(np.float32)
        if objects is not None:
            values[..., 4] -= 9
            values[..., 5:] -= 3
            for image in range(batch):
                for x, y in rng.integers(0, side, (objects // 3 + 1, 2)):
                    near = np.s_[image, max(y - 1, 0) : y + 2, max(x - 1, 0) : x + 2]
                    values[near][..., 4] += rng.uniform(6, 12)
                    values[near][..., 5 + rng.integers(len(spec.class_names))] += 6
        outputs[level] = tf.constant(values.reshape(batch, side, side, -1))
    return outputs


if __name__ == "__main__":
    main()
