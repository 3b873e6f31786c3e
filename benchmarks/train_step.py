"""A training step of the EfficientNet-B0 detector against the plain Keras way: same graph, same head, same process.

The plain way is the backbone of keras.applications and ``keras.layers.BatchNormalization`` throughout. Rounds
of both alternate, so that a busy machine slows both alike.

    python -m benchmarks.train_step --size 416 --batch 4 --rounds 5
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from nets.backbones import backbone_spec
from nets.detector import BACKBONE, build_detector, freeze_backbone
from nets.head import KERNEL_STD, Head
from nets.layers import LayerFactory
from utils.config import LEVELS, DetectorSpec

ANCHORS = ((10, 13), (16, 30), (33, 23), (30, 61), (62, 45), (59, 119), (116, 90), (156, 198), (373, 326))
SPEC = DetectorSpec(tuple(f"class {i}" for i in range(20)), "efficientnet_b0", 416, ANCHORS)


class PlainLayers(LayerFactory):
    """The head's layers as Keras has them."""

    def norm(self, name: str) -> Any:
        """Keras' own batch normalization."""
        return keras.layers.BatchNormalization(momentum=self.batch_norm_momentum, name=name)


def plain_detector() -> keras.Model:
    """The detector that one would build from Keras alone."""
    whole = keras.applications.EfficientNetB0(include_top=False, weights=None, input_shape=(None, None, 3))
    outputs = {
        level: whole.get_layer(tap).output for level, tap in zip(LEVELS, backbone_spec(SPEC.backbone).taps, strict=True)
    }
    backbone = keras.Model(whole.inputs, outputs, name=BACKBONE)
    inputs = keras.Input((None, None, 3))
    taps = backbone(inputs)
    widths = tuple(int(taps[level].shape[-1]) for level in LEVELS)
    make = PlainLayers(0, SPEC.batch_norm_momentum, kernel_std=KERNEL_STD)
    return keras.Model(inputs, Head(widths, (75, 75, 75), make).apply(taps))


def training_step(model: keras.Model) -> Callable[[tf.Tensor], tf.Tensor]:
    """A traced step: forward, backward and SGD; the mean square of the logits stands for the loss."""
    optimizer = keras.optimizers.SGD(1e-3, momentum=0.937, nesterov=True)
    optimizer.build(model.trainable_variables)

    @tf.function
    def step(images: tf.Tensor) -> tf.Tensor:
        with tf.GradientTape() as tape:
            loss = tf.add_n([tf.reduce_mean(tf.square(logits)) for logits in model(images, training=True).values()])
        variables = model.trainable_variables
        optimizer.apply(tape.gradient(loss, variables), variables)
        return loss

    return step


@dataclass(frozen=True)
class Seconds:
    """Of one step: wall time, and time on all cores together, which other programs disturb less."""

    wall: float
    cpu: float


def seconds(step: Callable[[tf.Tensor], tf.Tensor], images: tf.Tensor) -> Seconds:
    """Time of one step."""
    wall, cpu = time.perf_counter(), time.process_time()
    float(step(images))
    return Seconds(time.perf_counter() - wall, time.process_time() - cpu)


def measure(models: dict[str, keras.Model], images: tf.Tensor, rounds: int, frozen: bool) -> dict[str, Seconds]:
    """Median step of each model; tracing and a warm-up step are not counted."""
    for model in models.values():
        freeze_backbone(model, frozen)
    steps = {name: training_step(model) for name, model in models.items()}
    for step in (*steps.values(), *steps.values()):
        seconds(step, images)
    times: dict[str, list[Seconds]] = {name: [] for name in steps}
    for _ in range(rounds):
        for name, step in steps.items():
            times[name].append(seconds(step, images))
    return {
        name: Seconds(statistics.median(t.wall for t in found), statistics.median(t.cpu for t in found))
        for name, found in times.items()
    }


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=416, help="side of the input in pixels, a multiple of 32")
    parser.add_argument("--batch", type=int, default=4, help="images a step")
    parser.add_argument("--rounds", type=int, default=5, help="measured steps of each")
    options = parser.parse_args()
    shape = (options.batch, options.size, options.size, 3)
    images = tf.constant(np.random.default_rng(0).uniform(0, 255, shape).astype(np.float32))
    models = {"plain Keras": plain_detector(), "ours": build_detector(SPEC)}
    print(f"EfficientNet-B0 detector, {options.batch} images of {options.size} px a step, median of {options.rounds}")
    print(f"{'phase':9} {'plain Keras, s (CPU s)':>24} {'ours, s (CPU s)':>24}   times as fast (by CPU s)")
    ours = {}
    for phase in ("unfrozen", "frozen"):
        found = measure(models, images, options.rounds, phase == "frozen")
        plain, own = found["plain Keras"], found["ours"]
        ours[phase] = own
        times = [f"{step.wall:14.3f} ({step.cpu:7.3f})" for step in (plain, own)]
        print(f"{phase:9} {times[0]} {times[1]}   {plain.wall / own.wall:.2f} ({plain.cpu / own.cpu:.2f})")
    free, still = ours["unfrozen"], ours["frozen"]
    print(f"ours, frozen against unfrozen: {free.wall / still.wall:.2f} ({free.cpu / still.cpu:.2f}) times as fast")


if __name__ == "__main__":
    main()
