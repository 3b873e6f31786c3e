"""Training runs small enough to be killed fifty times, each in a process of its own, and what hurts them.

The processes are forked off one that has imported TensorFlow, which takes longer than such a run.
"""

from __future__ import annotations

import os
import resource
import signal
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

import train
from engine import checkpoint, dataset, detection_setup, saving, training, waiting
from engine.detection_task import DetectionTask
from engine.learner import Learner
from engine.schedule import Schedule
from engine.task import Measurement
from nets.detector import BACKBONE
from nets.layers import LayerFactory
from tests.drawn_data import draw_lists
from utils.command_line import TrainingRequest
from utils.config import LEVELS, DataConfig, DetectorSpec, ModelConfig, PhaseConfig, RunConfig, TrainConfig
from utils.door import run_door

STEPS = 3
"""Of an epoch."""
Fault = Callable[[], None]
"""Done in the process of the run, before anything else."""


def tiny_detector(spec: DetectorSpec, weights: Any = None, seed: int = 0) -> keras.Model:
    """One convolution in the backbone and one a level, yet every kind of state: statistics, random generators."""
    assert weights in (None, "none")
    make = LayerFactory(seed, batch_norm_momentum=0.9)
    inputs = keras.Input([None, None, 3])
    x = make.conv(256, 8, "stem", strides=8)(keras.layers.Rescaling(1 / 255)(inputs))
    x = make.dropout(0.3, "stem_drop", whole_samples=True)(keras.layers.ReLU()(make.norm("stem_bn")(x)))
    taps = [x]
    for _ in LEVELS[1:]:
        taps.append(keras.layers.AveragePooling2D(2)(taps[-1]))
    image = keras.Input([None, None, 3])
    levels = keras.Model(inputs, taps, name=BACKBONE)(image)
    depth = spec.slot_values
    logits = {
        level: make.conv(len(mask) * depth, 1, f"head_{level}_logits", bias=True)(make.norm(f"head_{level}_bn")(tap))
        for level, mask, tap in zip(LEVELS, spec.masks, levels, strict=True)
    }
    return keras.Model(image, logits)


def up_and_down(task: Any, batch_size: int, run: Any, epoch: int, *_: Any) -> Measurement:
    """Stands in for the mAP, which would stay 0: the second of four epochs is the best."""
    score = (0.5, 0.3, 0.9, 0.1)[epoch % 4]
    return Measurement({"map_50": score, "coco_ap": score}, score)


def tiny_config(folder: Path, input_size: int = 32, **train_fields: Any) -> RunConfig:
    """A run on photos drawn in ``folder``: one frozen epoch, then unfrozen ones."""
    lists = draw_lists(folder, train=2 * STEPS, val=2)
    fields = {"save_every": 0, "eval_every": 1, "phases": (PhaseConfig(1, 2, True), PhaseConfig(4, 2, False))}
    return RunConfig(
        DataConfig(**{name: str(path) for name, path in lists.items()}, threads=1),
        ModelConfig(input_size=input_size),
        train=TrainConfig(**{**fields, **train_fields}),
    )


def quicken(patch: Callable[[Any, str, Any], None] = setattr) -> None:
    """The tiny detector and its scores instead of the real ones, and no curves, which take seconds to draw."""
    patch(detection_setup, "build_detector", tiny_detector)
    patch(DetectionTask, "measure", up_and_down)
    patch(training, "plot_curves", lambda *_: None)


def door(config: RunConfig, run: Path, log: Path, faults: tuple[Fault, ...] = (), anyway: bool = False) -> None:
    """What ``train.py`` does, going on where there is something to go on with. ``log`` gets a byte for every step.

    What is said on stderr goes to ``log`` with ``.err`` behind.
    """
    os.dup2(os.open(f"{log}.err", os.O_CREAT | os.O_WRONLY | os.O_APPEND), 2)
    sys.stderr = os.fdopen(2, "w", buffering=1)
    quicken()
    # Tracing the step would take longer than the run.
    tf.config.run_functions_eagerly(True)
    count_steps(log)
    for fault in faults:
        fault()
    resume = (run / "last").exists() or (run / "previous").exists()
    request = TrainingRequest(config, str(run), resume, anyway)
    # Reading the command line would take as long as the run.
    train.training_request = lambda *_: request
    sys.exit(run_door(lambda: train.main([])))


_AFTER_STEP: list[tuple[int, Fault]] = []


def count_steps(log: Path) -> None:
    step, file = Learner.train_step, os.open(log, os.O_CREAT | os.O_WRONLY | os.O_APPEND)
    done = 0

    def counted(self: Learner, *arguments: Any) -> Any:
        nonlocal done
        parts = step(self, *arguments)
        os.write(file, b".")
        done += 1
        for number, fault in _AFTER_STEP:
            if number == done:
                fault()
        return parts

    Learner.train_step = counted


@dataclass
class AfterStep:
    """``fault`` once this process has made ``number`` steps."""

    number: int
    fault: Fault

    def __call__(self) -> None:
        _AFTER_STEP.append((self.number, self.fault))


def stop_after(step: int, number: int = signal.SIGTERM) -> AfterStep:
    """The signal comes to a run after its ``step``."""
    return AfterStep(step, partial(signal.raise_signal, number))


def write_in_place() -> None:
    """Checkpoints written as a careless program would: over what is there, piece by piece."""

    def write(path: Any, content: bytes) -> None:
        piece = len(content) // 20
        with Path(path).open("wb", buffering=0) as file:
            for start in range(0, len(content), piece):
                file.write(content[start : start + piece])
                time.sleep(0.01)

    checkpoint.write_atomically = write
    save = checkpoint.save_checkpoint
    saving.save_checkpoint = lambda path, state, previous=None: save(path, state)


@dataclass
class FillDisk:
    """Leaves ``room`` bytes on the disk of ``folder``."""

    folder: Path
    room: int

    def __call__(self) -> None:
        free = os.statvfs(self.folder)
        with (self.folder / "ballast").open("wb") as file:
            file.write(bytes(max(free.f_bavail * free.f_frsize - self.room, 0)))


def limit_file_size() -> None:
    """No file may grow to the size of a checkpoint."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 19, 1 << 19))


def need_too_much_memory() -> None:
    """The loss needs more than a process can address."""
    loss = DetectionTask.loss

    def large(*arguments: Any) -> Any:
        parts = loss(*arguments)
        return [part + tf.reduce_max(tf.fill([1 << 46], 0.0)) for part in parts]

    DetectionTask.loss = large


def explode() -> None:
    """Steps so large that the next loss cannot be a number."""
    Schedule.rate = lambda self, epoch: 1e30


def end_the_reading_thread() -> None:
    """What is raised in a thread of the loader by a bug or by a library, and is no error of the data."""

    def broken(path: str, **_: Any) -> None:
        raise RuntimeError("the decoder died")

    dataset.read_image = broken


@dataclass
class HangReading:
    """A network disk that after so ``many`` photos does not answer, which raises nothing."""

    many: int

    def __call__(self) -> None:
        read, done = dataset.read_image, 0

        def hanging(path: str, **options: Any) -> Any:
            nonlocal done
            done += 1
            if done > self.many:
                threading.Event().wait()
            return read(path, **options)

        dataset.read_image = hanging
        waiting.STALLED_S = 0.5


@dataclass
class HangInStep:
    """The ``number``-th step of this process does not end: so long may TensorFlow optimize its graph."""

    number: int

    def __call__(self) -> None:
        step, done = Learner.train_step, 0

        def hanging(*arguments: Any) -> Any:
            nonlocal done
            parts = step(*arguments)
            done += 1
            if done == self.number:
                threading.Event().wait()
            return parts

        Learner.train_step = hanging
