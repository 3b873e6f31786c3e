"""Steps on two devices against the same steps on one: ``python -m tests.two_replicas FOLDER``, photos go there.

In a process of its own, because a device is cut in two before TensorFlow begins. The detector is an EfficientNet with
every part of a large one, and as few layers as that takes. The classifier has fewer. Under tests/in_float64.py, where
rounding hides nothing, more is compared.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from engine.averaging import WeightAverage
from engine.checkpoint import model_tensors
from engine.classification_task import ClassificationTask
from engine.dataset import Batch
from engine.detection_task import DetectionTask
from engine.learner import Learner
from engine.task import Task
from nets.backbones import BACKBONES
from nets.backbones.efficientnet import EfficientNet
from nets.classifier import build_classifier_of
from nets.detector import build_detector
from tests.drawn_data import draw_photo
from tests.labelled_folders import CLASSES, draw_folders
from tests.specs import detector_spec
from utils.classifier_config import ClassifierLossConfig, ClassifierRunConfig, ClassifierSpec
from utils.config import RunConfig, TrainConfig
from utils.image_folders import read_image_folders

TINY = "efficientnet_tiny"
OFTEN = 0.8
"""How often the last block drops out: in one step, some blocks do."""
KINDS = ("kernel", "gamma", "beta", "bias", "moving_mean", "moving_variance")

Devices = tuple[tf.distribute.Strategy, tf.distribute.Strategy]


class Steps(NamedTuple):
    """Loss parts of steps, weights before them, and what they added to each."""

    losses: np.ndarray
    before: dict[str, np.ndarray]
    added: dict[str, np.ndarray]


def main(arguments: list[str]) -> None:
    """Raises AssertionError where the two differ."""
    compare_steps = exact if keras.config.floatx() == "float64" else rounded
    compare_steps(Path(arguments[0]), one_and_two_devices())


def rounded(folder: Path, strategies: Devices) -> None:
    """A traced step in float32, and steps in float16."""
    # Summing floats in another order: less than 0.02 was seen on two cores, 0.026 on one. Half a gradient, or one of a
    # shard, would be 0.5 off.
    runs = (learned_steps(strategy, partial(classification, folder)) for strategy in strategies)
    print("classification differs by", compare(*runs, tolerance=0.05))
    tf.config.run_functions_eagerly(True)
    print("half", "skipped", compare_halves(*(half_steps(strategy, folder) for strategy in strategies)))


def exact(folder: Path, strategies: Devices) -> None:
    """Two steps of each kind in float64."""
    for make_task, changes in (
        (classification, {"optimizer": "adamw", "weight_decay": 0.05, "backbone_rate": 0.5}),
        (classification, {"accumulate": 3}),
        (detection, {}),
    ):
        # Tracing the detector's step, for one device and for two, would take most of a minute.
        tf.config.run_functions_eagerly("optimizer" not in changes)
        runs = (learned_steps(strategy, partial(make_task, folder), 2, **changes) for strategy in strategies)
        print(make_task.__name__, "differs by", compare(*runs, tolerance=1e-9))


def one_and_two_devices() -> Devices:
    """The CPU, and the CPU cut in two."""
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
    taps = "block3a_project_bn", "block5b_add", "block7a_project_bn"
    BACKBONES[TINY] = replace(
        BACKBONES["efficientnet_b0"], name=TINY, architecture=EfficientNet(0.25, 0.5, 0.2), taps=taps
    )
    # A second MirroredStrategy would number its sums from the start again, which the runtime takes for the first's.
    return tf.distribute.get_strategy(), tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])


def detection(folder: Path) -> DetectionTask:
    """Four photos with none to three objects."""
    spec = detector_spec(
        backbone=TINY, input_size=64, class_names=("red", "blue"), decode="bounded", stochastic_depth=OFTEN
    )
    records = [draw_photo(folder / f"{i}.png", i, objects=i) for i in range(4)]
    return DetectionTask(RunConfig(), spec, build_detector(spec), records, records)


def classification(folder: Path) -> ClassificationTask:
    """Six photos of three classes."""
    images = read_image_folders(str(draw_folders(folder / "labelled", train=2, val=1))).train
    spec = ClassifierSpec(CLASSES, "mobilenet_v1_0.25_shallow", 64)
    config = ClassifierRunConfig(loss=ClassifierLossConfig(label_smoothing=0.1))
    return ClassificationTask(config, spec, build_classifier_of(spec), images, images, keep_decoded=False)


def learned_steps(
    strategy: tf.distribute.Strategy, make_task: Callable[[], Task], count: int = 1, **changes: Any
) -> Steps:
    """Steps with everything that is summed over devices: loss, statistics, dropout, clipping, L2."""
    with strategy.scope():
        task = make_task()
    batch = next(task.val_data.validation_batches(len(task.val_data)))
    batch = typed(batch, task)
    before = model_tensors(task.model)
    config = replace(
        TrainConfig(), **{"optimizer": "sgd", "clip_norm": 1.0, "head_l2": 1e-3, "precision": "float32", **changes}
    )
    average = WeightAverage(task.model, 0.5, strategy)
    learner = Learner(task, config, strategy, False, average)
    losses = [learner.train_step(batch, 1.0 if config.optimizer == "sgd" else 1e-3)]
    after = model_tensors(task.model)
    for path, value in average.tensors().items():
        # The first update keeps a tenth.
        np.testing.assert_allclose(
            value, 0.1 * before[f"model/{path}"] + 0.9 * after[f"model/{path}"], rtol=1e-5, atol=1e-6
        )
        for copy in strategy.experimental_local_results(average.averages[path]):
            np.testing.assert_array_equal(copy, value)
    losses += [learner.train_step(batch, 1e-3) for _ in range(count - 1)]
    after = model_tensors(task.model)
    return Steps(np.array(losses), before, {name: after[name].astype(float) - before[name] for name in after})


def typed(batch: Batch, task: Task) -> Batch:
    """What a step that is not traced is given: targets of the type that a traced one would make of them."""
    signature = task.target_signature
    targets = {name: value.astype(signature[name].dtype.as_numpy_dtype) for name, value in batch.targets.items()}
    return replace(batch, targets=targets)


def half_steps(strategy: tf.distribute.Strategy, folder: Path) -> tuple[list[np.ndarray], list[float]]:
    """Losses and loss scales of two steps in float16, the first of which overflows."""
    with strategy.scope():
        task = classification(folder)
    batch = next(task.val_data.validation_batches(len(task.val_data)))
    config = replace(TrainConfig(), optimizer="sgd", clip_norm=1.0, precision="mixed_float16")
    learner = Learner(task, config, strategy, False)
    before = model_tensors(task.model)
    losses, scales = [], []
    for scale in (2.0**127, 2.0**8):
        learner.loss_scale.value = scale
        losses.append(learner.train_step(batch, 0.1))
        scales.append(learner.loss_scale.value)
        moved = {name for name, value in model_tensors(task.model).items() if np.any(value != before[name])}
        assert any("kernel" in name for name in moved) == (scale == 2.0**8)
    return losses, scales


def compare_halves(one: Any, two: Any) -> int:
    """How many steps were skipped, which is as many on two devices as on one."""
    np.testing.assert_allclose(one[0], two[0], rtol=0.02)
    assert one[1] == two[1] == [2.0**126, 2.0**8]
    return 1


def compare(one: Steps, two: Steps, tolerance: float) -> float:
    """The largest difference of the updates of a kind, as a share."""
    np.testing.assert_allclose(one.losses, two.losses, rtol=min(tolerance, 2e-4))
    assert set(one.added) == set(two.added), set(one.added) ^ set(two.added)
    shares = []
    for kind in KINDS:
        names = [name for name in one.added if name.endswith(kind)]
        assert all(np.array_equal(one.before[name], two.before[name]) for name in names)
        step, other = (np.concatenate([run.added[name].ravel() for name in names]) for run in (one, two))
        shares.append(float(np.linalg.norm(step - other) / np.linalg.norm(step)))
    assert max(shares) < tolerance, dict(zip(KINDS, shares, strict=True))
    return max(shares)


if __name__ == "__main__":
    main(sys.argv[1:])
