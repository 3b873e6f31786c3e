"""A training run from config to checkpoints: phases of epochs, each with its measurements and its pictures."""

from __future__ import annotations

import dataclasses
import math
import time
from dataclasses import dataclass, field
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from engine.checkpoint import Checkpoint, keep_previous, model_tensors, restore_model, save_checkpoint
from engine.dataset import Batch, DetectionDataset
from engine.evaluation import evaluate_records, ground_truths_for
from engine.inference import Predictor
from engine.interrupts import StopRequest
from engine.learner import PARTS, Learner
from engine.plan import phases
from engine.run_directory import EpochMetrics, RunDirectory
from engine.run_pictures import draw_batch, draw_predictions
from engine.schedule import Schedule, phase_schedule
from utils.config import DetectorSpec, PhaseConfig, RunConfig
from utils.errors import DivergedError
from utils.progress import Reporter
from utils.training_plots import plot_curves
from utils.types import Record


@dataclass
class Position:
    """How far a run has come."""

    epoch: int = 0
    epoch_step: int = 0
    step: int = 0
    best_map: float = -1.0
    history: list[EpochMetrics] = field(default_factory=list)
    epoch_sums: list[float] = field(default_factory=lambda: [0.0] * len(PARTS))
    epoch_dropped: int = 0


@dataclass(frozen=True)
class TrainingSummary:
    """What a finished run came to."""

    run_dir: Path
    best_map: float | None
    epochs: int
    minutes: float


class Trainer:
    """Runs the phases of ``config`` on a built detector and keeps its run directory up to date."""

    def __init__(
        self,
        config: RunConfig,
        spec: DetectorSpec,
        model: keras.Model,
        strategy: tf.distribute.Strategy,
        train: list[Record],
        val: list[Record],
        run: RunDirectory,
        reporter: Reporter,
    ) -> None:
        self.config, self.spec, self.model, self.strategy = config, spec, model, strategy
        self.run, self.reporter = run, reporter
        seed, threads = config.train.seed, config.data.threads
        self.train_data = DetectionDataset(train, spec, config.loss, config.augment, seed, threads)
        self.val_data = DetectionDataset(val, spec, config.loss, None, seed, threads)
        # Found now, what is wrong with the annotations does not end the run at its first measurement.
        self.truths = ground_truths_for(val, spec.class_names, spec.ignore_exif)
        self.predictor = Predictor(model, spec)
        self.position = Position()
        self.phases = phases(config.train)
        self.epochs = self.phases[-1].until_epoch
        for phase in self.phases:
            self.train_data.steps_per_epoch(phase.batch_size)

    def restore(self, checkpoint: Checkpoint) -> None:
        """Goes on from a training checkpoint: weights, and where the run stood."""
        restore_model(self.model, checkpoint.group("model"), self.run.last)
        info = checkpoint.info
        history = [entry for entry in self.run.read_metrics() if entry["epoch"] < info["position"]["epoch"]]
        self.position = Position(**info["position"], history=history)
        self._optimizer_state = checkpoint.group("optimizer")

    _optimizer_state: dict[str, np.ndarray] | None = None

    def fit(self, stop: StopRequest | None = None) -> TrainingSummary:
        """Trains to the end, or until ``stop`` is made: then the state is saved after the step under way.

        DivergedError when the loss stops being a number; nothing is saved over then.
        """
        self.stop = stop or StopRequest()
        started = time.monotonic()
        for number, phase in enumerate(self.phases, start=1):
            if self.position.epoch < phase.until_epoch and not self.stop.made:
                self._run_phase(number, phase)
        best = self.position.best_map
        minutes = (time.monotonic() - started) / 60
        return TrainingSummary(self.run.path, best if best >= 0 else None, self.position.epoch, minutes)

    def _run_phase(self, number: int, phase: PhaseConfig) -> None:
        learner = Learner(self.model, self.spec, self.config, self.strategy, phase.frozen_backbone)
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
        while self.position.epoch < phase.until_epoch:
            entry = self._run_epoch(learner, phase, schedule)
            if self.stop.made:
                self._save_last(learner, self._weights())
                return
            self._finish_epoch(learner, entry)
            if self.stop.made:
                return

    def _first_epoch(self, number: int) -> int:
        return 0 if number == 1 else self.phases[number - 2].until_epoch

    def _run_epoch(self, learner: Learner, phase: PhaseConfig, schedule: Schedule) -> EpochMetrics:
        position, batch_size = self.position, phase.batch_size
        steps, first = self.train_data.steps_per_epoch(batch_size), position.epoch_step
        batches = self.train_data.training_batches(position.epoch, batch_size, first)
        title = f"epoch {position.epoch + 1}/{self.epochs}"
        started = time.monotonic()
        for batch in self.reporter.track(batches, title, steps - first):
            self._run_step(learner, batch, self._rate(schedule, position.epoch_step, steps))
            if self.stop.made:
                break
        seconds = time.monotonic() - started
        done = position.epoch_step
        return {
            "epoch": position.epoch,
            "frozen_backbone": phase.frozen_backbone,
            "learning_rate": self._rate(schedule, max(done - 1, 0), steps),
            "images_per_second": (done - first) * batch_size / seconds,
            "dropped_boxes": position.epoch_dropped,
            **_named(np.array(position.epoch_sums) / max(done, 1), "train"),
        }

    def _rate(self, schedule: Schedule, step: int, steps: int) -> float:
        within = step / steps if self.config.train.schedule_by == "step" else 0.0
        return schedule.rate(self.position.epoch + within)

    def _run_step(self, learner: Learner, batch: Batch, rate: float) -> None:
        position = self.position
        if position.step == 0:
            draw_batch(self.run, batch, self.spec)
        parts = learner.train_step(batch, rate)
        if not np.isfinite(parts).all():
            raise DivergedError(self._diverged(batch.paths))
        position.epoch_sums = [a + float(b) for a, b in zip(position.epoch_sums, parts, strict=True)]
        position.epoch_dropped += batch.dropped
        position.epoch_step += 1
        position.step += 1

    def _finish_epoch(self, learner: Learner, entry: EpochMetrics) -> None:
        position = self.position
        position.epoch += 1
        position.epoch_step, position.epoch_dropped = 0, 0
        position.epoch_sums = [0.0] * len(PARTS)
        weights = self._weights()
        entry.update(self._validate(learner))
        every = self.config.train.eval_every
        measured = position.epoch == self.epochs or (every > 0 and position.epoch % every == 0)
        better = measured and self._measure(entry)
        position.history.append(entry)
        self.run.write_metrics(position.history)
        self.run.log_scalars(entry)
        plot_curves(position.history, self.run.plots / "curves.png")
        self._save(learner, weights, better)
        self.reporter.say(_epoch_line(entry, self.epochs))

    def _validate(self, learner: Learner) -> dict[str, float]:
        """Loss on the validation list, each image counted alike."""
        batch_size = min(self.phases[-1].batch_size, len(self.val_data))
        sums, images = np.zeros(len(PARTS)), 0
        for batch in self.val_data.validation_batches(batch_size):
            sums += learner.validation_step(batch) * len(batch.images)
            images += len(batch.images)
        return _named(sums / images, "val")

    def _measure(self, entry: EpochMetrics) -> bool:
        """Measures mAP on the validation list, by the evaluator that get_map uses. Whether it is the best so far."""
        batch_size = self.phases[-1].batch_size
        metrics, detections = evaluate_records(
            self.predictor, self.truths, batch_size=batch_size, reporter=self.reporter
        )
        draw_predictions(self.run, self.truths, detections, self.position.epoch, self.spec.ignore_exif)
        entry["map_50"] = metrics.voc_map_50
        entry["coco_ap"] = metrics.coco_ap
        if metrics.voc_map_50 is None:
            # A validation list without objects measures nothing: the newest weights are the best then.
            return True
        better = metrics.voc_map_50 > self.position.best_map
        self.position.best_map = max(metrics.voc_map_50, self.position.best_map)
        return better

    def _save(self, learner: Learner, weights: dict[str, np.ndarray], better: bool) -> None:
        position, run = self.position, self.run
        metrics = {key: value for key, value in position.history[-1].items() if isinstance(value, float | int)}
        info = {"epoch": position.epoch, "step": position.step, "metrics": metrics}
        if better:
            save_checkpoint(run.best, Checkpoint(self.spec, weights, info))
        every = self.config.train.save_every
        if every > 0 and position.epoch % every == 0:
            save_checkpoint(run.periodic(position.epoch), Checkpoint(self.spec, weights, info))
        self._save_last(learner, weights)

    def _save_last(self, learner: Learner, weights: dict[str, np.ndarray]) -> None:
        """Everything that going on needs; the checkpoint before stays as ``previous``."""
        position = {key: value for key, value in vars(self.position).items() if key != "history"}
        info = {"position": position, "config": dataclasses.asdict(self.config)}
        tensors = {**weights, **learner.optimizer_tensors()}
        keep_previous(self.run.last, self.run.previous)
        save_checkpoint(self.run.last, Checkpoint(self.spec, tensors, info))

    def _weights(self) -> dict[str, np.ndarray]:
        """The model's tensors. DivergedError when one is not a number, which the loss would only show a step later."""
        weights = model_tensors(self.model)
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


def _named(values: np.ndarray, prefix: str) -> dict[str, float]:
    parts = {f"{prefix}_{part}": float(value) for part, value in zip(PARTS, values, strict=True)}
    return {f"{prefix}_loss": float(values.sum()), **parts}


def _epoch_line(entry: EpochMetrics, epochs: int) -> str:
    line = (
        f"epoch {entry['epoch'] + 1}/{epochs}: loss {entry['train_loss']:.4f} (box {entry['train_box']:.4f}, "
        f"objectness {entry['train_objectness']:.4f}, class {entry['train_class']:.4f}), "
        f"val {entry['val_loss']:.4f}, lr {entry['learning_rate']:.2e}, {entry['images_per_second']:.1f} images/s"
    )
    measured = entry.get("map_50")
    return line if measured is None or math.isnan(measured) else f"{line}, mAP@0.5 {measured:.4f}"
