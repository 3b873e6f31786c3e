"""What a run keeps of itself: its best weights, those of some epochs, and all that going on needs."""

from __future__ import annotations

import dataclasses
import time

import numpy as np

from engine.averaging import WeightAverage
from engine.checkpoint import Checkpoint, save_checkpoint
from engine.learner import Learner
from engine.position import Position
from engine.run_directory import RunDirectory
from engine.task import Config, Task

Weights = dict[str, np.ndarray]


class Saving:
    """Writes the checkpoints of ``run``, where this is the ``chief``: it does so for all workers."""

    def __init__(
        self, config: Config, task: Task, run: RunDirectory, average: WeightAverage | None, chief: bool
    ) -> None:
        self.config, self.task, self.run = config, task, run
        self.average, self.chief = average, chief
        self.time = time.monotonic()
        """When ``last`` was saved, or the run began."""
        self.step: int | None = None
        """The step of the last save; None before the first."""
        self.seconds = 0.0
        """What the last save took."""

    def due(self, step: int) -> bool:
        """Whether ``last`` is to be saved after ``step``, in the middle of an epoch."""
        steps, minutes = self.config.train.save_steps, self.config.train.save_minutes
        by_steps = steps > 0 and step % steps == 0
        return by_steps or (minutes > 0 and time.monotonic() - self.time >= 60 * minutes)

    def state(self, learner: Learner, position: Position, weights: Weights) -> Checkpoint:
        """Everything that going on needs."""
        position.averaged_steps = 0 if self.average is None else int(self.average.updates.numpy())
        info = {
            "position": {key: value for key, value in vars(position).items() if key != "history"},
            "config": dataclasses.asdict(self.config),
            "data": dict(self.task.fingerprints),
        }
        tensors = {**weights, **self._averages("ema"), **learner.optimizer_tensors()}
        return Checkpoint(self.task.spec, tensors, info)

    def last(self, learner: Learner, position: Position, weights: Weights) -> None:
        """Saves the state as ``last``; the one before stays as ``previous``."""
        began = time.monotonic()
        if self.chief:
            self.write_last(self.state(learner, position, weights))
        # Of the others, too: else each would copy its weights at every step from the first save on.
        self.time, self.step = time.monotonic(), position.step
        self.seconds = self.time - began

    def write_last(self, state: Checkpoint) -> None:
        """Saves a ``state`` that was made before."""
        save_checkpoint(self.run.last, state, self.run.previous)
        self.step = state.info["position"]["step"]

    def epoch(self, learner: Learner, position: Position, weights: Weights, better: bool) -> None:
        """What is kept of a finished epoch: ``better`` than all before are its weights or not."""
        began = time.monotonic()
        metrics = {key: value for key, value in position.history[-1].items() if isinstance(value, float | int)}
        info = {"epoch": position.epoch, "step": position.step, "metrics": metrics}
        measured = Checkpoint(self.task.spec, {**weights, **self._averages("model")}, info)
        if better:
            save_checkpoint(self.run.best, measured)
        every = self.config.train.save_every
        if every > 0 and position.epoch % every == 0:
            save_checkpoint(self.run.periodic(position.epoch), measured)
        self.last(learner, position, weights)
        self.seconds = self.time - began

    def _averages(self, group: str) -> Weights:
        averages = {} if self.average is None else self.average.tensors()
        return {f"{group}/{path}": value for path, value in averages.items()}
