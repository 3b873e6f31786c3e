"""A training run from config to checkpoints: phases of epochs, each with its measurements and its pictures."""

from __future__ import annotations

import dataclasses
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import tensorflow as tf

from engine.checkpoint import Checkpoint, keep_previous, model_tensors, restore_model, save_checkpoint
from engine.dataset import Batch
from engine.interrupts import StoppableReporter, StoppedError, StopRequest
from engine.learner import Learner, loss_parts
from engine.plan import phases
from engine.run_directory import EpochMetrics, RunDirectory
from engine.schedule import Schedule, phase_schedule
from engine.task import Config, Task
from utils.config import PhaseConfig
from utils.errors import DataError, DivergedError, MemoryRanOutError
from utils.progress import Reporter
from utils.training_plots import plot_curves


@dataclass
class Position:
    """How far a run has come."""

    epoch: int = 0
    epoch_step: int = 0
    step: int = 0
    best_score: float = -1.0
    history: list[EpochMetrics] = field(default_factory=list)
    epoch_sums: list[float] = field(default_factory=list)
    """Of each loss part, over the steps of the epoch so far."""
    epoch_dropped: int = 0


@dataclass(frozen=True)
class TrainingSummary:
    """What a finished run came to."""

    run_dir: Path
    best_score: float | None
    score_title: str
    epochs: int
    minutes: float


class Trainer:
    """Runs the phases of ``config`` on a task and keeps its run directory up to date."""

    def __init__(
        self, config: Config, task: Task, strategy: tf.distribute.Strategy, run: RunDirectory, reporter: Reporter
    ) -> None:
        self.config, self.task, self.strategy = config, task, strategy
        self.run, self.reporter = run, reporter
        self.parts = loss_parts(task)
        self.position = Position(epoch_sums=self._no_sums())
        self.phases = phases(config.train)
        self.epochs = self.phases[-1].until_epoch
        for phase in self.phases:
            task.train_data.steps_per_epoch(phase.batch_size)

    def restore(self, checkpoint: Checkpoint) -> None:
        """Goes on from a training checkpoint: weights, and where the run stood."""
        restore_model(self.task.model, checkpoint.group("model"), self.run.last)
        info = checkpoint.info
        history = [entry for entry in self.run.read_metrics() if entry["epoch"] < info["position"]["epoch"]]
        self.position = Position(**info["position"], history=history)
        self._optimizer_state = checkpoint.group("optimizer")

    _optimizer_state: dict[str, np.ndarray] | None = None

    def fit(self, stop: StopRequest | None = None) -> TrainingSummary:
        """Trains to the end, or until ``stop`` is made: then the state is saved after the step under way.

        DivergedError when the loss stops being a number, MemoryRanOutError: nothing is saved over then. DataError when
        an image cannot be read any more; the state is saved first.
        """
        self.stop = stop or StopRequest()
        self.watched = StoppableReporter(self.reporter, self.stop)
        started = self.saved_at = time.monotonic()
        try:
            for number, phase in enumerate(self.phases, start=1):
                if self.position.epoch < phase.until_epoch and not self.stop.made:
                    self._run_phase(number, phase)
        finally:
            self.run.unlock()
        best = self.position.best_score
        minutes = (time.monotonic() - started) / 60
        return TrainingSummary(
            self.run.path, best if best >= 0 else None, self._score_title(), self.position.epoch, minutes
        )

    def _run_phase(self, number: int, phase: PhaseConfig) -> None:
        learner = Learner(self.task, self.config.train, self.strategy, phase.frozen_backbone)
        begins = self.position.epoch_step == 0 and self.position.epoch == self._first_epoch(number)
        if self._optimizer_state is not None and not begins:
            learner.restore_optimizer(self._optimizer_state)
        self._optimizer_state = None
        schedule = phase_schedule(self.config.train, phase.batch_size, self.epochs)
        state = "backbone frozen" if phase.frozen_backbone else "everything trains"
        self.reporter.say(
            f"phase {number} of {len(self.phases)}: epochs {self.position.epoch + 1} to {phase.until_epoch}, "
            f"batch {phase.batch_size}, {state}"
        )
        while self.position.epoch < phase.until_epoch and not self.stop.made:
            try:
                self._run_epoch(learner, phase, schedule)
            except (StoppedError, DataError) as reason:
                self._save_last(learner, self._weights())
                if isinstance(reason, DataError):
                    raise

    def _first_epoch(self, number: int) -> int:
        return 0 if number == 1 else self.phases[number - 2].until_epoch

    def _run_epoch(self, learner: Learner, phase: PhaseConfig, schedule: Schedule) -> None:
        """The steps that are left of the epoch, its measurements, its checkpoints. StoppedError anywhere between."""
        entry = self._learn(learner, phase, schedule)
        weights = self._weights()
        entry.update(self._validate(learner))
        every, ends = self.config.train.eval_every, self.position.epoch + 1
        measured = ends == self.epochs or (every > 0 and ends % every == 0)
        better = measured and self._measure(entry)
        self._finish_epoch(learner, entry, weights, better)

    def _learn(self, learner: Learner, phase: PhaseConfig, schedule: Schedule) -> EpochMetrics:
        position, batch_size = self.position, phase.batch_size
        steps, first = self.task.train_data.steps_per_epoch(batch_size), position.epoch_step
        batches = self.task.train_data.training_batches(position.epoch, batch_size, first)
        title = f"epoch {position.epoch + 1}/{self.epochs}"
        started = time.monotonic()
        for batch in self.watched.track(batches, title, steps - first):
            self._run_step(learner, batch, self._rate(schedule, position.epoch_step, steps))
            if position.epoch_step < steps:
                self._save_if_due(learner)
        seconds = time.monotonic() - started
        done = position.epoch_step
        return {
            "epoch": position.epoch,
            "frozen_backbone": phase.frozen_backbone,
            "learning_rate": self._rate(schedule, max(done - 1, 0), steps),
            "images_per_second": (done - first) * batch_size / seconds,
            "dropped_boxes": position.epoch_dropped,
            **self._named(np.array(position.epoch_sums) / max(done, 1), "train"),
        }

    def _rate(self, schedule: Schedule, step: int, steps: int) -> float:
        within = step / steps if self.config.train.schedule_by == "step" else 0.0
        return schedule.rate(self.position.epoch + within)

    def _run_step(self, learner: Learner, batch: Batch, rate: float) -> None:
        position = self.position
        if position.step == 0:
            self.task.draw_batch(self.run, batch)
        try:
            parts = learner.train_step(batch, rate)
        except (tf.errors.ResourceExhaustedError, MemoryError) as error:
            raise MemoryRanOutError(
                f"{self.run.path}: batch size: {len(batch.images)}: does not fit into memory; lower train.batch_size, "
                "train.freeze_batch_size or model.input_size"
            ) from error
        if not np.isfinite(parts).all():
            raise DivergedError(self._diverged(batch.paths))
        position.epoch_sums = [a + float(b) for a, b in zip(position.epoch_sums, parts, strict=True)]
        position.epoch_dropped += batch.dropped
        position.epoch_step += 1
        position.step += 1

    def _finish_epoch(
        self, learner: Learner, entry: EpochMetrics, weights: dict[str, np.ndarray], better: bool
    ) -> None:
        position = self.position
        position.epoch += 1
        position.epoch_step, position.epoch_dropped = 0, 0
        position.epoch_sums = self._no_sums()
        position.history.append(entry)
        self.run.write_metrics(position.history)
        self.run.log_scalars(entry)
        plot_curves(position.history, self.run.plots / "curves.png", self.task.parts, self.task.curves)
        self._save(learner, weights, better)
        self.reporter.say(self._epoch_line(entry))

    def _validate(self, learner: Learner) -> dict[str, float]:
        """Loss on the validation list, each image counted alike."""
        batch_size = min(self.phases[-1].batch_size, len(self.task.val_data))
        sums, images = np.zeros(len(self.parts)), 0
        batches = self.task.val_data.validation_batches(batch_size)
        for batch in self.watched.track(batches, "validating", -(-len(self.task.val_data) // batch_size)):
            sums += learner.validation_step(batch) * len(batch.images)
            images += len(batch.images)
        return self._named(sums / images, "val")

    def _measure(self, entry: EpochMetrics) -> bool:
        """Measures on the validation data, as the measuring command does. Whether it is the best so far."""
        position = self.position
        found = self.task.measure(self.phases[-1].batch_size, self.run, position.epoch + 1, self.watched)
        entry.update(found.entries)
        if found.score is None:
            # Validation data without objects measures nothing: the newest weights are the best then.
            return True
        better = found.score > position.best_score
        position.best_score = max(found.score, position.best_score)
        return better

    def _save(self, learner: Learner, weights: dict[str, np.ndarray], better: bool) -> None:
        position, run = self.position, self.run
        metrics = {key: value for key, value in position.history[-1].items() if isinstance(value, float | int)}
        info = {"epoch": position.epoch, "step": position.step, "metrics": metrics}
        if better:
            save_checkpoint(run.best, Checkpoint(self.task.spec, weights, info))
        every = self.config.train.save_every
        if every > 0 and position.epoch % every == 0:
            save_checkpoint(run.periodic(position.epoch), Checkpoint(self.task.spec, weights, info))
        self._save_last(learner, weights)

    def _save_if_due(self, learner: Learner) -> None:
        minutes = self.config.train.save_minutes
        if minutes > 0 and time.monotonic() - self.saved_at >= 60 * minutes:
            self._save_last(learner, self._weights())

    def _save_last(self, learner: Learner, weights: dict[str, np.ndarray]) -> None:
        """Everything that going on needs; the checkpoint before stays as ``previous``."""
        position = {key: value for key, value in vars(self.position).items() if key != "history"}
        info = {
            "position": position,
            "config": dataclasses.asdict(self.config),
            "data": dict(self.task.fingerprints),
        }
        tensors = {**weights, **learner.optimizer_tensors()}
        keep_previous(self.run.last, self.run.previous)
        save_checkpoint(self.run.last, Checkpoint(self.task.spec, tensors, info))
        self.saved_at = time.monotonic()

    def _weights(self) -> dict[str, np.ndarray]:
        """The model's tensors. DivergedError when one is not a number, which the loss would only show a step later."""
        weights = model_tensors(self.task.model)
        for name, value in weights.items():
            if not np.isfinite(value).all():
                raise DivergedError(
                    f"{self.run.path}: step {self.position.step}: {name}: is not a number any more; lower "
                    f"train.learning_rate (now {self.config.train.learning_rate:g})"
                )
        return weights

    def _diverged(self, paths: tuple[str, ...]) -> str:
        position = self.position
        return (
            f"{self.run.path}: epoch {position.epoch + 1} step {position.epoch_step + 1}: the loss is not a number any "
            f"more; lower train.learning_rate (now {self.config.train.learning_rate:g}) or look at the images of this "
            f"batch: {', '.join(paths)}"
        )

    def _no_sums(self) -> list[float]:
        return [0.0] * len(self.parts)

    def _named(self, values: np.ndarray, prefix: str) -> dict[str, float]:
        parts = {f"{prefix}_{part}": float(value) for part, value in zip(self.parts, values, strict=True)}
        return {f"{prefix}_loss": float(values.sum()), **parts}

    def _score_title(self) -> str:
        return next(iter(self.task.curves.values()))

    def _epoch_line(self, entry: EpochMetrics) -> str:
        shares = ", ".join(f"{part} {entry[f'train_{part}']:.4f}" for part in self.task.parts)
        line = (
            f"epoch {entry['epoch'] + 1}/{self.epochs}: loss {entry['train_loss']:.4f} ({shares}), "
            f"val {entry['val_loss']:.4f}, lr {entry['learning_rate']:.2e}, {entry['images_per_second']:.1f} images/s"
        )
        score = entry.get(next(iter(self.task.curves)))
        return line if score is None else f"{line}, {self._score_title()} {score:.4f}"
