"""Batch sizes that a config leaves open (-1): the largest whose training step fits into the memory of the GPUs."""

from __future__ import annotations

import gc
from collections.abc import Callable
from dataclasses import replace
from typing import TypeVar

import numpy as np
import tensorflow as tf

from engine.averaging import WeightAverage
from engine.checkpoint import model_tensors, restore_model
from engine.dataset import Batch
from engine.learner import Learner
from engine.memory import ran_out_of_memory
from engine.pace import forget_gpu_memory_peak
from engine.plan import phases
from engine.task import Config, Task
from utils.cluster import read_cluster
from utils.config import AUTO, PhaseConfig, TrainConfig
from utils.errors import ConfigError, MemoryRanOutError

MOST_PER_DEVICE = 64
SPARE = 4
"""A batch fits when the step of a batch larger by one in so many images does."""
ConfigT = TypeVar("ConfigT", bound=Config)


def largest_batch(fits: Callable[[int], bool], devices: int, limit: int) -> int:
    """The largest power of two times ``devices`` up to ``limit`` that ``fits``; 0 when none does.

    Tries growing batches, and none after the first that does not fit.
    """
    found, size = 0, devices
    while size <= limit and fits(size):
        found, size = size, 2 * size
    return found


def with_batch_sizes(config: ConfigT, task: Task, strategy: tf.distribute.Strategy) -> ConfigT:
    """``config`` with a number for each batch size that is AUTO; the model of ``task`` is afterwards what it was.

    On GPUs real steps decide; MemoryRanOutError when not even one image a device fits, ConfigError where several
    workers would have to try together. On a CPU, which would swap long before it fails, it is the default of the kind
    of run, or what of it the training list can fill.
    """
    train = config.train
    if all(phase.batch_size != AUTO for phase in phases(config)):
        return config
    gpus = bool(tf.config.list_logical_devices("GPU"))
    if gpus and read_cluster().count > 1:
        raise ConfigError(
            "train.batch_size: -1: workers cannot try together what fits: give a number; --dry-run on one finds it"
        )
    devices = strategy.num_replicas_in_sync
    images = len(task.train_data) // train.accumulate
    before = model_tensors(task.model)

    def chosen(phase: PhaseConfig) -> PhaseConfig:
        if phase.batch_size != AUTO:
            return phase
        if images < devices:
            return replace(phase, batch_size=devices)
        if gpus:
            size = _largest_step(task, train, strategy, phase, min(images, MOST_PER_DEVICE * devices))
            # The optimizer's slots lie in the memory that the run is about to need.
            gc.collect()
        else:
            usual = type(config)().train
            limit = min(images, usual.freeze_batch_size if phase.frozen_backbone else usual.batch_size)
            size = largest_batch(lambda _: True, devices, max(limit, devices))
        return replace(phase, batch_size=size)

    found = tuple(chosen(phase) for phase in phases(config))
    restore_model(task.model, {name.removeprefix("model/"): value for name, value in before.items()}, "the start")
    return replace(config, train=_with_phases(train, found))


def batch_size_remarks(asked: Config, found: Config) -> list[str]:
    """A line for each phase whose batch size ``asked`` left open."""
    rule = (
        "the largest power of two a device that fits GPU memory with a quarter more images, or that the list allows"
        if tf.config.list_logical_devices("GPU")
        else "the default on a CPU, or what the list allows"
    )
    return [
        f"batch size of phase {number}: {after.batch_size}, {rule}"
        for number, (before, after) in enumerate(zip(phases(asked), phases(found), strict=True), start=1)
        if before.batch_size == AUTO
    ]


def _with_phases(train: TrainConfig, found: tuple[PhaseConfig, ...]) -> TrainConfig:
    if train.phases:
        return replace(train, phases=found)
    for one in found:
        if one.frozen_backbone:
            train = replace(train, freeze_batch_size=one.batch_size)
        else:
            train = replace(train, batch_size=one.batch_size)
    return train


def _largest_step(
    task: Task, train: TrainConfig, strategy: tf.distribute.Strategy, phase: PhaseConfig, limit: int
) -> int:
    """The largest batch of ``phase`` up to ``limit`` whose step fits. It leaves other weights than it finds."""
    devices = strategy.num_replicas_in_sync
    average = WeightAverage(task.model, train.ema_decay, strategy) if train.ema_decay > 0 else None
    learner = Learner(task, train, strategy, phase.frozen_backbone, average)
    data = task.train_data.at_size(phase.input_size).at_largest()

    def fits(size: int) -> bool:
        whole = size * train.accumulate
        # The last of an epoch, so that none is made ahead.
        batch = next(data.training_batches(0, whole, data.steps_per_epoch(whole) - 1))
        try:
            learner.train_step(_repeated(batch, train.accumulate * with_spare(size, devices)), 0.0)
        except Exception as error:
            if not ran_out_of_memory(error):
                raise
            return False
        return True

    found = largest_batch(fits, devices, limit)
    # What failed to fit is no part of what the run needs.
    forget_gpu_memory_peak()
    if not found:
        raise MemoryRanOutError(
            "train.batch_size: -1: not even one image on each device fits into memory; lower model.input_size"
        )
    return found


def with_spare(size: int, devices: int) -> int:
    """A batch of ``size`` with a ``SPARE``-th more images, at least one more on each device."""
    each = size // devices
    return devices * (each + -(-each // SPARE))


def _repeated(batch: Batch, count: int) -> Batch:
    """``count`` images, those of ``batch`` over and over."""
    rows = np.arange(count) % len(batch.images)
    targets = {name: value[rows] for name, value in batch.targets.items()}
    return replace(batch, images=batch.images[rows], targets=targets)
