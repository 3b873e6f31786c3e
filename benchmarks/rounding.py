"""How far a detector on two devices comes from the same on one, and how far rounding alone takes it.

    python -m benchmarks.rounding                          # in float32
    python tests/in_float64.py benchmarks.rounding         # in float64

Two devices add up in another order. So that what this does can be told from a mistake, a third run is on one device,
with every weight moved by its last bit before the first step. Printed is the largest difference of a weight after each.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from engine.checkpoint import model_tensors
from engine.detection_task import DetectionTask
from engine.learner import Learner
from nets.detector import build_detector
from tests.drawn_data import draw_photo
from tests.specs import detector_spec
from tests.two_replicas import one_and_two_devices, typed
from utils.config import RunConfig, TrainConfig

STEPS, RATE = 4, 1e-3
SETTINGS = ((True, 32), (False, 96))
"""Whether the backbone, of random weights, is frozen; side of the four photos."""


def weights_after_steps(
    strategy: tf.distribute.Strategy, folder: Path, frozen: bool, size: int, moved: bool = False
) -> list[dict[str, np.ndarray]]:
    """The weights after each step of SGD on one batch."""
    spec = detector_spec(backbone="mobilenet_v1_0.25", input_size=size, class_names=("red", "blue"), decode="bounded")
    records = [draw_photo(folder / f"{i}.png", i, objects=i % 3 + 1) for i in range(4)]
    with strategy.scope():
        task = DetectionTask(RunConfig(), spec, build_detector(spec), records, records)
    if moved:
        rng = np.random.default_rng(0)
        for weight in task.model.weights:
            values = np.asarray(weight)
            weight.assign(np.nextafter(values, rng.choice([-1.0, 1.0], values.shape).astype(values.dtype) * np.inf))
    batch = next(task.val_data.validation_batches(len(records)))
    learner = Learner(task, replace(TrainConfig(), optimizer="sgd", precision="float32"), strategy, frozen)
    found = []
    for _ in range(STEPS):
        learner.train_step(typed(batch, task), RATE)
        found.append(model_tensors(task.model))
    return found


def apart(one: list[dict[str, np.ndarray]], other: list[dict[str, np.ndarray]]) -> str:
    """The largest difference of any weight, by step."""
    largest = [max(np.abs(a[name] - b[name]).max() for name in a) for a, b in zip(one, other, strict=True)]
    return ", ".join(f"{value:.1e}" for value in largest)


def main(arguments: list[str]) -> None:
    """Prints two lines for each setting."""
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args(
        arguments
    )
    one, two = one_and_two_devices()
    tf.config.run_functions_eagerly(True)
    with tempfile.TemporaryDirectory() as folder:
        for frozen, size in SETTINGS:
            print(f"{keras.config.floatx()}, {size} px, {'backbone frozen' if frozen else 'everything trains'}")
            start = weights_after_steps(one, Path(folder), frozen, size)
            print("  two devices:  ", apart(start, weights_after_steps(two, Path(folder), frozen, size)))
            print("  the last bit: ", apart(start, weights_after_steps(one, Path(folder), frozen, size, moved=True)))


if __name__ == "__main__":
    main(sys.argv[1:])
