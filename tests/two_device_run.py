"""A training on two devices against the same on one: ``python -m tests.two_device_run FOLDER``, runs go there.

In a process of its own, because a device is cut in two before TensorFlow begins.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import tensorflow as tf

from engine.checkpoint import read_checkpoint
from engine.detection_task import DetectionTask
from engine.devices import forward
from engine.inference import Predictor
from engine.learner import Learner
from engine.run_directory import RunDirectory
from engine.startup import resume_run, start_run
from tests.fault_runs import quicken, tiny_config
from tests.runs_watched import StopAfter
from tests.small_run import lively_detector, noise, small_spec
from tests.timings import TIMINGS
from tests.two_replicas import one_and_two_devices
from utils.config import AUTO, PhaseConfig
from utils.progress import Quiet

LOOKS = 11
"""Up to the second step of the second phase."""


def main(folder: Path) -> None:
    """Raises AssertionError where the two differ."""
    one, two = one_and_two_devices()
    share_a_batch(two)
    share_a_training(folder, one, two)


def share_a_batch(strategy: tf.distribute.Strategy) -> None:
    """Each device computes its share, with the weights that it holds, of batches that cannot be shared evenly, too."""
    spec = small_spec()
    with strategy.scope():
        model = lively_detector(spec)
    photos = np.stack(noise(5, size_hw=(65, 70)))[:, :64, :64]
    shared = tf.function(lambda images: forward(model, images), [tf.TensorSpec([None, None, None, 3], tf.uint8)])
    for count in (1, 2, 5):
        for level, expected in model(photos[:count], training=False).items():
            np.testing.assert_allclose(shared(photos[:count])[level], expected, rtol=0, atol=1e-3)

    def halves(outputs: dict[str, tf.Tensor], *_: object, **__: object) -> list[tf.Tensor]:
        return [tf.reduce_sum(outputs["P3"][:3]), tf.reduce_sum(outputs["P3"][3:])]

    learner = SimpleNamespace(model=model, task=SimpleNamespace(loss=halves), _l2=lambda: 0.0)
    validated = tf.function(partial(Learner._validation_parts, learner))
    before, seen, parts = shared(photos), Predictor(model, spec).objectness(photos), validated(photos, {})
    for weight in model.trainable_variables:
        second = strategy.experimental_local_results(weight.value)[1]
        second.assign(2 * second)
    for level, after in shared(photos).items():
        moved = np.any(after != before[level], axis=(1, 2, 3))
        assert moved.tolist() == [False] * 3 + [True] * 2
    assert (validated(photos, {}) != parts).numpy().tolist() == [False, True, False]
    # What measures shares its batches out.
    for level, other in zip(seen, Predictor(model, spec).objectness(photos), strict=True):
        assert np.any(level != other, axis=(1, 2)).tolist() == [False] * 3 + [True] * 2
    print("batch")


def share_a_training(folder: Path, one: tf.distribute.Strategy, two: tf.distribute.Strategy) -> None:
    """Losses, measurements and weights, also of a training that was stopped in the middle of an epoch."""
    measure = DetectionTask.measure
    quicken()
    DetectionTask.measure = measure
    # Tracing the step would take longer than the run.
    tf.config.run_functions_eagerly(True)
    phases = (PhaseConfig(1, 2, True), PhaseConfig(2, 2, False))
    config = tiny_config(folder, optimizer="sgd", ema_decay=0.9, precision="float32", phases=phases)
    runs = {name: RunDirectory(folder / name) for name in ("one", "two", "stopped")}
    for name, strategy in (("one", one), ("two", two)):
        start_run(config, runs[name].path, Quiet(), strategy).fit()
    start_run(config, runs["stopped"].path, Quiet(), two).fit(StopAfter(LOOKS))
    resumed = resume_run(config, runs["stopped"].path, Quiet(), two)
    assert (resumed.position.epoch, resumed.position.epoch_step) == (1, 2)
    resumed.fit()
    compare(runs["one"], runs["two"], 1e-4)
    compare(runs["two"], runs["stopped"], 0)
    left_open = tuple(replace(phase, batch_size=AUTO) for phase in phases)
    found = start_run(replace(config, train=replace(config.train, phases=left_open)), folder / "open", Quiet(), two)
    assert [phase.batch_size for phase in found.phases] == [4, 4], found.phases
    print("training")


def compare(first: RunDirectory, second: RunDirectory, tolerance: float) -> None:
    """Every tensor of ``last`` and every number of each epoch."""
    close = partial(np.testing.assert_allclose, rtol=tolerance, atol=tolerance)
    one, two = (read_checkpoint(run.last).tensors for run in (first, second))
    assert one.keys() == two.keys()
    for name, value in one.items():
        close(value, two[name], err_msg=name)
    for entry, other in zip(first.read_metrics(), second.read_metrics(), strict=True):
        for name in entry.keys() - set(TIMINGS):
            close(entry[name], other[name], err_msg=name)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
