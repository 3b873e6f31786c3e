"""A training run from config to checkpoints: phases of epochs, each with its measurements and its pictures."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial

import numpy as np
import tensorflow as tf

from engine.averaging import WeightAverage
from engine.checkpoint import Checkpoint, model_tensors, restore_model
from engine.dataset import Batch
from engine.divergence import naming_images, refuse_diverged_gradient, refuse_diverged_loss, refuse_diverged_weights
from engine.interrupts import StoppableReporter, StoppedError, StopRequest, left_on_a_stop
from engine.learner import Learner, loss_parts, named_parts
from engine.memory import within_memory
from engine.pace import StepClock, epoch_line, is_measured, memory_in_use, phase_line, seconds_left
from engine.plan import phases
from engine.position import Position, TrainingSummary
from engine.resume_check import common_start
from engine.run_directory import EpochMetrics, RunDirectory
from engine.saving import Saving, Weights
from engine.schedule import Schedule, phase_schedule
from engine.task import Config, Task
from engine.waiting import Waiting
from engine.workers import Workers, noticing_losses
from utils.config import PhaseConfig
from utils.errors import DataError
from utils.progress import Reporter
from utils.training_plots import plot_curves


class Trainer:
    """Runs the phases of ``config`` on a task and keeps its run directory up to date."""

    def __init__(
        self, config: Config, task: Task, strategy: tf.distribute.Strategy, run: RunDirectory, reporter: Reporter
    ) -> None:
        self.config, self.task, self.strategy = config, task, strategy
        self.run, self.reporter = run, reporter
        self.workers = Workers(strategy)
        self.parts = loss_parts(task)
        self.position = Position(epoch_sums=[0.0] * len(self.parts))
        self.phases = phases(config)
        self.epochs = self.phases[-1].until_epoch
        decay = config.train.ema_decay
        self.average = WeightAverage(task.model, decay, strategy) if decay > 0 else None
        self.saving = Saving(config, task, run, self.average, self.workers.chief)
        self.step_files: tuple[str, ...] = ()
        self._optimizer_state: dict[str, np.ndarray] | None = None
        self._listen(StopRequest())
        several = config.train.accumulate, strategy.num_replicas_in_sync
        for phase in self.phases:
            task.train_data.steps_per_epoch(self._images_per_step(phase), *several)

    def restore(self, checkpoint: Checkpoint) -> None:
        """Goes on from a training checkpoint: weights, and where the run stood."""
        restore_model(self.task.model, checkpoint.group("model"), self.run.last)
        info = checkpoint.info
        history = [entry for entry in self.run.read_metrics() if entry["epoch"] < info["position"]["epoch"]]
        self.position = Position(**info["position"], history=history)
        self._optimizer_state = checkpoint.group("optimizer")
        if self.position.in_phase is None:
            self.position.in_phase = self.position.epoch_step > 0
        if self.average is not None:
            # Fewer than steps where the run was begun without an average.
            updates = self.position.averaged_steps
            self.average.restore(checkpoint.group("ema"), self.position.step if updates is None else updates)

    def fit(self, stop: StopRequest | None = None) -> TrainingSummary:
        """Trains to the end, or until ``stop`` is made: then the state is saved after the step under way.

        A first step of a phase that takes long is left then, and may change the model even after this returns.
        DivergedError when the loss stops being a number, MemoryRanOutError: nothing is saved over then. DataError when
        an image cannot be read any more; the state is saved first.
        """
        self._listen(stop or StopRequest())
        started = self.saving.time = time.monotonic()
        resumed = self.position.step > 0
        try:
            with noticing_losses():
                self.workers.refuse_differences(self._start)
                for number, phase in enumerate(self.phases, start=1):
                    left = self.position.epoch < phase.until_epoch and not self._stopped_early()
                    # Stopped before anything is saved, it is saved in its phase.
                    if left and not (self.stop.made and self.saving.step is not None):
                        self._run_phase(number, phase)
        finally:
            self.run.unlock()
        best, title = self.position.best_score, next(iter(self.task.curves.values()))
        if self._stopped_early() and self.position.epoch < self.epochs:
            since = self.position.measured_since_best
            self.reporter.say(
                f"stopped early, after epoch {self.position.epoch} of {self.epochs}: {since} measurements in a row "
                f"found no better {title} than {best:.4f} (train.early_stopping)"
            )
        complete = self._stopped_early() or self.position.epoch >= self.epochs
        score, minutes = best if best >= 0 else None, (time.monotonic() - started) / 60
        return TrainingSummary(self.run.path, complete, score, title, self.position.epoch, minutes, resumed)

    def _listen(self, own: StopRequest) -> None:
        """Looks at the stop that this process is asked for, and at that which all workers know of."""
        self.stop = self.workers.listen(own)
        self.watched, self.watched_part = (StoppableReporter(self.reporter, one) for one in (self.stop, own))

    def _waiting(self, stop: StopRequest) -> Waiting:
        return Waiting(stop, self.reporter.warn)

    def _run_phase(self, number: int, phase: PhaseConfig) -> None:
        with self._within_memory(phase.batch_size):
            learner = Learner(self.task, self.config.train, self.strategy, phase.frozen_backbone, self.average)
        begins = not self.position.in_phase and self.position.epoch == self._first_epoch(number)
        if begins:
            self.position.measured_since_best = 0
        elif self._optimizer_state is not None:
            learner.restore_optimizer(self._optimizer_state)
        self._optimizer_state, self.position.in_phase = None, True
        images, sides = self._images_per_step(phase), self.task.train_data.at_size(phase.input_size).sides
        schedule = phase_schedule(self.config.train, images, self.epochs)
        measured = self.task.spec.input_size
        self.reporter.say(phase_line(number, self.phases, self.position.epoch, images, sides, measured))
        while self.position.epoch < phase.until_epoch and not self.stop.made and not self._stopped_early():
            try:
                self._run_epoch(learner, phase, schedule)
            except (StoppedError, DataError) as reason:
                # Where nothing was learned since the last save, the weights may be those of a step that was left.
                if self.position.step != self.saving.step:
                    self._save_last(learner)
                if isinstance(reason, DataError):
                    raise
        if self.saving.step is None and self.stop.made:  # asked for before the first step, perhaps of another config
            self._save_last(learner)

    def _stopped_early(self) -> bool:
        # A phase that gets no further is no reason to leave out the next.
        last = self.position.epoch > self._first_epoch(len(self.phases))
        return last and 0 < self.config.train.early_stopping <= self.position.measured_since_best

    def _images_per_step(self, phase: PhaseConfig) -> int:
        return phase.batch_size * self.config.train.accumulate

    def _first_epoch(self, number: int) -> int:
        return 0 if number == 1 else self.phases[number - 2].until_epoch

    def _run_epoch(self, learner: Learner, phase: PhaseConfig, schedule: Schedule) -> None:
        """The steps that are left of the epoch, its measurements, its checkpoints. StoppedError anywhere between."""
        started, whole = time.monotonic(), self.position.epoch_step == 0
        entry = self._learn(learner, phase, schedule)
        # Of an epoch that was stopped and gone on with a part is timed, which says nothing of whole ones.
        entry["seconds"] = time.monotonic() - started - entry["preparing_seconds"] if whole else None
        weights = self._weights()
        if not self.run.last.exists():
            # Killed between its first metrics and its first `last`, a run could neither be started nor gone on with.
            self.saving.last(learner, self.position, weights)
        begun = time.monotonic()
        measured = is_measured(self.position.epoch + 1, self.epochs, self.config.train.eval_every)
        with nullcontext() if self.average is None else self.average.in_use():
            entry.update(self._validate(learner))
            validated = time.monotonic()
            better = measured and self._measure(entry)
        entry["validating_seconds"] = validated - begun
        if measured:
            entry["measuring_seconds"] = time.monotonic() - validated
        self._finish_epoch(learner, entry, weights, better)

    def _learn(self, learner: Learner, phase: PhaseConfig, schedule: Schedule) -> EpochMetrics:
        position, batch_size = self.position, self._images_per_step(phase)
        data = self.task.train_data.at_size(phase.input_size)
        steps, first = data.steps_per_epoch(batch_size), position.epoch_step
        shard, parts = self.workers.shard, self.config.train.accumulate
        waiting = self._waiting(self.stop)
        batches = self.workers.in_step(data.training_batches(position.epoch, batch_size, first, shard, parts))
        batches, clock = waiting.over(batches), StepClock(waiting, makes_graph=not learner.traced)
        with self._within_memory(phase.batch_size):
            for batch in self.watched.track(batches, f"epoch {position.epoch + 1}/{self.epochs}", steps - first):
                self._run_step(learner, batch, self._rate(schedule, position.epoch_step, steps))
                if self.saving.due(self.position.step):
                    self._save_last(learner)
                clock.tick()
        (seconds, preparing), done = clock.read(), position.epoch_step
        # Gone on with after its last step there was nothing to time.
        speed = (done - first) * batch_size / seconds if done > first else None
        return {
            "epoch": position.epoch,
            "frozen_backbone": phase.frozen_backbone,
            "learning_rate": self._rate(schedule, max(done - 1, 0), steps),
            "images_per_second": speed,
            "data_wait": waiting.seconds / seconds if done > first else None,
            "preparing_seconds": preparing,
            **memory_in_use(),
            "dropped_boxes": position.epoch_dropped,
            **named_parts(self.parts, np.array(position.epoch_sums) / max(done, 1), "train"),
        }

    def _rate(self, schedule: Schedule, step: int, steps: int) -> float:
        within = step / steps if self.config.train.schedule_by == "step" else 0.0
        return schedule.rate(self.position.epoch + within)

    def _run_step(self, learner: Learner, batch: Batch, rate: float) -> None:
        position = self.position
        if position.step == 0 and self.workers.chief:
            self.task.draw_batch(self.run, batch)
        act = partial(learner.train_step, batch, rate)
        if not learner.traced:
            # No worker waits for another while it traces.
            with self.workers.part(), self.workers.own_stop.interrupting():
                learner.trace()
            if self.workers.alone:
                act = partial(self._first_step, act, self._unsaved(learner))
        self.step_files = (*batch.paths, *batch.mixed_in)
        where = f"{self.run.path}: epoch {position.epoch + 1} step {position.epoch_step + 1}"
        with naming_images(where, self.step_files):
            parts = act()
            refuse_diverged_loss(parts, self.config.train.learning_rate)
            refuse_diverged_gradient(learner.gradient_norm, self.config.train.learning_rate)
        position.epoch_sums = [a + float(b) for a, b in zip(position.epoch_sums, parts, strict=True)]
        position.epoch_dropped += batch.dropped
        position.epoch_step += 1
        position.step += 1

    def _first_step(self, step: Callable[[], np.ndarray], unsaved: Checkpoint | None) -> np.ndarray:
        """A ``step`` in which TensorFlow optimizes its graph, for seconds that nothing can end: a stop leaves it alone.

        Nothing is lost then: ``unsaved`` is the state before it, None where ``last`` holds that.
        """
        try:
            return left_on_a_stop(step, self.stop, "the first step of a phase")
        except StoppedError:
            if unsaved is not None:
                self.saving.write_last(unsaved)
            raise

    def _unsaved(self, learner: Learner) -> Checkpoint | None:
        saved = self.saving.step == self.position.step
        return None if saved else self.saving.state(learner, self.position, self._weights())

    def _finish_epoch(self, learner: Learner, entry: EpochMetrics, weights: Weights, better: bool) -> None:
        task, position, every, began = self.task, self.position, self.config.train.eval_every, time.monotonic()
        position.epoch += 1
        position.in_phase = all(position.epoch != phase.until_epoch for phase in self.phases)
        position.begin_epoch()
        position.history.append(entry)
        if self.workers.chief:
            plot_curves(position.history, self.run.curves, task.parts, task.curves)
        entry["keeping_seconds"] = time.monotonic() - began + self.saving.seconds
        entry["seconds_left"] = seconds_left(position.history, self.phases, every, task.spec.input_size)
        if self.workers.chief:
            self.run.write_metrics(position.history)
            self.run.log_scalars(entry)
            self.saving.epoch(learner, position, weights, better)
        self.reporter.say(epoch_line(entry, self.epochs, task.parts, task.curves))
        self.workers.agree()

    def _validate(self, learner: Learner) -> dict[str, float]:
        """Loss on the validation list: of its batches as the loss of an update is of its parts."""
        data, sums, weights = self.task.val_data, np.zeros(len(self.parts)), np.zeros((len(self.parts), 2))
        batch_size = min(self.phases[-1].batch_size, len(data))
        batches = self._waiting(self.workers.own_stop).over(data.validation_batches(batch_size, self.workers.shard))
        steps = -(-len(data) // batch_size // self.workers.cluster.count)
        with self._within_memory(batch_size), self.workers.part():
            for batch in self.watched_part.track(batches, "validating", steps):
                # L2, the last part, is the same for each batch.
                own = np.array([(self.task.weight(batch.targets), len(batch.images))] * (len(sums) - 1) + [(1, 0)])
                sums += learner.validation_step(batch) * own.max(axis=1)
                weights += own
        return named_parts(self.parts, self.workers.sum(sums) / self.workers.sum(weights).max(axis=1), "val")

    def _measure(self, entry: EpochMetrics) -> bool:
        """Measures on the validation data, as the measuring command does. Whether it is the best so far."""
        position, batch_size = self.position, self.phases[-1].batch_size
        with self._within_memory(batch_size), self.stop.interrupting():
            found = self.task.measure(batch_size, self.run, position.epoch + 1, self.watched_part, self.workers)
        entry.update(found.entries)
        if found.score is None:
            # Validation data without objects measures nothing: the newest weights are the best then.
            return True
        better = found.score > position.best_score
        position.measured_since_best = 0 if better else position.measured_since_best + 1
        position.best_score = max(found.score, position.best_score)
        return better

    def _save_last(self, learner: Learner) -> None:
        self.saving.last(learner, self.position, self._weights())

    def _start(self) -> bytes:
        return common_start(self.task.spec, self.task.fingerprints, self.config, self.position.step, self._weights())

    def _weights(self) -> Weights:
        """The model's tensors. DivergedError when one is not a number."""
        weights = model_tensors(self.task.model)
        with naming_images(f"{self.run.path}: step {self.position.step}", self.step_files):
            refuse_diverged_weights(weights, self.config.train.learning_rate)
        return weights

    def _within_memory(self, batch_size: int) -> AbstractContextManager[None]:
        advice = "lower the batch size (train.batch_size, freeze_batch_size or phases) or model.input_size"
        return within_memory(str(self.run.path), batch_size, advice)
