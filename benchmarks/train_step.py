"""A training step of an EfficientNet detector against the plain Keras way: same graph, same head, same process.

The plain way is the backbone of keras.applications and ``keras.layers.BatchNormalization`` throughout, in float32. Ours
computes in float32 and, as with ``train.precision mixed_bfloat16``, in bfloat16. Rounds of all alternate, so that a
busy machine slows all alike.

    python -m benchmarks.train_step --size 416 --batch 4 --rounds 5
    python -m benchmarks.train_step --backbone efficientnet_b4 --rounds 3
"""

from __future__ import annotations

import argparse
import dataclasses
import statistics
import time
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from nets.backbones import backbone_spec
from nets.detector import BACKBONE, build_detector, freeze_backbone
from nets.head import KERNEL_STD, Head
from nets.layers import LayerFactory
from nets.precision import computing_in
from utils.anchors import read_anchors
from utils.config import LEVELS, DetectorSpec
from utils.shipped import own_or_shipped

PLAIN = "plain Keras"
ANCHORS = tuple(map(tuple, read_anchors(own_or_shipped("model_data/yolo_anchors.txt")).tolist()))
SPEC = DetectorSpec(tuple(f"class {i}" for i in range(20)), "efficientnet_b0", 416, ANCHORS)


class PlainLayers(LayerFactory):
    """The head's layers as Keras has them."""

    def norm(self, name: str) -> Any:
        """Keras' own batch normalization."""
        return keras.layers.BatchNormalization(momentum=self.batch_norm_momentum, name=name)


def plain_detector(spec: DetectorSpec) -> keras.Model:
    """The detector that one would build from Keras alone."""
    build = getattr(keras.applications, f"EfficientNetB{spec.backbone[-1]}")
    whole = build(include_top=False, weights=None, input_shape=(None, None, 3))
    outputs = {
        level: whole.get_layer(tap).output for level, tap in zip(LEVELS, backbone_spec(spec.backbone).taps, strict=True)
    }
    backbone = keras.Model(whole.inputs, outputs, name=BACKBONE)
    inputs = keras.Input((None, None, 3))
    taps = backbone(inputs)
    widths = tuple(int(taps[level].shape[-1]) for level in LEVELS)
    make = PlainLayers(0, spec.batch_norm_momentum, kernel_std=KERNEL_STD)
    return keras.Model(inputs, Head(widths, (75, 75, 75), make).apply(taps))


def training_step(model: keras.Model, precision: str) -> Callable[[tf.Tensor], tf.Tensor]:
    """A traced step: forward, backward and SGD; the mean square of the logits stands for the loss."""
    optimizer = keras.optimizers.SGD(1e-3, momentum=0.937, nesterov=True)
    optimizer.build(model.trainable_variables)

    @tf.function
    def step(images: tf.Tensor) -> tf.Tensor:
        with computing_in(model, precision), tf.GradientTape() as tape:
            loss = tf.add_n([tf.reduce_mean(tf.square(logits)) for logits in model(images, training=True).values()])
        variables = model.trainable_variables
        optimizer.apply(tape.gradient(loss, variables), variables)
        return loss

    return step


@dataclasses.dataclass(frozen=True)
class Seconds:
    """Of one step: wall time, and time on all cores together, which other programs disturb less."""

    wall: float
    cpu: float


def seconds(step: Callable[[tf.Tensor], tf.Tensor], images: tf.Tensor) -> Seconds:
    """Time of one step."""
    wall, cpu = time.perf_counter(), time.process_time()
    float(step(images))
    return Seconds(time.perf_counter() - wall, time.process_time() - cpu)


@dataclasses.dataclass(frozen=True)
class Contestant:
    """A way to learn: its network, and what the steps compute in."""

    model: keras.Model
    precision: str = "float32"


def measure(contestants: dict[str, Contestant], images: tf.Tensor, rounds: int, frozen: bool) -> dict[str, Seconds]:
    """Median step of each; tracing and a warm-up step are not counted."""
    for contestant in contestants.values():
        freeze_backbone(contestant.model, frozen)
    steps = {name: training_step(one.model, one.precision) for name, one in contestants.items()}
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
    names = [f"efficientnet_b{number}" for number in range(8)]
    parser.add_argument("--backbone", choices=names, default=SPEC.backbone)
    parser.add_argument("--size", type=int, default=416, help="side of the input in pixels, a multiple of 32")
    parser.add_argument("--batch", type=int, default=4, help="images a step")
    parser.add_argument("--rounds", type=int, default=5, help="measured steps of each")
    options = parser.parse_args()
    shape = (options.batch, options.size, options.size, 3)
    images = tf.constant(np.random.default_rng(0).uniform(0, 255, shape).astype(np.float32))
    spec = dataclasses.replace(SPEC, backbone=options.backbone)
    plain, model = plain_detector(spec), build_detector(spec)
    contestants = {
        PLAIN: Contestant(plain),
        "ours": Contestant(model),
        "ours, bfloat16": Contestant(model, "mixed_bfloat16"),
    }
    print(
        f"{options.backbone} detector, {options.batch} images of {options.size} px a step, median of {options.rounds}"
    )
    print(f"{'phase':9} {'':15} {'s':>7} {'CPU s':>7}   times as fast as {PLAIN} (by CPU s)")
    found = {phase: measure(contestants, images, options.rounds, phase == "frozen") for phase in ("unfrozen", "frozen")}
    for phase, times in found.items():
        for name, own in times.items():
            ratios = f"{times[PLAIN].wall / own.wall:.2f} ({times[PLAIN].cpu / own.cpu:.2f})"
            print(f"{phase:9} {name:15} {own.wall:7.3f} {own.cpu:7.3f}   {ratios}")
    for name in contestants:
        free, still = found["unfrozen"][name], found["frozen"][name]
        print(f"{name}: frozen {free.wall / still.wall:.2f} ({free.cpu / still.cpu:.2f}) times as fast as unfrozen")


if __name__ == "__main__":
    main()
